"""Lists, pipelines, compound and simple commands: bash's grammar, as far as it is positively understood.

Collects every simple command with its words, redirections and assignments; judges none of them. Whatever does not
fit ends reading, so that no part of a text is skipped. Pure.

Source: bash 5.2, parse.y.
"""

import re
from dataclasses import dataclass, field
from typing import Final

from guardhouse.policy.shell.builtins import DECLARATIONS
from guardhouse.policy.shell.conditional import ConditionalScanner
from guardhouse.policy.shell.findings import Findings, Found, Function, Source
from guardhouse.policy.shell.reading import Assignment, Redirection, RedirectionKind, SimpleCommand, Word
from guardhouse.policy.shell.variables import why_assignment_matters
from guardhouse.policy.shell.words import METACHARACTERS, RESERVED, RawWord

__all__ = ["Grammar", "read_source"]

_RESERVED_HERE: Final = re.compile(
    r"(?:\[\[|\]\]|[!{}]|if|then|elif|else|fi|for|in|do|done|while|until|case|esac|select|function|time|coproc)"
    r"(?=[ \t\n;&|<>()]|\Z)"
)
_SEPARATOR: Final = re.compile(r";;&|;;|;&|;|&&|&(?!>)|\|\||\|&|\||\n|\)")
_REDIRECTION: Final = re.compile(
    r"(?P<fd>[0-9]+(?=[<>])|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)\}(?=[<>]))?"
    r"(?P<op><<<|<<-|<<|<&|<>|<(?!\()|>>|>&|>\||>(?!\()|&>>|&>)"
)
_FUNCTION_PARENTHESES: Final = re.compile(r"[ \t]*\([ \t]*\)")
_FUNCTION_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]*")
_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DUPLICATION: Final = re.compile(r"-|[0-9]+-?")
_DELIMITER: Final = re.compile(
    r"(?:[^ \t\n;&|<>()'\"\\$`\x00\x01\x7f]|\\[^\n$`\x00\x01\x7f]|'[^'\n\\$`]*+'|\"[^\"\n\\$`]*+\")++"
)
_DELIMITER_QUOTES: Final = re.compile(r"\\(.)|'([^']*)'|\"([^\"]*)\"")
_TIME_OPTION: Final = re.compile(r"-p(?=[ \t\n;&|])")
_NAMED_COPROC: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)[ \t]+(?=\(|\{[ \t\n])")
_PLAIN_WORD: Final = re.compile(r"[^ \t\n;&|<>()'\"\\$`]+[ \t]+")
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
_END_OF_TEXT: Final[frozenset[str]] = frozenset()


@dataclass(slots=True)
class _Heredoc:
    delimiter: str
    quoted: bool
    strip_tabs: bool
    start: int


@dataclass(slots=True)
class _Simple:
    """A simple command as it grows."""

    start: int
    end: int
    words: list[Word] = field(default_factory=list)
    assignments: list[Assignment] = field(default_factory=list)
    redirections: list[Redirection] = field(default_factory=list)


class Grammar(ConditionalScanner):
    """Reads one source from its start to its end."""

    def __init__(
        self, source: Source, findings: Findings, *, via: tuple[str, ...], depth: int, in_function: bool = False
    ) -> None:
        super().__init__(source, findings, via=via, depth=depth)
        self.pending: list[_Heredoc] = []
        self.outer_pending = 0
        # How many constructs around here may leave what is inside unexecuted, or run it in another process.
        self.uncertain = 0
        self.in_function = in_function
        self.in_substitution = 0

    def read_program(self) -> None:
        """Read the whole source as a list of commands."""
        self._read_list(_END_OF_TEXT, allow_empty=True)
        if self.pos < self.end:
            raise self.fail(f"{self.text[self.pos]!r} where no command can begin")
        if self.pending:
            raise self.fail("a here-document without its end", self.pending[0].start)

    def waits_for_heredoc(self) -> bool:
        """Whether the next newline begins a here-document's body, here or around this substitution."""
        return bool(self.pending) or self.outer_pending > 0

    # What expansions ask of the grammar.

    def read_substitution(self, close_via: str) -> None:
        """Read a list up to its ``)`` in this same text."""
        self.deeper()
        via, pending, uncertain = self.via, self.pending, self.uncertain
        self.via = (*via, close_via)
        self.outer_pending += len(pending)
        self.pending = []
        self.uncertain += 1
        self.in_substitution += 1
        self._read_list(frozenset({")"}), allow_empty=True)
        if self.peek() != ")":
            raise self.fail("a substitution without its end")
        if self.pending:
            raise self.fail("a here-document that a substitution does not end", self.pending[0].start)
        self.pos += 1
        self.via, self.pending, self.uncertain = via, pending, uncertain
        self.outer_pending -= len(pending)
        self.in_substitution -= 1
        self.depth -= 1

    def read_text(self, source: Source, via: tuple[str, ...]) -> None:
        """Read a text of its own with a grammar of its own."""
        self.deeper()
        inner = Grammar(source, self.findings, via=via, depth=self.depth, in_function=self.in_function)
        inner.uncertain = self.uncertain + 1
        inner.read_program()
        self.depth -= 1

    # Lists.

    def _read_list(self, closers: frozenset[str], *, allow_empty: bool = False) -> None:
        """Read commands until one of ``closers`` stands at the position, which stays there, or the text ends."""
        count = 0
        separated = True
        while True:
            self._skip_newlines()
            if self.pos >= self.end:
                break
            char = self.text[self.pos]
            if char in ";)" and self._operator_here() in closers:
                break
            reserved = self._reserved_here()
            if reserved is not None and reserved in closers:
                break
            if not separated:
                raise self.fail("text after a command that does not continue it")
            self._read_and_or()
            count += 1
            separated = self._read_separator()
        if count == 0 and not allow_empty:
            raise self.fail("a command was expected")

    def _read_separator(self) -> bool:
        self.skip_blanks()
        char = self.peek()
        if char == ";" and self._operator_here() == ";":
            self.pos += 1
            self.check_continuation_after_operator()
            return True
        if char == "&" and self._operator_here() == "&":
            self.pos += 1
            self.check_continuation_after_operator()
            return True
        return char in ("\n", "#")

    def _operator_here(self) -> str:
        match = _SEPARATOR.match(self.text, self.pos)
        return "" if match is None else match[0]

    def _reserved_here(self) -> str | None:
        match = _RESERVED_HERE.match(self.text, self.pos)
        return None if match is None else match[0]

    def _skip_newlines(self) -> None:
        while True:
            self.skip_blanks()
            self.skip_comment()
            if self.peek() != "\n":
                return
            self.pos += 1
            self._end_line()

    def _end_line(self) -> None:
        if self.outer_pending:
            raise self.fail("a newline in a substitution while a here-document waits")
        if self.pending:
            waiting, self.pending = self.pending, []
            for heredoc in waiting:
                self._read_heredoc(heredoc)

    def _read_and_or(self) -> None:
        functions = len(self.findings.functions)
        self._read_pipeline()
        conditional = 0
        while True:
            self.skip_blanks()
            operator = self._operator_here()
            if operator in ("&&", "||"):
                self.pos += 2
                self.check_continuation_after_operator()
                self._skip_newlines()
                conditional += 1
                self.uncertain += 1
                self._read_pipeline()
                continue
            break
        self.uncertain -= conditional
        if operator == "&":
            self._doubt_functions(functions)

    def _doubt_functions(self, since: int) -> None:
        for function in self.findings.functions[since:]:
            function.certain = False

    def _read_pipeline(self) -> None:
        functions = len(self.findings.functions)
        if self._read_pipeline_prefix():
            return
        self._read_command()
        piped = False
        while True:
            self.skip_blanks()
            operator = self._operator_here()
            if operator not in ("|", "|&"):
                break
            if operator == "|&":
                self.bash_only("|&")
            self.pos += len(operator)
            self.check_continuation_after_operator()
            self._skip_newlines()
            piped = True
            self._read_command()
        if piped:
            self._doubt_functions(functions)

    def _read_pipeline_prefix(self) -> bool:
        """Step over ``!`` and ``time [-p]``; return whether nothing follows them."""
        seen = False
        while (reserved := self._reserved_here()) in ("!", "time"):
            seen = True
            self.pos += len(reserved or "")
            self.skip_blanks()
            if reserved == "time":
                self.bash_only("time")
                if self.text.startswith("-", self.pos):
                    if _TIME_OPTION.match(self.text, self.pos) is None:
                        raise self.fail("an option of time that is not known")
                    self.pos += 2
                    self.skip_blanks()
        if not seen:
            return False
        if self.pos >= self.end or self.peek() == "\n" or self._operator_here() == ";":
            self.bash_only("an empty pipeline")
            return True
        return False

    # Commands.

    def _read_command(self) -> None:
        char = self.peek()
        if char == "(":
            if self.peek(1) == "(":
                self._read_arithmetic_command()
            else:
                self._read_subshell()
            self._read_compound_redirections()
            return
        reserved = self._reserved_here()
        if reserved is None:
            self._read_simple()
            return
        self.deeper()
        start = self.pos
        self.pos += len(reserved)
        self._read_compound(reserved, start)
        self.depth -= 1
        if reserved not in ("function", "coproc"):
            self._read_compound_redirections()

    def _read_compound(self, reserved: str, start: int) -> None:
        match reserved:
            case "{":
                self._read_group()
            case "if":
                self._read_if()
            case "while" | "until":
                self._read_while()
            case "for":
                self._read_for()
            case "select":
                self._read_select()
            case "case":
                self._read_case()
            case "[[":
                self.bash_only("[[…]]")
                self.read_test(start)
            case "function":
                self._read_function(start)
            case "coproc":
                self._read_coproc(start)
            case _:
                raise self.fail(f"the reserved word {reserved!r} where no command can begin", start)

    def _read_compound_redirections(self) -> None:
        while True:
            self.skip_blanks()
            redirection = self._read_redirection()
            if redirection is None:
                return
            self.findings.redirections.append(redirection)

    def _expect(self, reserved: str) -> None:
        if self._reserved_here() != reserved:
            raise self.fail(f"{reserved!r} was expected")
        self.pos += len(reserved)

    def _read_arithmetic_command(self) -> None:
        self.bash_only("((…))")
        self.pos += 2
        self.read_arithmetic("))")

    def _read_subshell(self) -> None:
        self.deeper()
        functions = len(self.findings.functions)
        self.pos += 1
        self.check_continuation_after_operator()
        self._read_list(frozenset({")"}))
        if self.peek() != ")":
            raise self.fail("a subshell without its end")
        self.pos += 1
        self._doubt_functions(functions)
        self.depth -= 1

    def _read_group(self) -> None:
        self._read_list(frozenset({"}"}))
        self._expect("}")

    def _read_if(self) -> None:
        self._read_list(frozenset({"then"}))
        self._expect("then")
        self.uncertain += 1
        while True:
            self._read_list(frozenset({"elif", "else", "fi"}))
            if self._reserved_here() == "elif":
                self.pos += 4
                self._read_list(frozenset({"then"}))
                self._expect("then")
                continue
            if self._reserved_here() == "else":
                self.pos += 4
                self._read_list(frozenset({"fi"}))
            break
        self._expect("fi")
        self.uncertain -= 1

    def _read_while(self) -> None:
        self._read_list(frozenset({"do"}))
        self._read_do()

    def _read_do(self) -> None:
        self._expect("do")
        self.uncertain += 1
        self._read_list(frozenset({"done"}))
        self.uncertain -= 1
        self._expect("done")

    def _read_for(self) -> None:
        self.skip_blanks()
        if self.text.startswith("((", self.pos):
            self.bash_only("for ((…))")
            self.pos += 2
            self.read_arithmetic(";")
            self.read_arithmetic(";")
            self.read_arithmetic("))")
            self.skip_blanks()
            if self.peek() == ";":
                self.pos += 1
            self._read_loop_body()
            return
        self._read_loop_words()

    def _read_select(self) -> None:
        self.bash_only("select")
        self.skip_blanks()
        self._read_loop_words()

    def _read_loop_words(self) -> None:
        start = self.pos
        raw = self.read_word()
        name = raw.word.value
        if not raw.plain or name is None or _IDENTIFIER.fullmatch(name) is None:
            raise self.fail("a loop variable that is no plain name", start, self.pos)
        number = False
        self._skip_newlines()
        if self._reserved_here() == "in":
            self.pos += 2
            number = self._read_in_words()
        elif self.peek() == ";" and self._operator_here() == ";":
            self.pos += 1
        variable = Assignment(name, None, self.source.span(start, start + len(name)))
        self.note_assignment(variable, number=number)
        self.check_assignment(variable)
        self._read_loop_body()

    def _read_in_words(self) -> bool:
        number = True
        while True:
            self.skip_blanks()
            self.skip_comment()
            char = self.peek()
            if char in (";", "\n"):
                if char == ";" and self._operator_here() != ";":
                    raise self.fail("an operator where a loop's words end")
                self.pos += 1
                if char == "\n":
                    self._end_line()
                return number
            if not char:
                raise self.fail("a loop without its body")
            raw = self._read_argument()
            number = number and raw.number

    def _read_loop_body(self) -> None:
        self._skip_newlines()
        if self._reserved_here() == "{":
            self.bash_only("a loop with braces")
            self.pos += 1
            self.uncertain += 1
            self._read_list(frozenset({"}"}))
            self.uncertain -= 1
            self._expect("}")
            return
        self._read_do()

    def _read_case(self) -> None:
        self.skip_blanks()
        self._read_argument()
        self._skip_newlines()
        self._expect("in")
        self.uncertain += 1
        while True:
            self._skip_newlines()
            if self._reserved_here() == "esac":
                break
            if self.pos >= self.end:
                raise self.fail("a case without its end")
            self._read_case_patterns()
            self._read_list(frozenset({";;", ";&", ";;&", "esac"}), allow_empty=True)
            operator = self._operator_here()
            if operator in (";;", ";&", ";;&"):
                if operator != ";;":
                    self.bash_only(operator)
                self.pos += len(operator)
                self.check_continuation_after_operator()
        self.uncertain -= 1
        self._expect("esac")

    def _read_case_patterns(self) -> None:
        if self.peek() == "(":
            self.pos += 1
            self.skip_blanks()
        while True:
            self.skip_blanks()
            self._check_word_begins()
            self.read_word(globs=False)
            self.skip_blanks()
            char = self.peek()
            if char == ")":
                self.pos += 1
                return
            if char != "|" or self._operator_here() != "|":
                raise self.fail("a case pattern that is not understood")
            self.pos += 1

    def _read_function(self, start: int) -> None:
        self.bash_only("function")
        self.skip_blanks()
        self._check_word_begins()
        raw = self.read_word()
        parentheses = _FUNCTION_PARENTHESES.match(self.text, self.pos)
        if parentheses is not None:
            self.pos = parentheses.end()
        self._read_function_body(raw, start)

    def _read_function_body(self, raw: RawWord, start: int) -> None:
        name = raw.word.value
        if not raw.plain or name is None or raw.continued or _FUNCTION_NAME.fullmatch(name) is None:
            raise self.fail("a function name that is not plain", start, self.pos)
        if name in RESERVED:
            raise self.fail("a function named like a reserved word", start, self.pos)
        self._skip_newlines()
        certain = self.uncertain == 0 and not self.in_function and self.source.level == 0
        if self.peek() != "(" and self._reserved_here() not in _FUNCTION_BODIES:
            raise self.fail("a function body that is no compound command")
        via, in_function, uncertain = self.via, self.in_function, self.uncertain
        self.via = (*via, f"function body {name}")
        self.in_function = True
        self.uncertain += 1
        self._read_command()
        self.via, self.in_function, self.uncertain = via, in_function, uncertain
        self.findings.add_function(Function(name, len(self.findings.commands), certain))

    def _read_coproc(self, start: int) -> None:
        self.bash_only("coproc")
        self.skip_blanks()
        via = self.via
        self.via = (*via, "coproc")
        name = "COPROC"
        self.uncertain += 1
        named = _NAMED_COPROC.match(self.text, self.pos)
        if self._reserved_here() is None and named is not None:
            name = named[1]
            self.pos = named.end()
        elif self._reserved_here() is None and self.peek() != "(":
            following = _PLAIN_WORD.match(self.text, self.pos)
            if following is not None and _RESERVED_HERE.match(self.text, following.end()) is not None:
                raise self.fail("a coproc whose name and command cannot be told apart", start)
        self._read_command()
        self.uncertain -= 1
        self.via = via
        variable = Assignment(name, None, self.source.span(start, self.pos))
        self.note_assignment(variable, number=True)
        self.check_assignment(variable)

    # Simple commands.

    def _check_word_begins(self) -> None:
        char = self.peek()
        if not char or (char in METACHARACTERS and self.text[self.pos : self.pos + 2] not in ("<(", ">(")):
            raise self.fail("a word was expected")

    def _read_argument(self) -> RawWord:
        self._check_word_begins()
        return self.read_word()

    def _read_simple(self) -> None:
        simple = _Simple(self.pos, self.pos)
        declares = False
        while True:
            self.skip_blanks()
            if self.pos >= self.end or self.text[self.pos] == "#":
                break
            redirection = self._read_redirection()
            if redirection is not None:
                simple.redirections.append(redirection)
                simple.end = self.pos
                continue
            char = self.text[self.pos]
            if char in METACHARACTERS and self.text[self.pos : self.pos + 2] not in ("<(", ">("):
                break
            if not simple.words or declares:
                assignment = self._read_assignment_here(simple, argument=bool(simple.words))
                if assignment:
                    simple.end = self.pos
                    continue
            raw = self._read_argument()
            if not simple.words:
                if self._is_function_definition(raw, simple):
                    self._read_function_body(raw, simple.start)
                    return
                declares = raw.plain and raw.word.value in DECLARATIONS
            simple.words.append(raw.word)
            simple.end = self.pos
        if self.peek() == "(":
            raise self.fail("a parenthesis where no command can begin")
        if simple.end <= simple.start and not (simple.words or simple.assignments or simple.redirections):
            raise self.fail("a command was expected")
        self._keep(simple)

    def _read_assignment_here(self, simple: _Simple, *, argument: bool) -> bool:
        start = self.pos
        assignment = self.read_assignment()
        if assignment is None:
            return False
        if self.waits_for_heredoc() and "\n" in self.text[start : self.pos]:
            raise self.fail("a newline in a word while a here-document waits", start, self.pos)
        if argument and self.posix and assignment.value is not None and assignment.value.value is None:
            raise self.fail("an expansion that shells other than bash split", start, self.pos)
        if self.pos < self.end and self.text[self.pos] not in METACHARACTERS:
            raise self.fail("text joined to an assignment", start, self.pos)
        if not argument:
            simple.assignments.append(assignment)
            return True
        simple.words.append(self._declared_word(assignment, start))
        simple.assignments.append(assignment)
        return True

    def _declared_word(self, assignment: Assignment, start: int) -> Word:
        """The argument of ``declare`` and its like, whose value the builtin assigns itself."""
        text = self.text[start : self.pos]
        value = assignment.value
        if value is None:
            prefix = text[: text.index("(")]
            return Word(text, assignment.span, None, (prefix, None), "an array's word list")
        prefix = text[: len(text) - len(value.text)]
        if value.value is not None:
            exact = prefix + value.value
            return Word(text, assignment.span, exact, (exact,))
        pattern: tuple[str | None, ...] = (prefix, *value.pattern)
        if value.pattern and value.pattern[0] is not None:
            pattern = (prefix + value.pattern[0], *value.pattern[1:])
        return Word(text, assignment.span, None, pattern, value.undecided_because)

    def _is_function_definition(self, raw: RawWord, simple: _Simple) -> bool:
        match = _FUNCTION_PARENTHESES.match(self.text, self.pos)
        if match is None:
            return False
        if simple.assignments or simple.redirections or not raw.plain:
            raise self.fail("a parenthesis where no command can begin", raw.start, match.end())
        self.pos = match.end()
        return True

    def _keep(self, simple: _Simple) -> None:
        if not simple.words:
            for assignment in simple.assignments:
                self.check_assignment(assignment)
            self.findings.redirections.extend(simple.redirections)
            self.findings.assignments.extend(simple.assignments)
            return
        span = self.source.span(simple.start, simple.end)
        command = SimpleCommand(
            tuple(simple.words),
            tuple(simple.assignments),
            tuple(simple.redirections),
            span,
            self.text[simple.start : simple.end],
            self.via,
        )
        self.findings.add_command(Found(command, self.source, in_function=self.in_function))

    def check_assignment(self, assignment: Assignment) -> None:
        """Say where the variable itself is dangerous to set."""
        known = assignment.value is not None and not assignment.appends
        value = assignment.value.value if known and assignment.value is not None else None
        if (why := why_assignment_matters(assignment.name, value)) is not None:
            self.findings.add_undecided(assignment.span, why)

    # Redirections.

    def _read_redirection(self) -> Redirection | None:
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
            fd = int(match["fd"][:9])
        self.skip_blanks()
        if operator in ("<<", "<<-"):
            return self._read_heredoc_start(operator, fd, start)
        kind = _KINDS[operator]
        if kind == "dup" and self.peek() == "-":
            return self._read_close(operator, fd, start)
        word = self._read_argument().word
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
        inner = Grammar(nested, self.findings, via=self.via, depth=self.depth, in_function=self.in_function)
        inner.uncertain = self.uncertain + 1
        inner.read_heredoc_body()
        self.depth -= 1


def _may_continue(head: str) -> bool:
    return any(device.startswith(head[: len(device)]) for device in ("/dev/tcp/", "/dev/udp/"))


def _dup_kind(word: Word, operator: str, fd: str | None) -> RedirectionKind:
    if word.value is None or _DUPLICATION.fullmatch(word.value) is not None:
        return "dup"
    return "write" if operator == ">&" and (fd is None or int(fd[:9]) == 1) else "dup"


def _slice(source: Source, start: int, end: int) -> Source:
    origin = source.origin
    text = source.text[start:end]
    if isinstance(origin, int):
        return Source(text, origin + start, dialect=source.dialect, level=source.level)
    if isinstance(origin, tuple):
        return Source(text, origin, dialect=source.dialect, level=source.level)
    return Source(text, origin[start : end + 1], dialect=source.dialect, level=source.level)


_FUNCTION_BODIES: Final = frozenset({"{", "if", "while", "until", "for", "select", "case", "[["})


def read_source(
    source: Source, findings: Findings, *, via: tuple[str, ...] = (), depth: int = 0, in_function: bool = False
) -> None:
    """Read one source into ``findings``.

    Raises:
        CannotRead: at the first place that is not positively understood; what was found before it is kept.
    """
    Grammar(source, findings, via=via, depth=depth, in_function=in_function).read_program()
