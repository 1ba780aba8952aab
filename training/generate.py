"""python -m training.generate runs/RUN --prompt "Once upon a time": what a run's newest checkpoint writes.

First the text as it reads; then its tokens over their figures, the least confident fifth of them marked.
"""

import json
import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from shared.console import UserError, run_command, say
from shared.settings import Settings, parse_command

if TYPE_CHECKING:
    from training.sampling import Token

EXAMPLE = 'python -m training.generate runs/mix70-tiny --prompt "Once upon a time"'
MARKED_SHARE = 0.2  # of the tokens
DIM, YELLOW, PLAIN = "\033[2m", "\033[33m", "\033[0m"
CONTROL = re.compile(r"[^\n\t -~\xa0-\U0010ffff]")  # characters that a terminal would obey


class GenerateFlags(Settings):
    """The command line of training.generate."""

    run: Path = Field(description="a folder that training.pretrain made", json_schema_extra={"positional": True})
    prompt: str = Field("", description="how the text begins; left out: as a document does")
    tokens: int = Field(64, ge=1, description="tokens to add, at most")
    temperature: float = Field(0.8, ge=0, description="0 takes the likeliest token every time")
    top_k: int = Field(50, ge=1, description="draw among this many likeliest tokens")
    seed: int = Field(0, ge=0, lt=2**63, description="another seed draws others")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    as_json: bool = Field(False, description="print JSON", json_schema_extra={"flag": "json"})


def main() -> None:
    flags = parse_command(GenerateFlags, "Lets a run's newest checkpoint write on.", EXAMPLE)

    import torch

    from training.distributed import usable_device
    from training.run_folder import open_run
    from training.sampling import continue_tokens, pieces
    from training.tokenizer import encode_document

    if any("\ud800" <= char <= "\udfff" for char in flags.prompt):
        raise UserError("--prompt is not UTF-8 text", "check the encoding of your terminal")
    run = open_run(flags.run, torch.device(usable_device(flags.device)))
    prompt = encode_document(run.tokenizer, flags.prompt)
    if len(prompt) > (context := run.model.settings.sequence_length):
        say(f"note: the prompt has {len(prompt):,} tokens, more than the model's {context:,}: it reads the last ones")
    tokens, ended = continue_tokens(run.model, prompt, flags.tokens, flags.temperature, flags.top_k, flags.seed)
    added = pieces(run.tokenizer, [token.id for token in tokens])
    if flags.as_json:
        answer = {
            "run": run.folder.resolve().name,
            "checkpoint": run.checkpoint.name,
            **flags.model_dump(include={"prompt", "temperature", "top_k", "seed"}),
            "text": flags.prompt + "".join(added),
            "ended": ended,
            "tokens": [{"text": piece, **token._asdict()} for piece, token in zip(added, tokens, strict=True)],
        }
        print(json.dumps(answer, indent=2, ensure_ascii=False))
        return
    has_colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    width = shutil.get_terminal_size().columns
    marked = least_confident(tokens)
    print(running_text(flags.prompt, added, marked, width if sys.stdout.isatty() else None, has_colour))
    if tokens:
        print("\n" + over_figures(flags.prompt, added, tokens, marked, width))
    by = "o_conf" if run.model.settings.use_confidence else "p"
    say(f"p: the model's own probability, at temperature 1 and of all tokens; ^: the lowest fifth by {by}")
    why = "the model began a new document" if ended else "as many as asked for"
    say(f"{run.folder}, step {run.step:,}: {len(tokens)} tokens, {why}")


def least_confident(tokens: Sequence["Token"]) -> set[int]:
    """Returns which tokens to mark: the MARKED_SHARE with the lowest o_conf, or probability where there is none."""
    confidence = [token.probability if token.o_conf is None else token.o_conf for token in tokens]
    return set(sorted(range(len(tokens)), key=confidence.__getitem__)[: int(MARKED_SHARE * len(tokens))])


def running_text(prompt: str, added: Sequence[str], marked: set[int], width: int | None, has_colour: bool) -> str:
    """Returns the text as it reads, lines broken at `width`; in colour, the prompt is dim, what is marked yellow."""
    text = CONTROL.sub("\ufffd", prompt + "".join(added))
    text = wrapped(text, width) if width else text
    if not has_colour:
        return text
    spans, start = [f"{DIM}{text[: len(prompt)]}{PLAIN}"], len(prompt)
    for i, piece in enumerate(added):
        span, start = text[start : start + len(piece)], start + len(piece)
        spans.append(f"{YELLOW}{span}{PLAIN}" if i in marked else span)
    return "".join(spans)


def wrapped(text: str, width: int) -> str:
    """Returns the text with line breaks for spaces where a line would grow longer than `width`; as long as before."""
    chars, line = list(text), 0
    for word in re.finditer(r"\S+", text):
        line = max(line, text.rfind("\n", 0, word.start()) + 1)
        if word.end() - line > width and text[word.start() - 1 : word.start()] == " ":
            chars[word.start() - 1], line = "\n", word.start()
    return "".join(chars)


def over_figures(prompt: str, added: Sequence[str], tokens: Sequence["Token"], marked: set[int], width: int) -> str:
    """Returns lines of tokens, each over its p and o_conf and, if marked, over ^^^. A + goes on within a word."""
    labels = ["", "p", "" if tokens[0].o_conf is None else "o_conf", ""]
    ends = [prompt[-1:], *(piece[-1:] for piece in added)]
    blocks: list[list[str]] = []
    for i, (piece, token) in enumerate(zip(added, tokens, strict=True)):
        word = ("+" if piece[:1].isalnum() and ends[i].isalnum() else "") + _visible(piece)
        cells = [word, *map(_two_digits, (token.probability, token.o_conf)), "^" * len(word) if i in marked else ""]
        column = [cell.ljust(max(map(len, cells))) for cell in cells]
        if not blocks or len(blocks[-1][-1]) + 1 + len(column[-1]) > width:
            blocks.append([label.ljust(7) for label in labels])
        blocks[-1] = [f"{row} {cell}" for row, cell in zip(blocks[-1], column, strict=True)]
    lines = ["\n".join(row.rstrip() for row in block if row.strip()) for block in blocks]
    return "\n\n".join(lines)


def _visible(piece: str) -> str:
    """Returns a token's text without the space before it, and without anything a terminal would obey."""
    if not piece:
        return "..."  # bytes of a character that a later token completes
    text = piece.removeprefix(" ") or "_"
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _two_digits(value: float | None) -> str:
    return "" if value is None else re.sub(r"^(-?)0\.", r"\1.", f"{value:.2f}")


if __name__ == "__main__":
    run_command(main)
