"""The items of quiz sets about stories, MCTest and FairytaleQA: their files, and how stories are laid out in them.

In: a file, or the archive of a repository. Out: QuizItem, those of a story together. Neighbour: quiz_sets.py.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

from curation.set_files import csv_rows, members
from curation.sources.quiz_items import QuizItem, split_in, text_id, with_choice

_MCTEST_MEMBERS = re.compile(r"/mc\d+\.\w+\.(?:tsv|ans)$")
_MARGIN = 90  # characters: nobody sets lines by hand wider than that
_ENDED = re.compile(r"[.!?:][\"')]*$|[\"']$")
_FAIRYTALE_MEMBERS = re.compile(r"/data-by-train-split/(?:questions|section-stories)/[^/]+/[^/]+\.csv$")


def read_mctest(path: Path) -> Iterator[QuizItem]:
    r"""Yields MCTest (Richardson et al. 2013), four questions a story, from .tsv with the answers beside it in .ans.

    Line breaks are written as \newline, tabs as \tab. A .ans alone has no items.
    """
    files = dict(members(path, _MCTEST_MEMBERS))
    answers = path.with_name(path.name.replace(".tsv", ".ans"))
    if path.name.endswith(".tsv") and answers.is_file():
        files |= dict(members(answers))
    for name in sorted(name for name in files if name.endswith(".tsv")):
        keys = files.get(name.replace(".tsv", ".ans"), b"").decode("utf-8-sig").splitlines()
        for i, line in enumerate(files[name].decode("utf-8-sig").splitlines()):
            letters = keys[i].split("\t") if i < len(keys) else []
            yield from _mctest_items(line.split("\t"), letters, split_in(PurePosixPath(name).name))


def _mctest_items(fields: list[str], letters: list[str], split: str) -> Iterator[QuizItem]:
    """Yields the items of a line: id, about, story, then four times a question and its choices."""
    story = fields[0]
    if len(fields) < 8:
        yield QuizItem(story, fault="bad_row")
        return
    text = fields[2].replace("\\tab", " ").replace("\\newline", "\n")
    text = "\n\n".join(" ".join(block.split()) for block in re.split(r"\n\s*\n", text) if block.strip())
    for n, start in enumerate(range(3, len(fields) - 4, 5)):
        question = re.sub(r"^(?:one|multiple): *", "", fields[start].replace("\\newline", " ").strip())
        item = QuizItem(f"{story}.{n}", question, passage=text, split=split, story=story)
        letter = letters[n].strip() if n < len(letters) else ""
        yield with_choice(item, fields[start + 1 : start + 5], "ABCD".find(letter) if letter else -1)


def read_fairytaleqa(path: Path) -> Iterator[QuizItem]:
    """Yields FairytaleQA (Xu et al. 2022): a story's sections, each with the questions that it answers.

    From the archive of the repository; or from a story's file, its questions in ../questions: those alone have none.
    """
    files = {n: d for n, d in members(path, _FAIRYTALE_MEMBERS) if n.endswith(("-story.csv", "-questions.csv"))}
    if len(files) == 1 and path.name.endswith("-story.csv"):
        beside = path.parent.parent / "questions" / path.name.replace("-story.csv", "-questions.csv")
        files |= dict(members(beside)) if beside.is_file() else {}
    questions = {PurePosixPath(n).name.removesuffix("-questions.csv"): n for n in files if "-questions.csv" in n}
    for name in sorted(name for name in files if name.endswith("-story.csv")):
        story = PurePosixPath(name).name.removesuffix("-story.csv")
        asked = questions.get(story, "")
        # upstream has had all stories in one folder: then that of their questions tells the split
        split = split_in(PurePosixPath(asked).parent.name) or split_in(PurePosixPath(name).parent.name)
        yield from _fairytale_items(story, split, files[name], files.get(asked, b""))


def _fairytale_items(story: str, split: str, sections: bytes, questions: bytes) -> Iterator[QuizItem]:
    title = story.replace("-", " ").capitalize()
    asked: dict[str, list[tuple[str, str]]] = {}
    for row in csv_rows(questions, ("cor_section", "question", "answer1")) if questions else ():
        last = max(re.findall(r"\d+", row["cor_section"]) or ["1"], key=int)
        asked.setdefault(last, []).append((row["question"].strip(), row["answer1"].strip()))
    for row in csv_rows(sections, ("section", "text")):
        number = row["section"].strip()
        text = "\n\n".join(_paragraphs(row["text"]))
        yield QuizItem(f"{story}.{number}", passage=text, split=split, story=story, title=title)
        for question, answer in asked.pop(number, ()):
            fault = "no_question" if not question else "" if answer else "no_answer"
            place = QuizItem(
                f"{story}.{text_id(number, question, answer)}", passage=text, split=split, story=story, title=title
            )
            yield replace(place, question=question, answer=answer, fault=fault)
    for number, lost in asked.items():
        for question, answer in lost:
            yield QuizItem(
                f"{story}.{text_id(number, question, answer)}", question, split=split, story=story, fault="no_passage"
            )


def _paragraphs(text: str) -> Iterator[str]:
    """Yields the paragraphs of a section: some have one a line, in others lines end at a margin, sentence or not."""
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    margin = max(map(len, lines), default=0)
    is_wrapped = margin <= _MARGIN and 3 * sum(not _ENDED.search(line) for line in lines[:-1]) >= len(lines) - 1
    paragraph: list[str] = []
    for line in lines:
        goes_on = paragraph and (
            line[0].islower()
            or (is_wrapped and (not _ENDED.search(paragraph[-1]) or len(paragraph[-1]) >= 0.8 * margin))
        )
        if paragraph and not goes_on:
            yield " ".join(paragraph)
            paragraph = []
        paragraph.append(line)
    if paragraph:
        yield " ".join(paragraph)
