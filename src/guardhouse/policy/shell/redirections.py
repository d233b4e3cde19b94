"""Redirections and here-documents: what they read, write and run, and where their text ends.

Knows words and expansions. Knows no command. Pure. Source: bash 5.2, parse.y, make_cmd.c, redir.c.
"""

import re
from dataclasses import dataclass
from typing import Final, Self

from guardhouse.policy.shell.conditional import ConditionalScanner
from guardhouse.policy.shell.findings import Findings, Source
from guardhouse.policy.shell.reading import Assignment, Redirection, RedirectionKind, Word
from guardhouse.policy.shell.variables import why_assignment_matters
from guardhouse.policy.shell.words import METACHARACTERS, RawWord

__all__ = ["RedirectionScanner"]

_REDIRECTION: Final = re.compile(
    r"(?P<fd>[0-9]+(?=[<>])|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)\}(?=[<>]))?"
    r"(?P<op><<<|<<-|<<|<&|<>|<(?!\()|>>|>&|>\||>(?!\()|&>>|&>)"
)
_DUPLICATION: Final = re.compile(r"-|[0-9]+-?")
_DELIMITER: Final = re.compile(
    r"(?:[^ \t\n;&|<>()'\"\\$`\x00\x01\x7f]|\\[^\n$`\x00\x01\x7f]|'[^'\n\\$`]*+'|\"[^\"\n\\$`]*+\")++"
)
_DELIMITER_QUOTES: Final = re.compile(r"\\(.)|'([^']*)'|\"([^\"]*)\"")
# bash 5.2 expands `>&word` again once it has found that the word names a file: >&'$(id)' runs id (redir.c).
_EXPANDED_ONCE: Final = re.compile(r"[A-Za-z0-9_./:@%+,=-]+")
_KINDS: Final[dict[str, RedirectionKind]] = {
    "<": "read",
    ">": "write",
    ">|": "write",
    ">>": "append",
    "&>": "write",
    "&>>": "append",
    "<>": "read_write",
    "<<": "heredoc",
    "<<-": "heredoc",
    "<<<": "herestring",
    "<&": "dup",
    ">&": "dup",
}


@dataclass(slots=True)
class _Heredoc:
    delimiter: str
    quoted: bool
    strip_tabs: bool
    start: int


class RedirectionScanner(ConditionalScanner):
    """Reads redirections, and the bodies of here-documents once their line has ended."""

    def __init__(
        self, source: Source, findings: Findings, *, via: tuple[str, ...], depth: int, in_function: bool = False
    ) -> None:
        super().__init__(source, findings, via=via, depth=depth)
        self.pending: list[_Heredoc] = []
        self.outer_pending = 0
        # How many constructs around here may leave what is inside unexecuted, or run it in another process.
        self.uncertain = 0
        self.in_function = in_function

    def waits_for_heredoc(self) -> bool:
        """Whether the next newline begins a here-document's body, here or around this substitution."""
        return bool(self.pending) or self.outer_pending > 0

    def nested(self, source: Source, via: tuple[str, ...]) -> Self:
        """Return a reader of another source that stands within this one."""
        inner = type(self)(source, self.findings, via=via, depth=self.depth, in_function=self.in_function)
        inner.uncertain = self.uncertain + 1
        return inner

    def check_word_begins(self) -> None:
        """Refuse a position at which no word begins."""
        char = self.peek()
        if not char or (char in METACHARACTERS and self.text[self.pos : self.pos + 2] not in ("<(", ">(")):
            raise self.fail("a word was expected")

    def read_argument(self) -> RawWord:
        """Read one word of a command."""
        self.check_word_begins()
        return self.read_word()

    def check_assignment(self, assignment: Assignment) -> None:
        """Say where the variable itself is dangerous to set."""
        known = assignment.value is not None and not assignment.appends
        value = assignment.value.value if known and assignment.value is not None else None
        if (why := why_assignment_matters(assignment.name, value)) is not None:
            self.findings.add_undecided(assignment.span, why)

    def end_line(self) -> None:
        """Read the bodies of the here-documents that wait for the newline just passed."""
        if self.outer_pending:
            raise self.fail("a newline in a substitution while a here-document waits")
        if self.pending:
            waiting, self.pending = self.pending, []
            for heredoc in waiting:
                self._read_heredoc(heredoc)

    def read_redirection(self) -> Redirection | None:
        """Read a redirection when one stands here; else None."""
        match = _REDIRECTION.match(self.text, self.pos)
        if match is None:
            return None
        start = self.pos
        operator = match["op"]
        if operator in ("&>", "&>>", "<<<") or match["name"] is not None:
            self.bash_only(operator)
        self.pos = match.end()
        if match["fd"] is None and operator in ("<", ">") and self.peek() == "(":
            return None
        self.check_continuation_after_operator()
        fd = None
        if match["name"] is not None:
            variable = Assignment(match["name"], None, self.source.span(start, self.pos))
            self.note_assignment(variable, number=True)
            self.check_assignment(variable)
        elif match["fd"] is not None:
            fd = int(match["fd"].lstrip("0")[:9] or "0")
        self.skip_blanks()
        if operator in ("<<", "<<-"):
            return self._read_heredoc_start(operator, fd, start)
        kind = _KINDS[operator]
        if kind == "dup" and self.peek() == "-":
            return self._read_close(operator, fd, start)
        word = self.read_argument().word
        if kind == "dup":
            kind = _dup_kind(word, operator, match["fd"])
            if kind != "dup":
                self.bash_only(operator)
                if word.value is None or _EXPANDED_ONCE.fullmatch(word.value) is None:
                    self.findings.add_undecided(word.span, "bash expands the file name after >& twice")
        if kind == "herestring":
            return Redirection(kind, operator, fd, word, self.source.span(start, self.pos))
        if word.value is None and kind == "dup":
            self.findings.add_undecided(
                word.span, "a descriptor to duplicate that may turn out to be the name of a file"
            )
        network = self._opens_network(word, kind)
        return Redirection(kind, operator, fd, word, self.source.span(start, self.pos), network)

    def _read_close(self, operator: str, fd: int | None, start: int) -> Redirection:
        """``>&-`` ends at its dash, whatever follows: ``2>&-ls`` runs ``ls``. Source: parse.y, ``read_token``."""
        span = self.source.span(self.pos, self.pos + 1)
        self.pos += 1
        if self.peek() and self.peek() not in METACHARACTERS:
            self.bash_only("text joined to a closing redirection")
        word = Word("-", span, "-", ("-",))
        return Redirection("dup", operator, fd, word, self.source.span(start, self.pos))

    def _opens_network(self, word: Word, kind: RedirectionKind) -> bool:
        if kind == "dup":
            return False
        if word.value is not None:
            network = word.value.startswith(("/dev/tcp/", "/dev/udp/"))
        else:
            head = word.pattern[0] if word.pattern else None
            network = head is None or _may_continue(head)
        if network and word.value is not None:
            self.findings.add_undecided(word.span, "a redirection by which bash itself opens a network connection")
        return network

    def _read_heredoc_start(self, operator: str, fd: int | None, start: int) -> Redirection:
        match = _DELIMITER.match(self.text, self.pos)
        if match is None or (match.end() < self.end and self.text[match.end()] not in METACHARACTERS):
            raise self.fail("a here-document delimiter that is not plain")
        text = match[0]
        delimiter = _DELIMITER_QUOTES.sub(lambda quoted: quoted[1] or quoted[2] or quoted[3] or "", text)
        self.pos = match.end()
        word = Word(text, self.source.span(match.start(), match.end()), delimiter, (delimiter,))
        self.pending.append(_Heredoc(delimiter, any(c in text for c in "\\'\""), operator == "<<-", start))
        return Redirection("heredoc", operator, fd, word, self.source.span(start, self.pos))

    def _read_heredoc(self, heredoc: _Heredoc) -> None:
        """Read a body, whose first line begins at the position, and its delimiter."""
        start = self.pos
        lines: list[str] = []
        while True:
            if self.pos >= self.end:
                raise self.fail("a here-document without its end", heredoc.start)
            newline = self.text.find("\n", self.pos)
            stop = self.end if newline == -1 else newline
            line = self.text[self.pos : stop]
            stripped = line.lstrip("\t") if heredoc.strip_tabs else line
            if stripped == heredoc.delimiter:
                body_end = self.pos
                self.pos = stop if newline == -1 else stop + 1
                break
            if self.in_substitution and heredoc.delimiter and stripped.startswith(heredoc.delimiter):
                raise self.fail("a here-document's end that releases of bash read differently")
            if not heredoc.quoted and (len(line) - len(line.rstrip("\\"))) % 2:
                raise self.fail("a line continuation in a here-document")
            lines.append(stripped)
            if newline == -1:
                raise self.fail("a here-document without its end", heredoc.start)
            self.pos = stop + 1
        if heredoc.quoted:
            return
        if heredoc.strip_tabs:
            nested = Source(
                "".join(line + "\n" for line in lines),
                self.source.span(start, body_end),
                dialect=self.source.dialect,
                level=self.source.level,
            )
        else:
            nested = _slice(self.source, start, body_end)
        self.deeper()
        self.nested(nested, self.via).read_heredoc_body()
        self.depth -= 1


def _may_continue(head: str) -> bool:
    return any(device.startswith(head[: len(device)]) for device in ("/dev/tcp/", "/dev/udp/"))


def _dup_kind(word: Word, operator: str, fd: str | None) -> RedirectionKind:
    if word.value is None or _DUPLICATION.fullmatch(word.value) is not None:
        return "dup"
    # Whether ``{name}>&file`` writes differs between versions of bash; 5.2 refuses it.
    return "write" if operator == ">&" and (fd is None or fd[0] == "{" or fd.lstrip("0") == "1") else "dup"


def _slice(source: Source, start: int, end: int) -> Source:
    origin = source.origin
    text = source.text[start:end]
    if isinstance(origin, int):
        return Source(text, origin + start, dialect=source.dialect, level=source.level)
    if isinstance(origin, tuple):
        return Source(text, origin, dialect=source.dialect, level=source.level)
    return Source(text, origin[start : end + 1], dialect=source.dialect, level=source.level)
