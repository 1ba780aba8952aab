"""The text of untrusted web pages, by trafilatura in a child process that may be killed and loses one page at most.

Cheap limits on bytes, tags, attributes and nesting are looked at first, in this process and in one pass. What passes
goes to the child as UTF-8 and comes back as JSON. The kernel ends a child that uses too much CPU time (never wall time:
the same page must have the same fate on a loaded machine) or memory; its page is tried once more, alone, in a new one.
"""

import contextlib
import os
import re
import resource
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

import orjson

from shared.console import Failure

if TYPE_CHECKING:  # the child needs no settings, and starts in a third of the time without pydantic
    from curation.settings import ExtractionSettings

TRIES = 2
_HEADER = 8  # bytes before each message that say how long it is


@dataclass(frozen=True)
class Extracted:
    """The paragraphs of a page and what it says of itself; or, instead of all that, the reason why there are none."""

    reason: str = ""
    paragraphs: list[str] = field(default_factory=list)
    title: str = ""
    url: str = ""  # canonical
    language: str = ""  # of <html lang>
    licenses: list[str] = field(default_factory=list)  # addresses of licences that the page states for itself


_BYTE_ORDER_MARKS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))
_DECLARED = re.compile(
    rb"<(?:meta|\?xml)[^>]{0,500}?(?:charset|encoding)\s*=\s*[\"']?\s*([\w.:-]{1,40})", re.IGNORECASE
)
# Codecs that Python decodes in one pass; it has others, such as punycode, that are quadratic.
_CODEC = re.compile(
    r"(?:utf-?(?:8|16(?:-?[lb]e)?)|iso-?8859-\d+|windows-\d+|cp-?\d+|koi8-?[ru]|gb2312|gbk|gb18030|big5(?:-hkscs)?"
    r"|shift[-_]?jis|sjis|euc-?(?:jp|kr|tw|cn)|iso-2022-(?:jp|kr)|tis-?620|mac-?roman|hz)",
    re.IGNORECASE,
)


def decode_page(raw: bytes, declared: str = "") -> str:
    """Returns the text of a page; `declared` is the charset of its HTTP header.

    A byte order mark is believed, then the bytes (what is valid UTF-8 is UTF-8, whatever was declared), then the
    header, then the page; what is left is read as Windows-1252, as browsers do.
    """
    for mark, encoding in _BYTE_ORDER_MARKS:
        if raw.startswith(mark):
            return raw[len(mark) :].decode(encoding, "replace")
    stated = _DECLARED.search(raw, 0, 4096)
    names = [
        name for name in (declared, stated[1].decode("ascii", "replace") if stated else "") if _CODEC.fullmatch(name)
    ]
    if not any(name.lower().startswith(("iso-2022", "hz", "utf-16", "utf16")) for name in names[:1]):
        with contextlib.suppress(UnicodeDecodeError):
            return raw.decode("utf-8")
    for name in names:
        if name.lower().replace("-", "") not in ("utf8", "iso88591"):
            with contextlib.suppress(LookupError):
                return raw.decode(name, "replace")
    return raw.decode("cp1252", "replace")


_TAG = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9]*)((?:[^<>\"']|\"[^\"]*\"|'[^']*')*+)")
_QUOTED = re.compile(r"\"[^\"]*\"|'[^']*'")
# Elements without an end tag, and those whose end tag HTML lets one leave out (HTML standard, 13.1.2.4).
_NEVER_NESTED = frozenset(
    """
    area base br col embed hr img input link meta param source track wbr p li td th tr dt dd option thead tbody tfoot
    """.split()  # noqa: SIM905
)
_SHORT_TAG = 200  # characters, which hold fewer attributes than any limit


def why_too_large(html: str, limits: "ExtractionSettings") -> str:
    """Returns the reason why a page is not worth a parser's time, or ''; in one pass, whatever the page holds."""
    if html.count("<") > limits.max_tags:
        return "too_many_tags"
    depth = 0
    for tag in _TAG.finditer(html):
        closing, name, rest = tag.groups()
        if len(rest) > _SHORT_TAG and len(_QUOTED.sub("", rest).split()) > limits.max_attributes:
            return "too_many_attributes"
        if closing:
            depth = max(0, depth - 1) if name.lower() not in _NEVER_NESTED else depth
        elif name.lower() not in _NEVER_NESTED and not rest.endswith("/"):
            depth += 1
            if depth > limits.max_depth:
                return "too_deep"
    return ""


class Extractor:
    """One child process that extracts pages, started when the first comes and again when it had to be killed."""

    def __init__(self, limits: "ExtractionSettings") -> None:
        self._limits = limits
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Extractor":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """The child's process id, while there is a child."""
        return self._child.pid if self._child else None

    def extract(self, html: str, url: str = "") -> Extracted:
        """Returns what is in a page. Raises Failure where no child can be started.

        Reasons: the limits' own (why_too_large), too_slow, out_of_memory, extractor_killed, extraction_failed, no_text.
        """
        if reason := why_too_large(html, self._limits):
            return Extracted(reason)
        page = orjson.dumps({"url": url}) + b"\n" + html.encode("utf-8", "replace")
        for _ in range(TRIES):
            if (answer := self._ask(page)) is not None and answer.get("reason") != "out_of_memory":
                return Extracted(**answer)
            reason = self._why_dead(answer)
        return Extracted(reason)

    def close(self) -> None:
        """Ends the child, if there is one."""
        if self._child is not None:
            self._child.kill()
            with self._child:  # closes its pipes and waits
                self._child = None

    def _ask(self, page: bytes) -> dict[str, Any] | None:
        """Returns the child's answer, or None where it died of the page."""
        child = self._child or self._start()
        assert child.stdin is not None and child.stdout is not None
        try:
            _send(child.stdin, page)
            answer = _receive(child.stdout)
        except BrokenPipeError:
            return None
        return None if answer is None else orjson.loads(answer)

    def _why_dead(self, answer: dict[str, Any] | None) -> str:
        """Ends a child that failed. Returns the reason."""
        assert self._child is not None
        child, self._child = self._child, None
        if answer is not None:
            child.kill()
        with child:
            with contextlib.suppress(BrokenPipeError):
                child.stdin and child.stdin.close()
            status = child.wait()
        if answer is not None:
            return "out_of_memory"
        return "too_slow" if status == -signal.SIGXCPU else "extractor_killed"

    def _start(self) -> subprocess.Popen[bytes]:
        root = str(Path(__file__).resolve().parent.parent)
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        child = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "curation.extraction",
                str(self._limits.cpu_seconds),
                str(self._limits.memory_bytes),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "0"},
        )
        assert child.stdout is not None
        greeting = _receive(child.stdout)
        if greeting != b"ready":
            child.kill()
            with child:
                why = greeting.decode() if greeting else "it died at once"
            raise Failure(f"the process that extracts web pages did not start: {why}", "install the project again")
        self._child = child
        return child


def shared_extractor(limits: "ExtractionSettings") -> Extractor:
    """Returns the one extractor of this process with these limits: a child takes a second to start."""
    return _extractor_of_process(limits, os.getpid())


@cache
def _extractor_of_process(limits: "ExtractionSettings", _pid: int) -> Extractor:
    # A forked process gets its own. No child outlives its parent: it reads the end of its input.
    return Extractor(limits)


def _send(pipe: IO[bytes], message: bytes) -> None:
    pipe.write(len(message).to_bytes(_HEADER, "big"))
    pipe.write(message)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> bytes | None:
    """Returns the next message, or None at the end of the pipe."""
    length = int.from_bytes(pipe.read(_HEADER), "big")
    message = pipe.read(length)
    return message if length and len(message) == length else None


# ---- the child ----


def _serve(cpu_seconds: int, memory_bytes: int) -> None:
    """Extracts the pages of stdin, one after the other, until it ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints is no answer
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's matter
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_AS, memory_bytes)
    try:
        import logging

        import trafilatura  # noqa: F401
    except ImportError as error:
        _send(answers, str(error).encode())
        return
    logging.disable(logging.CRITICAL)
    _send(answers, b"ready")
    while (page := _receive(sys.stdin.buffer)) is not None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        _limit(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + 1 + cpu_seconds)
        facts, _, html = page.partition(b"\n")
        try:
            answer = _extract(html.decode(), orjson.loads(facts)["url"])
        except MemoryError:
            answer = {"reason": "out_of_memory"}
        except Exception:  # parsers fail on hostile pages in ways of their own, and this is the one page's loss
            answer = {"reason": "extraction_failed"}
        if _peak_bytes() > memory_bytes // 2:  # trafilatura goes on without what there was no memory for
            answer = {"reason": "out_of_memory"}
        _send(answers, orjson.dumps(answer))


def _peak_bytes() -> int:
    """Returns the most memory this process ever had; getrusage would count what its parent had when it forked."""
    with contextlib.suppress(FileNotFoundError), open("/proc/self/status", "rb") as status:
        return int(status.read().partition(b"VmHWM:")[2].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS counts bytes


def _limit(what: int, amount: int) -> None:
    """Sets a soft limit, as far as the hard one allows."""
    _, hard = resource.getrlimit(what)
    if hard != resource.RLIM_INFINITY:
        amount = min(amount, hard)
    with contextlib.suppress(ValueError, OSError):  # macOS has no limit on address space
        resource.setrlimit(what, (amount, hard))


def _extract(html: str, url: str) -> dict[str, Any]:
    """Returns the fields of Extracted. Readers' comments are left out; the date, which asks the clock, is not read."""
    from trafilatura import bare_extraction
    from trafilatura.utils import load_html

    tree = load_html(html.replace("\0", ""))
    if tree is None:
        return {"reason": "no_text"}
    facts = _facts(tree)
    for element in tree.iter():
        if element.tag not in ("pre", "textarea"):  # elsewhere a line break is a space
            element.text = element.text and element.text.replace("\n", " ").replace("\r", " ")
        element.tail = element.tail and element.tail.replace("\n", " ").replace("\r", " ")
    found: Any = bare_extraction(tree, url=url or None, include_comments=False)
    paragraphs = list(_paragraphs(found.body)) if found is not None else []
    return {**facts, "paragraphs": paragraphs, "reason": "" if paragraphs else "no_text"}


_STATES_A_LICENSE = re.compile(r"licen[sc]ed under|available under|licen[sc]e:|public domain", re.IGNORECASE)


def _facts(tree: Any) -> dict[str, Any]:
    """Returns what a page says of itself in its head and in its licence links."""
    licenses = {
        str(link.get("href")) for link in tree.xpath("//a[@href and @rel='license']|//link[@href and @rel='license']")
    }
    if not licenses:
        for link in tree.xpath("//a[contains(@href, 'creativecommons.org/')]"):
            around = link.getparent()
            if around is not None and _STATES_A_LICENSE.search(str(around.text_content())[:1000]):
                licenses.add(str(link.get("href")))
    titles = tree.xpath("//meta[@property='og:title']/@content") + tree.xpath("//head//title/text()")
    canonical = tree.xpath("//link[@rel='canonical']/@href") + tree.xpath("//meta[@property='og:url']/@content")
    return {
        "title": " ".join(str(titles[0]).split())[:200] if titles else "",
        "url": str(canonical[0]).strip()[:2000] if canonical else "",
        "language": str(tree.get("lang") or tree.get("{http://www.w3.org/XML/1998/namespace}lang") or "")[:20],
        "licenses": sorted(licenses)[:10],
    }


_BLOCKS = frozenset(("p", "head", "item", "quote", "row", "list", "table", "div", "body"))  # code stands in lines, too


def _paragraphs(body: Any) -> list[str]:
    """Returns the blocks of an extracted body as text, a line break where the page has one."""
    blocks: list[list[str]] = [[]]

    def walk(element: Any) -> None:
        is_block = element.tag in _BLOCKS
        if is_block:
            blocks.append([])
        blocks[-1].append("\n" if element.tag == "lb" else element.text or "")
        for child in element:
            walk(child)
            if child.tag in _BLOCKS:
                blocks.append([])
            blocks[-1].append(" " if child.tag == "cell" else "")
            blocks[-1].append(child.tail or "")

    walk(body)
    lines = ("\n".join(filter(None, (" ".join(line.split()) for line in "".join(b).split("\n")))) for b in blocks)
    return [block for block in lines if block]


if __name__ == "__main__":
    _serve(*map(int, sys.argv[1:3]))
