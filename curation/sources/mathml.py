"""Formulas in a line: presentation MathML as people type it, such as v = (x_2 - x_1)/t or sqrt(2gh).

Pure functions of an element; the neighbour is cnxml.py, whose modules hold the formulas.
"""

import re
from collections.abc import Callable

from lxml import etree

_SIMPLE = re.compile(  # needs no brackets to be raised or divided: a number, a name, what has some already
    r"|-?(?:[\d.,]+[%\u00b0]?|[^\W\d_]+)'*(?:[_^](?:-?\w+|\([^()]*\)))*|\([^()]*\)"
)
_LETTER = re.compile(r"[^\W\d_](?:\^[\w-]+)?")
_RELATIONS = frozenset(
    "=+-<>~\u00d7\u00b7\u00f7\u00b1\u2213\u2264\u2265\u2248\u2245\u2261\u2260\u223c\u221d\u2192\u27f6\u2190\u21d2\u2194"
)
_SIGNS = frozenset("+-\u00b1\u2213")
_OPENING = frozenset(["", "(", "[", "{", "/", "^", ","])  # before which a sign is no relation
_PLAIN = str.maketrans(
    {"\u2212": "-", "\u2013": "-", "\u22c5": "\u00b7", "\u2219": "\u00b7", "\u2218": "\u00b0"}
    | {"\u2032": "'", "\u2033": "''", "\u22ef": "\u2026", "\u2061": "", "\u2062": ""}
)
_MARKS = frozenset("\u00b0%'")
_ENDINGS = ("th", "st", "nd", "rd")  # 18^th is 18th


def formula(math: etree._Element) -> str:
    """Returns a formula as one line of text; '' for an empty one."""
    return " ".join(_render(math).split()).replace("( ", "(").replace(" )", ")").replace(" ,", ",")


def power(base: str, exponent: str) -> str:
    """Returns a base with what stands raised behind it: x^2, 10^-6, 90\u00b0, 18th."""
    exponent = exponent.strip()
    if not exponent or set(exponent) <= set("\u00b0'*+") or exponent in _ENDINGS:
        return base + exponent
    return f"{base}^{_bracketed(exponent)}"


def _bracketed(text: str) -> str:
    return text if _SIMPLE.fullmatch(text) else f"({text})"


def _render(element: etree._Element) -> str:
    name = etree.QName(element).localname
    if name in ("mi", "mn", "mtext", "ms", "ci", "cn", "mo"):
        text = "".join(element.itertext()).translate(_PLAIN)
        return text.replace("\n", " ") if name == "mtext" else "".join(text.split())
    parts = [child for child in element if isinstance(child.tag, str)]
    n_needed, render = _LAYOUTS.get(name, (0, None))
    return render(element, parts) if render and len(parts) >= n_needed else _row(parts)


def _row(parts: list[etree._Element]) -> str:
    """Returns parts side by side: relations with spaces around them, signs without, units apart from numbers."""
    line = last = ""
    for part in parts:
        text = _render(part)
        if not text:
            continue
        if text in _RELATIONS:
            before = line.rstrip()
            is_sign = text in _SIGNS and (before[-1:] in _OPENING or before[-1] in _RELATIONS)
            line = line + text if is_sign else f"{before} {text} "
        elif text in (",", ";"):
            line = f"{line.rstrip()}{text} "
        else:
            is_unit = etree.QName(part).localname == "mtext"
            line += f" {text}" if _are_apart(last, text, is_unit) else text
        last = text
    return line


def _are_apart(last: str, text: str, is_unit: bool) -> bool:
    """Do words or numbers meet that are not a product, as in ma or 2x?"""
    if last[-1:] in _RELATIONS and last[-1:] not in _SIGNS:
        return len(last) > 1  # a relation that stands in a text
    if not (last[-1:].isalnum() or last[-1:] in _MARKS) or not text[0].isalnum():
        return False
    is_factor = len(last) == 1 or last.replace(".", "").replace(",", "").isdigit()
    return is_unit or not (is_factor and _LETTER.fullmatch(text))


def _fraction(element: etree._Element, parts: list[etree._Element]) -> str:
    above, below = (_render(part).strip() for part in parts[:2])
    return f"{_bracketed(above)}/{_bracketed(below)}"


def _sub(element: etree._Element, parts: list[etree._Element]) -> str:
    base, below = (_render(part).strip() for part in parts[:2])
    return f"{base}_{_bracketed(below)}" if below else base


def _sup(element: etree._Element, parts: list[etree._Element]) -> str:
    base, above = (_render(part).strip() for part in parts[:2])
    is_composed = next(parts[0].iter("{*}mo", "{*}mfrac"), None) is not None
    return power(_bracketed(base) if is_composed else base, above)


def _sub_and_sup(element: etree._Element, parts: list[etree._Element]) -> str:
    base, below, above = (_render(part).strip() for part in parts[:3])
    return power(f"{base}_{_bracketed(below)}" if below else base, above)


def _isotope(element: etree._Element, parts: list[etree._Element]) -> str:
    """Returns U-235 for a letter with numbers before it; the number below it is the element's and goes."""
    names = [etree.QName(part).localname for part in parts]
    base = _render(parts[0]).strip() if parts else ""
    if "mprescripts" not in names:
        return _sub_and_sup(element, parts) if len(parts) == 3 else base
    mass = _render(parts[-1]).strip() if names[-1] not in ("none", "mprescripts") else ""
    return f"{base}-{mass}" if mass else base


def _over(element: etree._Element, parts: list[etree._Element]) -> str:
    base, mark = (_render(part).strip() for part in parts[:2])
    if mark in ("\u00af", "\u203e", "_"):
        return f"{base}-bar"
    return base if mark in ("\u2192", "^", "~", ".", "\u02d9", "\u23de", "\u23df") else f"{base} ({mark})"


def _root(element: etree._Element, parts: list[etree._Element]) -> str:
    inside, degree = (_render(part).strip() for part in parts[:2])
    return f"{_bracketed(inside)}^(1/{degree})"


def _square_root(element: etree._Element, parts: list[etree._Element]) -> str:
    inside = _row(parts).strip()
    return f"\u221a{inside}" if inside.isdigit() or len(inside) == 1 else f"\u221a({inside})"


def _fenced(element: etree._Element, parts: list[etree._Element]) -> str:
    inside = ", ".join(_render(part).strip() for part in parts)
    return f"{element.get('open', '(')}{inside}{element.get('close', ')')}"


def _table(element: etree._Element, parts: list[etree._Element]) -> str:
    """Returns the rows behind each other; one that begins with a relation goes on with the row before."""
    text = ""
    for part in parts:
        cells = [_render(cell).strip() for cell in part if isinstance(cell.tag, str)]
        row = " ".join(cell for cell in cells if cell)
        goes_on = row[:1] in _RELATIONS or not text
        text += (" " if goes_on else "; ") + row if row else ""
    return text.strip()


_Layout = Callable[[etree._Element, list[etree._Element]], str]
_LAYOUTS: dict[str, tuple[int, _Layout]] = {  # with the parts they need; a broken one is read as a row
    "mfrac": (2, _fraction),
    "msub": (2, _sub),
    "munder": (2, _sub),
    "msup": (2, _sup),
    "msubsup": (3, _sub_and_sup),
    "munderover": (3, _sub_and_sup),
    "mover": (2, _over),
    "mmultiscripts": (1, _isotope),
    "msqrt": (1, _square_root),
    "mroot": (2, _root),
    "mfenced": (0, _fenced),
    "mtable": (0, _table),
    "mspace": (0, lambda element, parts: " "),
    "mphantom": (0, lambda element, parts: ""),
    "annotation": (0, lambda element, parts: ""),
    "annotation-xml": (0, lambda element, parts: ""),
}
