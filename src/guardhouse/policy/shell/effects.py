"""What commands do beyond naming a program: builtins with effects, wrappers taken apart, texts within texts.

Runs after the grammar, over every command found, and adds what those run in turn. Pure.
"""

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from guardhouse import limits
from guardhouse.policy.shell.builtins import BUILTINS, POSIX_BUILTINS
from guardhouse.policy.shell.expansions import NAME
from guardhouse.policy.shell.findings import CannotRead, Findings, Found, Source
from guardhouse.policy.shell.grammar import Grammar, read_source
from guardhouse.policy.shell.reading import Assignment, Resolution, SimpleCommand, Span, Word
from guardhouse.policy.shell.unwrap import Unwrapped, unwrap
from guardhouse.policy.shell.variables import why_assignment_matters, why_export_matters
from guardhouse.policy.shell.wrappers import SHELLS, UNREADABLE, WRAPPERS

__all__ = ["judge_commands"]

_UNKNOWN_ARGUMENT: Final = "an argument that is not literal decides what this builtin does"
_LOADER: Final = re.compile(r"ld-linux[-a-z0-9_]*\.so\.[0-9]+|ld-musl-[a-z0-9_]+\.so\.1|ld-[0-9.]+\.so|ld64\.so\.[12]")
_NUMBER: Final = re.compile(r"-?[0-9]{1,18}")
_UNARY_TESTS: Final = frozenset(f"-{letter}" for letter in "abcdefghknoprstuvwxzGLNORS")
_BINARY_TESTS: Final = frozenset(
    ["=", "==", "!=", "<", ">", "-eq", "-ne", "-lt", "-le", "-gt", "-ge", "-nt", "-ot", "-ef"]
)
# Options that change neither how text is read nor what runs. Source: bash(1), "set" and "shopt".
_SET_LETTERS: Final = frozenset("euxvfCbhm")
_SET_NAMES: Final = frozenset(
    ["errexit", "nounset", "xtrace", "verbose", "noglob", "noclobber", "pipefail", "notify", "hashall", "monitor"]
)
_SHOPT_NAMES: Final = frozenset(
    [
        "nullglob",
        "failglob",
        "dotglob",
        "globstar",
        "inherit_errexit",
        "lastpipe",
        "huponexit",
        "checkwinsize",
        "checkjobs",
    ]
)


def judge_commands(findings: Findings) -> None:
    """Judge every command of ``findings``; commands found on the way are added and judged too."""
    index = 0
    while index < len(findings.commands):
        found = findings.commands[index]
        _Judge(findings, found, index).judge()
        index += 1


class _Judge:
    """One command being judged."""

    def __init__(self, findings: Findings, found: Found, index: int) -> None:
        self.findings = findings
        self.found = found
        self.index = index
        self.command = found.command
        self.words = found.command.words

    def judge(self) -> None:
        name = self.words[0].value
        if name is None:
            self._keep("unknown", f"the command's name is not literal: {self.words[0].undecided_because}")
            return
        resolution = self._resolve(name)
        self._judge_environment(name, resolution)
        reason = None
        # In another shell a name may be a program that bash has as a builtin: then both are judged.
        either = resolution == "function_or_program" or (resolution == "program" and not self.found.wrapped)
        if name in BUILTINS and (resolution == "builtin" or either):
            reason = self._judge_builtin(name)
        if resolution in ("program", "function_or_program"):
            reason = self._judge_program(name) or reason
        self._keep(resolution, reason)

    def _keep(self, resolution: Resolution, reason: str | None) -> None:
        if reason is not None:
            self.findings.add_undecided(self.command.span, reason)
        if resolution != self.command.resolution or reason is not None:
            command = replace(self.command, resolution=resolution, undecided_because=reason)
            self.findings.commands[self.index] = replace(self.found, command=command)

    def _resolve(self, name: str) -> Resolution:
        if "/" in name:
            return "program"
        if self.found.wrapped:
            return "builtin" if self.found.via_builtin and name in BUILTINS else "program"
        definitions = self.findings.functions_by_name.get(name)
        if definitions:
            certain = self.found.source.level == 0 and not self.findings.unset_functions
            certain = certain and not (self.found.source.dialect == "posix" and name in BUILTINS)
            if certain and any(one.certain and one.order <= self.index for one in definitions):
                return "function"
            return "function_or_program"
        if self.found.source.dialect == "posix" and name not in POSIX_BUILTINS:
            return "program"
        return "builtin" if name in BUILTINS else "program"

    def _judge_environment(self, name: str, resolution: Resolution) -> None:
        exports = (
            resolution != "builtin"
            or name == "export"
            or (name in ("declare", "typeset", "local", "readonly") and self._has_export_option())
        )
        for assignment in self.command.assignments:
            known = assignment.value is not None and not assignment.appends
            value = assignment.value.value if known and assignment.value is not None else None
            if name == "read" and resolution == "builtin" and assignment.name == "IFS":
                continue
            why = (why_export_matters if exports else why_assignment_matters)(assignment.name, value)
            if why is not None:
                self.findings.add_undecided(assignment.span, why)

    def _has_export_option(self) -> bool:
        return any(
            word.value is not None and word.value.startswith("-") and "x" in word.value for word in self.words[1:]
        )

    # Programs.

    def _judge_program(self, name: str) -> str | None:
        base = name.rpartition("/")[2]
        if base in UNREADABLE:
            return f"{base} {UNREADABLE[base]}" if len(self.words) > 1 or base not in _SAFE_ALONE else None
        if _LOADER.fullmatch(base) is not None:
            return "the dynamic loader runs the file that its arguments name"
        if base in WRAPPERS or base in SHELLS or base == "find":
            if base in ("exec", "command", "builtin"):
                return None
            return self._add(unwrap(base, self.words, self.found.source.text), base)
        return None

    def _add(self, unwrapped: Unwrapped, base: str, *, builtin: bool = False) -> str | None:
        for name, value, span in unwrapped.environment:
            if (why := why_export_matters(name, value)) is not None:
                self.findings.add_undecided(span, why)
        for words in unwrapped.commands:
            if self.found.wrapped >= limits.SHELL_WRAPPERS_MAX:
                return f"more than {limits.SHELL_WRAPPERS_MAX} wrappers around one command"
            span = (words[0].span[0], words[-1].span[1])
            command = SimpleCommand(
                words,
                (),
                (),
                (min(span), max(span)),
                " ".join(word.text for word in words),
                (*self.command.via, f"wrapper {base}"),
            )
            self.findings.add_command(
                Found(
                    command,
                    self.found.source,
                    wrapped=self.found.wrapped + 1,
                    in_function=self.found.in_function,
                    via_builtin=builtin,
                )
            )
        for text, span, dialect in unwrapped.texts:
            self._read_text(text, span, dialect, f"wrapper {base}")
        return unwrapped.undecided_because

    def _read_text(self, text: str, span: Span, dialect: str, via: str) -> None:
        level = self.found.source.level + 1
        if level > limits.SHELL_TEXT_LEVELS_MAX:
            self.findings.add_undecided(span, f"texts within texts deeper than {limits.SHELL_TEXT_LEVELS_MAX} levels")
            return
        source = Source(text, span, dialect=dialect, level=level)
        try:
            read_source(source, self.findings, via=(*self.command.via, via), in_function=self.found.in_function)
        except CannotRead as error:
            self.findings.add_undecided(error.span, error.because)

    # Builtins.

    def _judge_builtin(self, name: str) -> str | None:
        effect = BUILTINS[name][0]
        if effect == "plain":
            return None
        if effect == "never":
            return f"{name} {BUILTINS[name][1]}" if len(self.words) > 1 else None
        if effect == "arguments":
            return f"{name} {BUILTINS[name][1]}" if len(self.words) > 1 else None
        if effect == "wrapper":
            if name == "builtin" and self.found.source.dialect == "posix":
                return "builtin is no builtin of every shell"
            return self._add(unwrap(name, self.words, self.found.source.text), name, builtin=name != "exec")
        return _EFFECTS[effect](self)

    def _values(self) -> list[str] | None:
        """The literal arguments, or None when one is not."""
        values = [word.value for word in self.words[1:]]
        return None if None in values else [value for value in values if value is not None]

    def _assign(self, word: Word) -> str | None:
        """Note that a builtin assigns any text to the variable that ``word`` names."""
        if word.value is None:
            return _UNKNOWN_ARGUMENT
        if NAME.fullmatch(word.value) is None:
            return "the subscript of a name that is assigned is evaluated"
        self.findings.assign(word.value, word.span, number=False)
        return why_assignment_matters(word.value, None)

    def eval(self) -> str | None:
        words = self.words[1:]
        if words and words[0].value == "--":
            words = words[1:]
        if not words:
            return None
        if any(word.value is None for word in words):
            return "eval runs a text that is not literal"
        text = " ".join(word.value or "" for word in words)
        self._read_text(text, (words[0].span[0], words[-1].span[1]), self.found.source.dialect, "eval")
        return None

    def trap(self) -> str | None:
        words = list(self.words[1:])
        if words and words[0].value in ("-l", "-p"):
            return None
        if words and words[0].value == "--":
            del words[0]
        if len(words) < 2:
            return None if all(word.value is not None for word in words) else _UNKNOWN_ARGUMENT
        action = words[0]
        if action.value is None:
            return "trap runs a text that is not literal"
        if action.value not in ("", "-") and not action.value.isdigit():
            self._read_text(action.value, action.span, self.found.source.dialect, "trap")
        return None

    def test(self) -> str | None:
        words = list(self.words[1:])
        if self.words[0].value == "[" and words:
            if words[-1].value != "]":
                return _UNKNOWN_ARGUMENT if words[-1].value is None else None
            del words[-1]
        for index, word in enumerate(words):
            if word.may_split:
                variable = _ONE_VARIABLE.fullmatch(word.text)
                if variable is None:
                    return _UNKNOWN_ARGUMENT
                # A number, or nothing: as harmless here as in arithmetic, and as harmful when it is any text.
                self.findings.use_in_arithmetic(variable[1] or variable[2], word.span)
                words[index] = replace(word, value="0")
        while words and words[0].value == "!" and len(words) > 1:
            del words[0]
        values = [word.value for word in words]
        if None not in values:
            return self._literal_test(values)
        if len(words) == 1:
            return None
        if len(words) == 2 and values[0] in _UNARY_TESTS and values[0] not in ("-v", "-R"):
            return None
        if len(words) == 3 and values[1] in _BINARY_TESTS:
            return None
        return self._joined_test(words)

    def _joined_test(self, words: list[Word]) -> str | None:
        """``A -a B -o C`` where every part alone is decided whatever its unknown words are."""
        values = [word.value for word in words]
        start = 0
        while True:
            if len(words) - start >= 3 and values[start + 1] in _BINARY_TESTS:
                # An unknown first word could be a unary operator, a parenthesis or a negation.
                if values[start] is None or values[start] in ("!", "("):
                    return _UNKNOWN_ARGUMENT
                start += 3
            elif len(words) - start >= 2 and values[start] in _UNARY_TESTS - {"-v", "-R"}:
                start += 2
            else:
                return _UNKNOWN_ARGUMENT
            if start == len(words):
                return None
            if values[start] not in ("-a", "-o"):
                return _UNKNOWN_ARGUMENT
            start += 1

    def _literal_test(self, values: Sequence[str | None]) -> str | None:
        for operator, operand in itertools.pairwise(values):
            if operator in ("-v", "-R") and operand is not None and "[" in operand:
                return "the subscript of a name that is tested is evaluated"
        return None

    def printf(self) -> str | None:
        if len(self.words) < 2:
            return None
        first = self.words[1]
        head = first.value if first.value is not None else first.pattern[0] if first.pattern else None
        if head is None or (first.value is None and (first.may_split and head.startswith("-"))):
            return _UNKNOWN_ARGUMENT
        if not head.startswith("-v"):
            return _UNKNOWN_ARGUMENT if first.value is None and head in ("", "-") else None
        if head != "-v" or first.value is None or len(self.words) < 3:
            return "printf -v in a form that is not read"
        return self._assign(self.words[2])

    def read(self) -> str | None:
        index = 1
        while index < len(self.words):
            value = self.words[index].value
            if value is None:
                return _UNKNOWN_ARGUMENT
            if value == "--":
                index += 1
                break
            if not value.startswith("-") or value == "-":
                break
            index += 1
            for at, letter in enumerate(value[1:], start=1):
                if letter in "rs":
                    continue
                if letter in "dnNptua":
                    rest = value[at + 1 :]
                    word = self.words[index - 1] if rest else self.words[index] if index < len(self.words) else None
                    if word is None or word.may_split:
                        return _UNKNOWN_ARGUMENT
                    if not rest:
                        index += 1
                    if letter == "a":
                        if rest:
                            return "read -a in a form that is not read"
                        self.findings.arrays.add(word.value or "")
                        if (reason := self._assign(word)) is not None:
                            return reason
                    break
                return f"read with the option -{letter}, which is not read"
        names = self.words[index:]
        if not names:
            self.findings.assign("REPLY", self.command.span, number=False)
        for word in names:
            if (reason := self._assign(word)) is not None:
                return reason
        return None

    def mapfile(self) -> str | None:
        names = []
        index = 1
        while index < len(self.words):
            value = self.words[index].value
            if value is None:
                return _UNKNOWN_ARGUMENT
            if value == "-t":
                index += 1
            elif value in ("-d", "-n", "-O", "-s", "-u"):
                if index + 1 < len(self.words) and self.words[index + 1].may_split:
                    return _UNKNOWN_ARGUMENT
                index += 2
            elif value.startswith("-"):
                return f"mapfile with the option {value}, which is not read"
            else:
                names.append(self.words[index])
                index += 1
        self.findings.arrays.update(word.value or "" for word in names)
        if not names:
            self.findings.assign("MAPFILE", self.command.span, number=False)
        for word in names:
            if (reason := self._assign(word)) is not None:
                return reason
        return None

    def getopts(self) -> str | None:
        self.findings.assign("OPTARG", self.command.span, number=False)
        if len(self.words) < 3:
            return None
        if self.words[1].may_split:
            return _UNKNOWN_ARGUMENT
        return self._assign(self.words[2])

    def wait(self) -> str | None:
        for index, word in enumerate(self.words[1:], start=1):
            if word.value is None:
                variable = _ONE_VARIABLE.fullmatch(word.text.strip('"'))
                if variable is not None:
                    self.findings.use_in_arithmetic(variable[1] or variable[2], word.span)
                elif word.text not in ("$!", '"$!"'):
                    return _UNKNOWN_ARGUMENT
            elif word.value.startswith("-") and "p" in word.value:
                if word.value != "-p" or index + 1 >= len(self.words):
                    return "wait -p in a form that is not read"
                return self._assign(self.words[index + 1])
        return None

    def declare(self) -> str | None:
        name = self.words[0].value
        assigned = {assignment.span: assignment for assignment in self.command.assignments}
        exports = name == "export"
        arrays = False
        for word in self.words[1:]:
            if (assignment := assigned.get(word.span)) is not None and word.text[:1] not in "-+":
                if (reason := self._declared(assignment, arrays=arrays)) is not None:
                    return reason
                continue
            value = word.value
            if value is None:
                return _UNKNOWN_ARGUMENT
            if value.startswith(("-", "+")) and len(value) > 1:
                if set(value[1:]) - set("aAfFgprtux" if name not in ("export", "readonly") else "aAfnp"):
                    return f"{name} {value} changes how values are evaluated or what a name means"
                exports |= "x" in value
                arrays |= "a" in value or "A" in value
                if name == "export" and "f" in value:
                    return "an exported function reaches every bash below"
            elif NAME.fullmatch(value) is None:
                return "a name to declare whose value or subscript is evaluated"
            elif arrays:
                self.findings.arrays.add(value)
            elif exports and (why := why_export_matters(value, None)) is not None:
                return why
        return None

    def _declared(self, assignment: Assignment, *, arrays: bool) -> str | None:
        """Why a declared value may be evaluated: one for an array that begins with a parenthesis is read as a list.

        The variable can have become an array before, so a literal parenthesis is refused without ``-a`` too.
        """
        value = assignment.value
        if value is None:
            return None
        head = value.pattern[0] if value.pattern else ""
        if (head is None and arrays) or (head is not None and head.startswith("(")):
            return "a declared array takes a value for a list and evaluates it"
        if head is None:
            self.findings.declare_unknown(assignment.name, assignment.span)
        return None

    def unset(self) -> str | None:
        self.findings.unset_functions = True
        for word in self.words[1:]:
            if word.value is None:
                return _UNKNOWN_ARGUMENT
            if word.value in ("-f", "-v"):
                continue
            if NAME.fullmatch(word.value) is None:
                return "the subscript of a name that is unset is evaluated"
            if (why := why_assignment_matters(word.value, None)) is not None:
                return why
        return None

    def let(self) -> str | None:
        for word in self.words[1:]:
            if word.value is None:
                return "let evaluates a text that is not literal"
            source = Source(
                word.value + "]", word.span, dialect=self.found.source.dialect, level=self.found.source.level
            )
            scanner = Grammar(source, self.findings, via=self.command.via, depth=0, in_function=self.found.in_function)
            try:
                if "$" in word.value or "`" in word.value:
                    return "let evaluates a text with expansions in it"
                scanner.read_arithmetic("]")
            except CannotRead as error:
                return error.because
            if scanner.pos < scanner.end:
                return "let evaluates a text that is not arithmetic"
        return None

    def set(self) -> str | None:
        index = 1
        while index < len(self.words):
            value = self.words[index].value
            if value is None:
                return _UNKNOWN_ARGUMENT
            if value in ("--", "-") or value[:1] not in ("-", "+"):
                return None
            if value in ("-o", "+o") and index + 1 == len(self.words):
                return None
            if set(value[1:]) - _SET_LETTERS - {"o"}:
                return f"set {value} changes how text is read or what runs"
            index += 1
            if "o" in value:
                name = self.words[index].value if index < len(self.words) else None
                if name not in _SET_NAMES:
                    return "set -o with an option that changes how text is read, or is not known"
                index += 1
        return None

    def shopt(self) -> str | None:
        values = self._values()
        if values is None:
            return _UNKNOWN_ARGUMENT
        names = [value for value in values if not value.startswith("-")]
        options = [value for value in values if value.startswith("-")]
        if any(set(option[1:]) - set("suqp") for option in options):
            return "shopt with an option that is not read"
        if any("s" in option or "u" in option for option in options) and not set(names) <= _SHOPT_NAMES:
            return "shopt switches an option that changes how text is read"
        return None

    def hash(self) -> str | None:
        values = self._values()
        if values is None:
            return _UNKNOWN_ARGUMENT
        if any(value.startswith("-") and "p" in value for value in values):
            return "hash -p chooses which file a command name means"
        return None

    def jobs(self) -> str | None:
        values = self._values()
        if values is None:
            return _UNKNOWN_ARGUMENT
        if not any(value.startswith("-") and "x" in value for value in values):
            return None
        if values[0] == "-x" and len(values) > 1 and not values[1].startswith("-"):
            return self._add(Unwrapped(commands=(self.words[2:],)), "jobs", builtin=True)
        return "jobs -x in a form that is not read"


_EFFECTS: Final[dict[str, Callable[[_Judge], str | None]]] = {
    "eval": _Judge.eval,
    "trap": _Judge.trap,
    "test": _Judge.test,
    "printf": _Judge.printf,
    "read": _Judge.read,
    "mapfile": _Judge.mapfile,
    "getopts": _Judge.getopts,
    "wait": _Judge.wait,
    "declare": _Judge.declare,
    "unset": _Judge.unset,
    "let": _Judge.let,
    "set": _Judge.set,
    "shopt": _Judge.shopt,
    "hash": _Judge.hash,
    "jobs": _Judge.jobs,
}
_SAFE_ALONE: Final = frozenset({"at", "batch", "crontab", "tmux", "screen"})
_ONE_VARIABLE: Final = re.compile(r"\$(?:([A-Za-z_][A-Za-z0-9_]*)|\{([A-Za-z_][A-Za-z0-9_]*)\})")
