"""Every link of the documents leads somewhere: the file is there, and so is the heading."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "packaging").rglob("*.md")])
_FENCE = re.compile(r"^(```|~~~).*?^\1", re.DOTALL | re.MULTILINE)
_CODE = re.compile(r"`[^`\n]*`")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)|^\[[^\]]+\]:\s+(\S+)", re.MULTILINE)
# A path of this repository in running text or code: `docs/x.md`, `tests/hub/test_x.py`.
_PATH = re.compile(
    r"(?<![\w/.~$}-])((?:docs|src|tests|policies|sandbox|redaction|fuzz|bench|packaging|demo)/[\w./-]*\w\.(?:md|py|yaml|toml|sh|json|service))\b"
)


def anchors(path: Path) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them."""
    found: set[str] = set()
    for line in _FENCE.sub("", path.read_text(encoding="utf-8")).splitlines():
        if heading := re.match(r"#{1,6}\s+(.+?)\s*#*$", line):
            words = re.sub(r"[^\w\- ]", "", heading[1].lower()).replace(" ", "-")
            number = 0
            while (anchor := f"{words}-{number}" if number else words) in found:
                number += 1
            found.add(anchor)
    return found


def dead_links(path: Path, text: str) -> list[str]:
    """Return the links in ``text``, of the document at ``path``, that lead nowhere."""
    dead = []
    for match in _LINK.finditer(_CODE.sub("", _FENCE.sub("", text))):
        target, _, anchor = (match[1] or match[2]).partition("#")
        if re.match(r"[a-z][a-z0-9+.-]*:", target):
            continue
        place = (path.parent / target).resolve() if target else path
        if not place.exists() or (anchor and anchor not in anchors(place)):
            dead.append(match[0])
    return dead


@pytest.mark.parametrize("path", DOCUMENTS, ids=[str(path.relative_to(ROOT)) for path in DOCUMENTS])
def test_links(path: Path) -> None:
    """Every relative link of this document leads to a file, and to a heading of it where it names one."""
    assert not dead_links(path, path.read_text(encoding="utf-8"))


def test_readme_leads_to_every_page() -> None:
    """Whoever reads the README finds each page of docs/ from there."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    missing = [page.name for page in sorted((ROOT / "docs").glob("*.md")) if f"](docs/{page.name})" not in text]
    assert not missing


def test_paths_named_in_documents_exist() -> None:
    """A file of this repository that a document, or the text of a module, names is there."""
    missing = sorted(
        f"{path.relative_to(ROOT)}: {named}"
        for path in [*DOCUMENTS, *(ROOT / "src").rglob("*.py")]
        if path.name != "CHANGELOG.md"
        for named in set(_PATH.findall(path.read_text(encoding="utf-8")))
        if not (ROOT / named).exists() and not (ROOT / "src" / "guardhouse" / named).exists()
    )
    assert not missing, "\n".join(missing)


def test_every_page_is_reached_from_the_readme() -> None:
    """Every page in docs/ is linked from README.md or from a page that is."""
    reached, to_read = set(), [ROOT / "README.md"]
    while to_read:
        page = to_read.pop()
        text = page.read_text(encoding="utf-8")
        named = [ROOT / name for name in re.findall(r"docs/[\w/.-]+\.md", text)]
        named += [(page.parent / (m[1] or m[2]).partition("#")[0]).resolve() for m in _LINK.finditer(text)]
        for one in named:
            if one.suffix == ".md" and one.is_file() and one not in reached:
                reached.add(one)
                to_read.append(one)
    unreached = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md") if path not in reached)
    assert not unreached, unreached


def test_the_check_can_fail(tmp_path: Path) -> None:
    """A dead link and a dead anchor are found; a living one is not."""
    page = tmp_path / "page.md"
    page.write_text("# One thing\n", encoding="utf-8")
    assert dead_links(page, "[a](#one-thing) [b](page.md#one-thing) [c](https://example.com/x)") == []
    assert len(dead_links(page, "[a](#two) [b](no.md)")) == 2
