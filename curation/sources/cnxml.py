"""A module of CNXML, the format of OpenStax books, as paragraphs of plain text; formulas by mathml.py.

In: the module's bytes, which nobody has checked. Out: its title, its paragraphs, and what was left out, by reason.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from lxml import etree

from curation.sources.mathml import formula, power

MAX_MODULE_BYTES = 8_000_000  # the largest module of seven books has 0.15 MB
MAX_DEPTH = 100  # elements within each other; modules have up to 25
_LONG_LIST = 250  # words, from which the items of a list are paragraphs of their own, so that they can be cut

# What is no text for readers, by class or title of a section or note.
_LEFT_OUT_CLASSES = {
    "os-teacher": "teacher_matter",
    "teacher-demonstration": "teacher_matter",
    "learning-objectives": "objectives",
    "section-key-terms": "word_list",
    "references": "references",
    "suggested-reading": "references",
    "further-reading": "references",
    "further-exploration": "references",
    "sr-contrib-auth": "front_matter",
    "contrib-auth": "front_matter",
    "preface": "front_matter",
    # notes that send the reader to a film, a simulation or a page of the web
    "link-to-learning": "links",
    "click-and-explore": "links",
    "media-video": "links",
    "media-podcast": "links",
    "watch-physics": "links",
    "virtual-physics": "links",
}
_LEFT_OUT_TITLES = re.compile(
    r"(?:(?P<references>references|bibliography|(?:suggested|further|additional) (?:readings?|resources)"
    r"|for further exploration|websites|videos|articles|index)"
    r"|(?P<answers>answer key|answers to .*)"
    r"|(?P<front_matter>preface|(?:senior )?contributing authors|reviewers|about (?:openstax|the authors))"
    r"|(?P<objectives>(?:section )?learning objectives))\W*",
    re.IGNORECASE,
)
_BLOCKS = frozenset(
    ("para", "list", "figure", "table", "note", "exercise", "example", "section", "equation", "quote", "media")
)
_NAMES_OF_TARGETS = {"figure": "figure", "table": "table", "exercise": "exercise", "example": "example"} | {
    "equation": "equation", "note": "box", "section": "section", "subfigure": "figure", "media": "figure",
}  # fmt: skip
_BREAK, _REFERENCE = "\x00", "\x01"  # cannot stand in XML


class BadModule(ValueError):
    """A module that cannot be read; the message is the reason: bad_xml, too_big or too_deep."""


@dataclass
class ModuleText:
    """What a module says."""

    title: str
    paragraphs: list[str] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)  # reason -> texts


def parse_xml(content: bytes) -> etree._Element:
    """Returns the root of a document of which nothing outside is read and no entity expanded. Raises BadModule."""
    if len(content) > MAX_MODULE_BYTES:
        raise BadModule("too_big")
    parser = etree.XMLParser(
        resolve_entities=False, load_dtd=False, no_network=True, huge_tree=False, remove_comments=True, remove_pis=True
    )
    try:
        root = etree.fromstring(content, parser)
    except etree.XMLSyntaxError as error:
        raise BadModule("bad_xml") from error
    if root.find("/".join("*" * MAX_DEPTH)) is not None:
        raise BadModule("too_deep")
    return root


def read_module(content: bytes) -> ModuleText:
    """Returns the text of a module. Raises BadModule."""
    root = parse_xml(content)
    title = root.find("{*}title")
    reader = _ModuleReader(root)
    reader.text.title = reader.inline(title) if title is not None else ""
    reader.read(root)
    return reader.text


def _name(element: etree._Element) -> str:
    return etree.QName(element).localname if isinstance(element.tag, str) else ""


def _children(element: etree._Element) -> Iterator[tuple[str, etree._Element]]:
    """Yields the children with their names; an entity, which is never expanded, has none."""
    for child in element:
        yield _name(child), child


class _ModuleReader:
    """Walks a module once. Headings wait for the first text under them, so that none stands alone."""

    def __init__(self, root: etree._Element) -> None:
        self.text = ModuleText("")
        self._headings: list[str] = []
        self._footnotes: list[str] = []
        self._targets = {i: _name(e) for e in root.iter(etree.Element) if (i := e.get("id"))}

    def read(self, root: etree._Element) -> None:
        self._headings = [self.text.title] if self.text.title else []
        reason = _why_left_out(root, self.text.title)
        for name, part in _children(root):
            if name not in ("content", "glossary"):
                continue
            if reason := reason or _why_left_out(part, ""):
                self._leave_out(reason, part)
            elif name == "content":
                self._blocks(part)
            else:
                self._glossary(part)

    def _emit(self, text: str) -> None:
        if text:
            self.text.paragraphs.append("\n\n".join([*self._headings, text]))
            self._headings = []
        if self._footnotes:
            notes, self._footnotes = self._footnotes, []
            for note in notes:
                self._emit(f"Note: {note}")

    def _leave_out(self, reason: str, element: etree._Element) -> None:
        text = " ".join("".join(element.itertext()).split())
        links = " ".join(url for link in element.iter("{*}link") if (url := link.get("url")))
        if text or links:
            self.text.left_out.setdefault(reason, []).append(text or links)

    def _blocks(self, parent: etree._Element) -> None:
        """Emits what stands in an element: its blocks, and the text between them as paragraphs."""
        run = [parent.text or ""]
        for name, child in _children(parent):
            if name in _BLOCKS or name == "title":
                self._emit(_tidy("".join(run)))
                run = []
                if name == "title":
                    self._heading(child)
                else:
                    self._block(name, child)
            else:
                run.append(self._inline_child(name, child))
            run.append(child.tail or "")
        self._emit(_tidy("".join(run)))

    def _heading(self, title: etree._Element) -> None:
        if text := self.inline(title).replace("\n", " "):
            self._headings.append(text)

    def _block(self, name: str, element: etree._Element) -> None:
        title = element.find("{*}title")
        if reason := _why_left_out(element, self.inline(title) if title is not None else ""):
            self._leave_out(reason, element)
        elif name == "list":
            self._list(element)
        elif name == "table":
            self._table(element)
        elif name == "exercise":
            self._exercise(element)
        elif name == "figure":
            self._figure(element)
        elif name == "equation":
            self._emit(self.inline(element))
        elif name != "media":  # pictures and films
            n_headings = len(self._headings)
            self._blocks(element)
            del self._headings[n_headings:]  # of a section without text

    def _figure(self, figure: etree._Element) -> None:
        """Emits the captions of a figure, without those who are thanked for the picture."""
        for caption in figure.iter("{*}caption"):
            self._emit(_CREDIT.sub("", self.inline(caption)).strip())
        for table in figure.iter("{*}table"):
            self._table(table)

    def _list(self, element: etree._Element) -> None:
        title = element.find("{*}title")
        if title is not None:
            self._heading(title)
        lines = self._lines(element)
        is_long = sum(len(line.split()) for line in lines) > _LONG_LIST
        for text in lines if is_long else ["\n".join(lines)]:
            self._emit(text)
        for name, part in _children(element):
            if name == "item":
                for figure in part.iter("{*}figure", "{*}table"):
                    self._block(_name(figure), figure)

    def _lines(self, element: etree._Element) -> list[str]:
        """Returns the items of a list, a line each, with their numbers or dashes; lists within it follow their item."""
        lines = []
        labels = _labels(element)
        for name, item in _children(element):
            if name != "item":
                continue
            label = next(labels)
            if text := self._without_lists(item).replace("\n", " "):
                lines.append(f"{label}{text}")
            for inner in item.iter("{*}list"):
                if next(inner.iterancestors("{*}item")) is item:
                    lines += self._lines(inner)
        return lines

    def _without_lists(self, item: etree._Element) -> str:
        parts = [item.text or ""]
        for name, child in _children(item):
            if name == "para":
                parts.append(f" {self._without_lists(child)} ")
            elif name not in ("list", "figure", "table"):
                parts.append(self._inline_child(name, child))
            parts.append(child.tail or "")
        return _tidy("".join(parts))

    def _exercise(self, exercise: etree._Element) -> None:
        """Emits a problem with what there is to choose from, and its solution."""
        choices: list[str] = []
        n_before = len(self.text.paragraphs)
        for name, part in _children(exercise):
            if name == "problem":
                lists = part.findall("{*}list")
                choices = self._lines(lists[-1]) if lists else []
                self._problem(part)
            elif name == "solution":
                self._solution(part, choices)
            elif name == "commentary":
                self._block(name, part)
        if len(self.text.paragraphs) == n_before:
            self._leave_out("exercise_elsewhere", exercise)

    def _problem(self, problem: etree._Element) -> None:
        """Emits a question; one paragraph with its choices, so that no cut parts them."""
        start = len(self.text.paragraphs)
        self._blocks(problem)
        paragraphs = self.text.paragraphs
        if len(paragraphs) > start + 1 and _name(problem[-1]) == "list":
            choices = paragraphs.pop()
            paragraphs[-1] += f"\n{choices}"

    def _solution(self, solution: etree._Element, choices: list[str]) -> None:
        said = " ".join("".join(solution.itertext()).split())
        if re.fullmatch(r"\(?[A-Za-z][.)]?", said):
            letter = said.strip("().").lower()
            chosen = [line for line in choices if re.match(rf"{letter}[.)] ", line.lower())]
            if chosen:
                self._emit(f"Answer: {chosen[0]}")
            else:
                self._leave_out("answers", solution)  # a letter without the choices
            return
        start = len(self.text.paragraphs)
        self._blocks(solution)
        if len(self.text.paragraphs) > start and solution.find("{*}title") is None:
            self.text.paragraphs[start] = f"Answer: {self.text.paragraphs[start]}"

    def _glossary(self, glossary: etree._Element) -> None:
        self._headings.append("Key Terms")
        for definition in glossary.iter("{*}definition"):
            term, meaning = definition.find("{*}term"), definition.find("{*}meaning")
            if term is not None and meaning is not None and (text := self.inline(meaning)):
                self._emit(f"{self.inline(term)}: {text}")
        self._headings.clear()

    def _table(self, table: etree._Element) -> None:
        """Emits a small table of words row by row; any other is left out."""
        n_footnotes = len(self._footnotes)
        head = [self._cells(row) for row in table.iterfind(".//{*}thead/{*}row")]
        body = [self._cells(row) for row in table.iterfind(".//{*}tbody/{*}row")]
        width = max(map(len, body), default=0)
        spans = any(e.get("morerows") or e.get("namest") for e in table.iterfind(".//{*}tbody/{*}row/{*}entry"))
        words = [word for row in body for cell in row for word in cell.split()]
        n_letters = sum(word.strip("()[].,;:'\"").isalpha() for word in words)
        if spans or not 2 <= width <= 5 or len(body) < 2 or n_letters < 0.6 * len(words):
            del self._footnotes[n_footnotes:]
            self._leave_out("table", table)
            return
        title = table.find("{*}title")
        for name in (title, table.find("{*}caption")):
            if name is not None:
                self._heading(name)
        names = head[-1] if head and len(head[-1]) == width else [""] * width
        lines = [_row_text(names, row) for row in body]
        is_long = sum(len(line.split()) for line in lines) > _LONG_LIST
        for text in lines if is_long else ["\n".join(lines)]:
            self._emit(text)

    def _cells(self, row: etree._Element) -> list[str]:
        return [self.inline(entry).replace("\n", "; ") for entry in row.iterfind("{*}entry")]

    def inline(self, element: etree._Element) -> str:
        """Returns the text of an element on one line, but for the line breaks it asks for."""
        return _tidy(self._raw(element))

    def _raw(self, element: etree._Element) -> str:
        parts = [element.text or ""]
        for name, child in _children(element):
            parts += (self._inline_child(name, child), child.tail or "")
        return "".join(parts)

    def _inline_child(self, name: str, child: etree._Element) -> str:
        if name == "math":
            return f" {formula(child)} " if len(child) else ""
        if name == "link":
            text = self._raw(child)
            return text if text.strip() else self._reference(child)
        if name == "newline":
            return _BREAK
        if name == "sup":
            return self._raised(child)
        if name == "footnote":
            self._footnotes.append(self.inline(child))
            return ""
        if name == "note" and "reference" in (child.get("class") or ""):
            self._leave_out("references", child)
            return ""
        if name in ("", "label", "media", "figure", "table", "iframe"):
            return ""
        if name in ("para", "item", "equation"):
            return f" {self._raw(child)}{';' if name == 'item' and child.getnext() is not None else ''} "
        return self._raw(child)

    def _raised(self, sup: etree._Element) -> str:
        """Returns m/s^2 for a raised 2 behind a letter or number; footnote marks and raised words stay as they are."""
        text = self._raw(sup).strip().translate(_MINUS)
        last = sup.getprevious()
        before = sup.getparent().text if last is None else last.tail or "".join(last.itertext())
        if re.fullmatch(r"\[\d+\]", text):
            return ""
        is_power = re.fullmatch(r"-?[\d.,/]+|n|-?x", text) and (before or "")[-1:].isalnum()
        return power("", text) if is_power else text

    def _reference(self, link: etree._Element) -> str:
        """Returns "the figure" for a link without text, which the books number when they are printed."""
        target = link.get("target-id") or ""
        if link.get("url") or not (target or link.get("document")):
            return ""
        name = _NAMES_OF_TARGETS.get(self._targets.get(target, ""))
        if name is None:  # in another module: most often a figure
            name = ("table" if "tab" in target.lower() else "figure") if target else "section"
        return f"{_REFERENCE}the {name}{_REFERENCE}"


def _why_left_out(element: etree._Element, title: str) -> str:
    """Returns the reason why what has this class and title is not for readers, or ''."""
    for word in (element.get("class") or "").split():
        if word in _LEFT_OUT_CLASSES:
            return _LEFT_OUT_CLASSES[word]
    match = _LEFT_OUT_TITLES.fullmatch(title.strip())
    return match.lastgroup or "" if match else ""


def _labels(element: etree._Element) -> Iterator[str]:
    """Yields what stands before each item of a list: "1. ", "B. ", "- "; nothing where it has its own labels."""
    kind, style = element.get("list-type"), element.get("number-style") or "arabic"
    number = int(start) if (start := element.get("start-value") or "1").isdigit() else 1
    while True:
        if kind == "enumerated":
            letter = chr(ord("a") + (number - 1) % 26)
            yield {"lower-alpha": f"{letter}. ", "upper-alpha": f"{letter.upper()}. "}.get(style, f"{number}. ")
            number += 1
        else:
            yield "" if kind == "labeled-item" or element.get("bullet-style") == "none" else "- "


def _row_text(names: list[str], row: list[str]) -> str:
    """Returns a row as "Planet: Mars; Moons: 2; Rings: no"; of two columns, or without their names, as "Mars: 2"."""
    if len(row) > 2 and any(names):
        cells = [f"{name}: {cell}" if name else cell for name, cell in zip(names, row, strict=False) if cell]
        return "; ".join(cells)
    first, *others = (cell for cell in row if cell) if any(row) else ("",)
    return f"{first}: {'; '.join(others)}" if others else first


_WINDOWS_SIGNS = {code: bytes([code]).decode("cp1252", "ignore") for code in range(0x80, 0xA0)}  # an em dash as 0x97
_MINUS = str.maketrans(dict.fromkeys("\u2212\u2013", "-"))
_CREDIT = re.compile(r"\s*\((?:credits?|attribution)\b(?:[^()]|\([^()]*\))*\)", re.IGNORECASE)
_SAME_AGAIN = re.compile(r"\x01the (\w+?)s?\x01(?:,? (?:and|or|to|through)|,|;) \x01the \1\x01")
_IN_BRACKETS = re.compile(r"\s*[(\[][^()\[\]]*[)\]]")
_POINTING_WORDS = frozenset(
    "see also refer to the in as shown and or for example from feature box above below left right top bottom".split()  # noqa: SIM905
)
_SENTENCE_START = re.compile(r"(^|[.!?:][\"')\u201d]*\s+)\x01t")


def _tidy(text: str) -> str:
    """Returns text with even spaces, its references as words, and without brackets that hold nothing else."""
    text = " ".join(text.translate(_WINDOWS_SIGNS).split())
    if _REFERENCE in text:
        while (again := _SAME_AGAIN.sub("\x01the \\1s\x01", text)) != text:
            text = again
        text = _IN_BRACKETS.sub(_without_pointers, text)
        text = re.sub(r"\b(?:the|this|that|each) \x01the ", "the \x01", text)
        text = _SENTENCE_START.sub(rf"\1{_REFERENCE}T", text).replace(_REFERENCE, "")
    text = re.sub(rf" *(?:{_BREAK} *)+", "\n", text)
    text = re.sub(r"[(\[]\s*[)\]]", "", text)
    text = re.sub(r"(?<=[(\[]) +| +(?=[,.;:?!)\]](?:\s|$|[,.;:)\]]))", "", text)
    return re.sub(r" {2,}", " ", text).strip()


def _without_pointers(brackets: re.Match[str]) -> str:
    """Returns '' for brackets that only point somewhere: "(see the figure)"."""
    others = re.findall(r"\w{2,}", re.sub(r"\x01[^\x01]*\x01", "", brackets[0]).lower())
    return "" if _REFERENCE in brackets[0] and _POINTING_WORDS.issuperset(others) else brackets[0]
