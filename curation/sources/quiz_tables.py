"""Small tables in words: what a pupil would read out. In: title and table of a TabMWP problem; out: sentences."""

import re

_STEM, _LEAF = "Stem", "Leaf"


def table_in_words(title: str, table: str, header: list[str]) -> str:
    """Returns a table, whose rows are lines and whose cells are parted by |, as one or more sentences.

    `header` names the columns; upstream calls them "Column 1" and so on where the table has no header of its own.
    """
    rows = [[cell.strip() for cell in line.split("|")] for line in table.split("\n") if line.strip()]
    rows = [row for row in rows if any(row)]
    if not rows:
        return ""
    has_header = bool(header) and not header[0].startswith("Column 1")
    if not has_header and _looks_like_header(rows[0], title):
        has_header = True
    names = rows.pop(0) if has_header else []
    if names[:2] == [_STEM, _LEAF]:
        return _stem_and_leaf(title, rows)
    if all(len(row) == 2 for row in rows):
        return _pairs(title, names, rows)
    return _grid(title, names, rows)


def _looks_like_header(row: list[str], title: str) -> bool:
    """Is the first row of a table without stated columns the names of its columns, as years or decades are?"""
    is_plan = "schedule" in title.lower()
    return len(row) > 2 and not is_plan and (not row[0] or not any("$" in cell for cell in row[1:]))


def _stem_and_leaf(title: str, rows: list[list[str]]) -> str:
    numbers = [f"{row[0]}{leaf.strip()}" for row in rows for leaf in row[-1].split(",") if leaf.strip()]
    shown = f"{title}: " if title else "The numbers are "
    return f"{shown}{', '.join(number.lstrip('0') or '0' for number in numbers)}."


def _pairs(title: str, names: list[str], rows: list[list[str]]) -> str:
    if names and max(map(len, names)) == 1:
        return " ".join(f"When {names[0]} is {a}, {names[1]} is {b}." for a, b in rows)
    about = title or (f"{names[1]} by {_low(names[0])}" if names else "")
    listed = _and([f"{_unknown(b)} for {a}" for a, b in rows])
    if not about:
        return f"The list says {listed}."
    return f"{_end(about)} The table says {listed}."


def _grid(title: str, names: list[str], rows: list[list[str]]) -> str:
    sentences = [_end(title)] if title else []
    for row in rows:
        if names:
            cells = [f"{_low(name)} {_unknown(cell)}" for name, cell in zip(names[1:], row[1:], strict=False) if cell]
            first = f"{names[0]} {row[0]}" if row[0] and names[0] and row[0][0] in "$0123456789" else row[0]
        else:
            cells, first = row[1:], row[0]
        first = first[:1].upper() + first[1:]
        sentences.append(f"{first}: {_and(cells)}." if cells else _end(first))
    return " ".join(sentence.replace("..", ".") for sentence in sentences)


def _and(parts: list[str]) -> str:
    return f"{', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else "".join(parts)


def _unknown(cell: str) -> str:
    return "an unknown number" if cell in ("?", "") else cell


_PROPER = re.compile(r"\w+day|January|February|March|April|May|June|July|August|September|October|November|December")


def _low(name: str) -> str:
    """Returns a column's name in the middle of a sentence: small, where only its first letter is a capital."""
    is_plain = name[:1].isupper() and name[1:] == name[1:].lower() and not _PROPER.fullmatch(name)
    return name.lower() if is_plain else name


def _end(text: str) -> str:
    return text if text[-1:] in ".!?" else f"{text}."
