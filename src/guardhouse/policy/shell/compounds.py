"""Compound commands: groups, conditionals, loops, ``case``, functions and coprocesses.

Knows what words they are made of and which of their parts may not run. Knows no list: ``read_list`` and
``read_command`` are given by the grammar. Pure. Source: bash 5.2, parse.y (``shell_command``).
"""

import re
from abc import abstractmethod
from typing import Final

from guardhouse.policy.shell.findings import Function
from guardhouse.policy.shell.reading import Assignment
from guardhouse.policy.shell.simple import FUNCTION_PARENTHESES, SimpleCommandScanner
from guardhouse.policy.shell.words import RESERVED, RawWord

__all__ = ["CompoundScanner"]

_RESERVED_HERE: Final = re.compile(
    r"(?:\[\[|\]\]|[!{}]|if|then|elif|else|fi|for|in|do|done|while|until|case|esac|select|function|time|coproc)"
    r"(?=[ \t\n;&|<>()]|\Z)"
)
_SEPARATOR: Final = re.compile(r";;&|;;|;&|;|&&|&(?!>)|\|\||\|&|\||\n|\)")
_FUNCTION_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]*")
_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NAMED_COPROC: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)[ \t]+(?=\(|\{[ \t\n])")
_PLAIN_WORD: Final = re.compile(r"[^ \t\n;&|<>()'\"\\$`]+[ \t]+")
_FUNCTION_BODIES: Final = frozenset({"{", "if", "while", "until", "for", "select", "case", "[["})


class CompoundScanner(SimpleCommandScanner):
    """Reads compound commands."""

    @abstractmethod
    def read_list(self, closers: frozenset[str], *, allow_empty: bool = False) -> None:
        """Read commands until one of ``closers`` stands at the position, which stays there, or the text ends."""

    @abstractmethod
    def read_command(self) -> None:
        """Read one command of any kind."""

    def operator_here(self) -> str:
        """Return the control operator at the position, or an empty string."""
        match = _SEPARATOR.match(self.text, self.pos)
        return "" if match is None else match[0]

    def reserved_here(self) -> str | None:
        """Return the reserved word at the position, or None."""
        match = _RESERVED_HERE.match(self.text, self.pos)
        return None if match is None else match[0]

    def skip_newlines(self) -> None:
        """Step over blanks, comments and newlines, and the bodies that those newlines begin."""
        while True:
            self.skip_blanks()
            self.skip_comment()
            if self.peek() != "\n":
                return
            self.pos += 1
            self.end_line()

    def doubt_functions(self, since: int) -> None:
        """Note that the functions defined since then may not be defined where later text runs."""
        for function in self.findings.functions[since:]:
            function.certain = False

    def read_compound(self, reserved: str, start: int) -> None:
        """Read the compound command that ``reserved``, just passed, begins."""
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

    def read_compound_redirections(self) -> None:
        """Read the redirections behind a compound command."""
        while True:
            self.skip_blanks()
            redirection = self.read_redirection()
            if redirection is None:
                return
            self.findings.redirections.append(redirection)

    def _expect(self, reserved: str) -> None:
        if self.reserved_here() != reserved:
            raise self.fail(f"{reserved!r} was expected")
        self.pos += len(reserved)

    def read_arithmetic_command(self) -> None:
        """Read ``((…))``; a nested subshell written so is refused."""
        self.bash_only("((…))")
        self.pos += 2
        self.read_arithmetic("))")

    def read_subshell(self) -> None:
        """Read ``(…)``."""
        self.deeper()
        functions = len(self.findings.functions)
        self.pos += 1
        self.check_continuation_after_operator()
        self.read_list(frozenset({")"}))
        if self.peek() != ")":
            raise self.fail("a subshell without its end")
        self.pos += 1
        self.doubt_functions(functions)
        self.depth -= 1

    def _read_group(self) -> None:
        self.read_list(frozenset({"}"}))
        self._expect("}")

    def _read_if(self) -> None:
        self.read_list(frozenset({"then"}))
        self._expect("then")
        self.uncertain += 1
        while True:
            self.read_list(frozenset({"elif", "else", "fi"}))
            if self.reserved_here() == "elif":
                self.pos += 4
                self.read_list(frozenset({"then"}))
                self._expect("then")
                continue
            if self.reserved_here() == "else":
                self.pos += 4
                self.read_list(frozenset({"fi"}))
            break
        self._expect("fi")
        self.uncertain -= 1

    def _read_while(self) -> None:
        self.read_list(frozenset({"do"}))
        self._read_do()

    def _read_do(self) -> None:
        self._expect("do")
        self.uncertain += 1
        self.read_list(frozenset({"done"}))
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
        self.findings.assign("REPLY", self.source.span(self.pos, self.pos), number=False)
        self.skip_blanks()
        self._read_loop_words()

    def _read_loop_words(self) -> None:
        start = self.pos
        raw = self.read_word()
        name = raw.word.value
        if not raw.plain or name is None or _IDENTIFIER.fullmatch(name) is None:
            raise self.fail("a loop variable that is no plain name", start, self.pos)
        number = False
        self.skip_newlines()
        if self.reserved_here() == "in":
            self.pos += 2
            number = self._read_in_words()
        elif self.peek() == ";" and self.operator_here() == ";":
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
                if char == ";" and self.operator_here() != ";":
                    raise self.fail("an operator where a loop's words end")
                self.pos += 1
                if char == "\n":
                    self.end_line()
                return number
            if not char:
                raise self.fail("a loop without its body")
            raw = self.read_argument()
            number = number and raw.number

    def _read_loop_body(self) -> None:
        self.skip_newlines()
        if self.reserved_here() == "{":
            self.bash_only("a loop with braces")
            self.pos += 1
            self.uncertain += 1
            self.read_list(frozenset({"}"}))
            self.uncertain -= 1
            self._expect("}")
            return
        self._read_do()

    def _read_case(self) -> None:
        self.skip_blanks()
        self.read_argument()
        self.skip_newlines()
        self._expect("in")
        self.uncertain += 1
        while True:
            self.skip_newlines()
            if self.reserved_here() == "esac":
                break
            if self.pos >= self.end:
                raise self.fail("a case without its end")
            self._read_case_patterns()
            self.read_list(frozenset({";;", ";&", ";;&", "esac"}), allow_empty=True)
            operator = self.operator_here()
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
            self.check_word_begins()
            self.read_word(globs=False)
            self.skip_blanks()
            char = self.peek()
            if char == ")":
                self.pos += 1
                return
            if char != "|" or self.operator_here() != "|":
                raise self.fail("a case pattern that is not understood")
            self.pos += 1

    def _read_function(self, start: int) -> None:
        self.bash_only("function")
        self.skip_blanks()
        self.check_word_begins()
        raw = self.read_word()
        parentheses = FUNCTION_PARENTHESES.match(self.text, self.pos)
        if parentheses is not None:
            self.pos = parentheses.end()
        self.read_function_body(raw, start)

    def read_function_body(self, raw: RawWord, start: int) -> None:
        """Read the body of the function that ``raw`` names, after its parentheses."""
        name = raw.word.value
        if not raw.plain or name is None or raw.continued or _FUNCTION_NAME.fullmatch(name) is None:
            raise self.fail("a function name that is not plain", start, self.pos)
        if name in RESERVED:
            raise self.fail("a function named like a reserved word", start, self.pos)
        self.skip_newlines()
        certain = self.uncertain == 0 and not self.in_function and self.source.level == 0
        if self.peek() != "(" and self.reserved_here() not in _FUNCTION_BODIES:
            raise self.fail("a function body that is no compound command")
        via, in_function, uncertain = self.via, self.in_function, self.uncertain
        self.via = (*via, f"function body {name}")
        self.in_function = True
        self.uncertain += 1
        self.read_command()
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
        if self.reserved_here() is None and named is not None:
            name = named[1]
            self.pos = named.end()
        elif self.reserved_here() is None and self.peek() != "(":
            following = _PLAIN_WORD.match(self.text, self.pos)
            if following is not None and _RESERVED_HERE.match(self.text, following.end()) is not None:
                raise self.fail("a coproc whose name and command cannot be told apart", start)
        self.read_command()
        self.uncertain -= 1
        self.via = via
        variable = Assignment(name, None, self.source.span(start, self.pos))
        self.note_assignment(variable, number=True)
        self.check_assignment(variable)
