"""HTML to Markdown or text. A page that defeats the converter is stripped of its tags instead. Pure.

Beautiful Soup with the standard library's parser and markdownify do the work; both are linear on ordinary pages, and
on others the worker's time limit ends them. Runs in the fetch worker.
"""

import re
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Final
from urllib.parse import urljoin

from bs4 import BeautifulSoup, Tag
from markdownify import ATX, MarkdownConverter

__all__ = ["Rendered", "html_to_markdown", "html_to_text"]

_DROPPED: Final = ("script", "style", "noscript", "template", "iframe", "object", "svg", "canvas", "head")
_BLOCKS: Final = frozenset(
    {
        "address", "article", "aside", "blockquote", "br", "dd", "div", "dl", "dt", "fieldset", "figcaption", "figure",
        "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "li", "main", "nav", "ol", "option", "p",
        "pre", "section", "table", "tbody", "td", "tfoot", "th", "thead", "title", "tr", "ul",
    }
)  # fmt: skip
_BLANK_LINES: Final = re.compile(r"\n[ \t]*(?:\n[ \t]*)+(?=\n)")
_TRAILING: Final = re.compile(r"[ \t]+(?=\n)")
# markdownify calls itself for each level, three Python frames of the 1,000 there are.
_DEPTH_MAX: Final = 200
# A tag takes about 1.5 kB in Beautiful Soup's tree; the worker's memory is 512 MiB.
_TAGS_MAX: Final = 150_000


@dataclass(frozen=True, slots=True)
class Rendered:
    """A page as text, and what its reader should know."""

    text: str
    notes: tuple[str, ...] = ()


def html_to_markdown(html: str, *, base_url: str) -> Rendered:
    """Return a page as Markdown, its links absolute."""
    if html.count("<") > _TAGS_MAX:
        return Rendered(html_to_text(html).text, ("the page has too many tags for Markdown; they were stripped",))
    soup = BeautifulSoup(html, "html.parser")
    title = soup.title.get_text(" ", strip=True) if soup.title is not None else ""
    for tag in soup.find_all(_DROPPED):
        tag.decompose()
    if _is_deep(soup):
        notes = ("the page is nested too deeply for Markdown; its tags were stripped",)
        return Rendered(html_to_text(html).text, notes)
    for tag in soup.find_all(("a", "img")):
        _make_absolute(tag, base_url)
    text: str = MarkdownConverter(heading_style=ATX, bullets="-").convert_soup(soup)
    if title and not text.lstrip().startswith("# "):
        text = f"# {title}\n\n{text}"
    return Rendered(_tidy(text))


def html_to_text(html: str) -> Rendered:
    """Return a page's text alone, a line for each block."""
    stripper = _Stripper()
    stripper.feed(html)
    stripper.close()
    return Rendered(_tidy("".join(stripper.pieces)))


def _is_deep(soup: BeautifulSoup) -> bool:
    level: list[Tag] = [soup]
    for _ in range(_DEPTH_MAX):
        level = [child for tag in level for child in tag.children if isinstance(child, Tag)]
        if not level:
            return False
    return True


def _make_absolute(tag: Tag, base_url: str) -> None:
    key = "href" if tag.name == "a" else "src"
    value = tag.get(key)
    if not isinstance(value, str):
        return
    if value.strip().lower().startswith(("javascript:", "data:", "vbscript:")):
        del tag[key]
        return
    try:
        tag[key] = urljoin(base_url, value.strip())
    except ValueError:
        del tag[key]


def _tidy(text: str) -> str:
    """Take out blanks at line ends and more than one blank line in a row, and end with a newline."""
    text = _TRAILING.sub("", text.replace("\r\n", "\n").replace("\r", "\n").replace("\xa0", " "))
    text = _BLANK_LINES.sub("\n", text).strip("\n")
    return f"{text}\n" if text else ""


class _Stripper(HTMLParser):
    """Keeps text and drops tags; holds no tree, so no depth can hurt it."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self._dropping: str | None = None
        self._nested = 0
        self._pre = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002 - HTMLParser's
        if self._dropping is not None:
            self._nested += tag == self._dropping
        elif tag in _DROPPED and tag != "head":
            self._dropping, self._nested = tag, 1
        elif tag in _BLOCKS:
            self._pre += tag == "pre"
            self.pieces.append("\n" if tag not in ("td", "th") else " ")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002 - HTMLParser's
        if self._dropping is None and tag in _BLOCKS:
            self.pieces.append("\n")

    def handle_endtag(self, tag: str) -> None:
        if self._dropping is not None:
            self._nested -= tag == self._dropping
            if not self._nested:
                self._dropping = None
        elif tag in _BLOCKS:
            self._pre = max(0, self._pre - (tag == "pre"))
            if tag not in ("td", "th"):
                self.pieces.append("\n")

    def handle_data(self, data: str) -> None:
        if self._dropping is None:
            self.pieces.append(data if self._pre else re.sub(r"\s+", " ", data))
