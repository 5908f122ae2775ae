"""The documents as tests read them: links, headings, what stands in backticks, command lines."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PAGES = (README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^(#+) (.+)$", re.MULTILINE)
_LINK = re.compile(r"\]\(([^)\s]+)\)|(?:src|srcset|href)=\"([^\"]+)\"")
_BACKTICKED = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


@dataclass(frozen=True)
class Fence:
    """A fenced block."""

    language: str
    """Empty where the fence names none: then it is for a shell, or to be looked at."""
    text: str


def fences(page: Path) -> list[Fence]:
    """Return the fenced blocks of a page in order."""
    return [Fence(*match.groups()) for match in _FENCE.finditer(page.read_text())]


def prose(page: Path) -> str:
    """Return a page without its fenced blocks."""
    return _FENCE.sub("", page.read_text())


def section(page: Path, title: str) -> str:
    """Return what stands under a heading, up to the next one of its level or a higher one."""
    text = page.read_text()
    headings = [(match, len(match[1])) for match in _HEADING.finditer(_FENCE.sub(_blank, text))]
    for number, (match, level) in enumerate(headings):
        if match[2] == title:
            later = (other.start() for other, depth in headings[number + 1 :] if depth <= level)
            return text[match.end() : next(later, len(text))]
    raise LookupError(f"{page.name} has no heading {title!r}")


def links(page: Path) -> list[str]:
    """Return the targets of all links and images of a page."""
    return [either or other for either, other in _LINK.findall(prose(page))]


def anchors(page: Path) -> set[str]:
    """Return the names under which GitHub and the site know the headings of a page."""
    titles = [title for _, title in _HEADING.findall(prose(page))]
    plain = [re.sub(r"[^\w\s-]", "", title.replace("`", "")).strip().lower() for title in titles]
    return {re.sub(r"\s+", "-", title) for title in plain}


def backticked(page: Path) -> list[str]:
    """Return the words in backticks of a page; a command gives each of its words."""
    return [word for text in _BACKTICKED.findall(prose(page)) for word in text.split()]


def command_lines(text: str) -> Iterator[list[str]]:
    """Yield each line of a shell block as its words, without comments; continued lines are one."""
    for line in text.replace("\\\n", " ").splitlines():
        try:
            words = shlex.split(line, comments=True)
        except ValueError:
            continue
        if words:
            yield words


def semvlp_arguments(words: list[str]) -> list[str] | None:
    """Return what a command line gives to this program; None where it starts another."""
    if words[0] == "semvlp":
        rest = words[1:]
    elif "semvlp.cli" in words:
        rest = words[words.index("semvlp.cli") + 1 :]
    else:
        return None
    return [word for word in rest if word not in ("...", "&")]


def _blank(match: re.Match[str]) -> str:
    """Return as much room as a fenced block takes, without its text."""
    return re.sub(r"[^\n]", " ", match[0])
