"""One simple command against the rules: what the words say, and what they leave to gate two.

The order of the questions is the design. Rules first: a command they deny is denied. Only an allowed command is asked
whether its words show all that it does: a program whose file is not known, a program that may start others, a word
that is not known. Each of those turns *allow* into *undecided*, never the other way round.

Takes the reader's values; reads no text. Pure.
"""

from collections.abc import Sequence
from typing import Final

from guardhouse.limits import POLICY_UNKNOWN_MAX_QUESTIONS
from guardhouse.policy.automaton import TooManySteps
from guardhouse.policy.decision import CommandDecision
from guardhouse.policy.destinations import Argument, why_connects_elsewhere
from guardhouse.policy.knowledge import is_known, why_starts_others
from guardhouse.policy.language import SEPARATOR, Language, concat
from guardhouse.policy.model import INHERIT, Context, Policy, Rule
from guardhouse.policy.reordered import Spellings, respelled_rules
from guardhouse.policy.rulebook import Match, Rulebook, action_of, rulebook_of
from guardhouse.policy.same_deed import OPERANDS_MAX, plainer_commands
from guardhouse.policy.shell import SimpleCommand, Word
from guardhouse.policy.shell.wrappers import WRAPPERS
from guardhouse.policy.subjects import without_dots
from guardhouse.policy.word_language import ANY_WORD, argument_language, program_language, word_language
from guardhouse.values import Verdict

__all__ = ["Judge", "program_names"]

# Builtins that only steer the shell itself: part of its syntax in all but name. They need no rule of their own, and
# lose nothing when a rule names them. Source: bash(1), "Shell Builtin Commands".
_FLOW: Final = frozenset({"break", "continue", "return", "exit"})
# Builtins whose arguments are assignments; those are judged as assignments are.
_DECLARATIONS: Final = frozenset({"export", "readonly", "local", "declare", "typeset"})
_DECLARATION_OPTIONS: Final = frozenset({"-x", "-r", "-g", "-a", "-A", "-l", "-u", "--", "+x", "-rx", "-gx"})


def canonical_program(name: str) -> str:
    """Collapse doubled slashes and ``.`` parts of a path, which changes nothing; a plain name stays as it is."""
    if "/" not in name:
        return name
    relative = not name.startswith("/")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if relative and "/" not in "/".join(parts):
        return "./" + "/".join(parts)
    return ("" if relative else "/") + "/".join(parts)


def program_names(name: str, trusted_path: Sequence[str]) -> tuple[str, ...]:
    """Return the names under which rules may know a program: its path, and its plain name where that is trusted."""
    canonical = canonical_program(name)
    directory, slash, plain = canonical.rpartition("/")
    if slash and directory in trusted_path and plain:
        return (canonical, plain)
    return (canonical,)


class Judge:
    """Judges the commands of one text under one policy and context."""

    def __init__(self, policy: Policy, context: Context) -> None:
        book = rulebook_of(policy)
        assert book is not None  # noqa: S101 - `bash` always has a rulebook
        self._book: Rulebook = book
        self._policy = policy
        self._context = context
        self.allows_everything = book.allows_everything(context)
        self.denies_everything = book.denies_everything(context)
        self._answers: dict[Language, list[Rule | None]] = {}
        self._questions_left = POLICY_UNKNOWN_MAX_QUESTIONS

    def judge(self, command: SimpleCommand, *, is_unwrapped: bool) -> CommandDecision:
        """Decide one command.

        Args:
            is_unwrapped: the reader found the programs that this command starts and lists them by themselves.
        """
        argv = command.argv
        if argv is not None:
            return self._judge_literal(command, argv, is_unwrapped=is_unwrapped)
        return self._judge_unknown(command, is_unwrapped=is_unwrapped)

    def unnamed(self) -> Verdict:
        """The verdict on a program that no rule can name: code whose program is not known."""
        if self.allows_everything:
            return Verdict.ALLOW
        name = "\x01"
        match = self._book.find([name], self._context)
        return Verdict.UNDECIDED if match.winner and match.winner.action is not Verdict.DENY else Verdict.DENY

    def _judge_literal(self, command: SimpleCommand, argv: tuple[str, ...], *, is_unwrapped: bool) -> CommandDecision:
        names = program_names(argv[0], self._policy.trusted_path)
        match = self._find(names, argv[1:])
        verdict = action_of(match.winner)
        if verdict is not Verdict.ALLOW:
            free = self._judge_shell_own(command, match)
            if free is not None:
                return free
            return _decided(command, argv, verdict, match.winner, match.tried, _why_rule(argv, match.winner))
        if self.allows_everything:
            return _decided(command, argv, verdict, match.winner, match.tried, "the policy allows every command")
        stricter = self._judge_normalised(command, argv, names, match) or self._judge_plainer(
            command, argv, names, match
        )
        if stricter is not None:
            return stricter
        doubt = self._doubt(command, names, list(argv[1:]), match, is_unwrapped=is_unwrapped)
        if doubt:
            return _undecided(command, argv, match.winner, match.tried, doubt)
        return _decided(command, argv, verdict, match.winner, match.tried, _why_rule(argv, match.winner))

    def _find(self, names: Sequence[str], arguments: Sequence[str]) -> Match:
        return self._book.find((SEPARATOR.join((name, *arguments)) for name in names), self._context)

    def _judge_shell_own(self, command: SimpleCommand, match: Match) -> CommandDecision | None:
        """Functions of the text, and builtins that are the shell's own syntax, need no rule unless one names them."""
        argv = command.argv
        if argv is None or self.denies_everything or (match.winner is not None and match.winner.programs):
            return None
        if command.resolution == "function":
            because = f"{argv[0]} is a function of this text; what it runs is judged where it stands"
            return _decided(command, argv, Verdict.ALLOW, None, match.tried, because)
        if command.resolution == "function_or_program":
            because = f"{argv[0]} may be a function of this text or the program of that name"
            return _undecided(command, argv, None, match.tried, because)
        if command.resolution != "builtin" or command.undecided_because or _writes(command):
            return None
        if argv[0] in _FLOW:
            because = f"{argv[0]} only steers the shell"
            return _decided(command, argv, Verdict.ALLOW, None, match.tried, because)
        if argv[0] in _DECLARATIONS and _only_declares(argv[1:]):
            because = f"{argv[0]} sets variables, which are judged by themselves"
            return _decided(command, argv, Verdict.ALLOW, None, match.tried, because)
        return None

    def _judge_normalised(
        self, command: SimpleCommand, argv: tuple[str, ...], names: tuple[str, ...], match: Match
    ) -> CommandDecision | None:
        """A path written with ``..`` must also be allowed as the path that it means."""
        if not any(".." in word for word in argv):
            return None
        normalised = tuple(without_dots(word) for word in argv[1:])
        program = without_dots(argv[0])
        if normalised == argv[1:] and program == argv[0]:
            return None
        names = program_names(program, self._policy.trusted_path) if program != argv[0] else names
        other = self._find(names, normalised)
        verdict = action_of(other.winner)
        if verdict is Verdict.ALLOW:
            return None
        meant = " ".join((program, *normalised))
        if other.position > match.position:
            because = f"it means {meant!r}, and that matches {_say(other.winner)}"
            return _decided(command, argv, verdict, other.winner, other.tried, because)
        because = f"it is allowed as written, but with '..' resolved it reads {meant!r}, which is not"
        return _undecided(command, argv, match.winner, match.tried, because)

    def _judge_plainer(
        self, command: SimpleCommand, argv: tuple[str, ...], names: tuple[str, ...], match: Match
    ) -> CommandDecision | None:
        """A later rule may deny, or ask about, the same deed in plainer words (same_deed.py)."""
        plain = names[-1]
        if not self._book.may_refuse_later(plain, match.position):
            return None
        commands = plainer_commands(plain, argv[1:], named=self._book.operands_named(plain))
        doubt = (
            None if commands is not None else f"a later rule could name any of its more than {OPERANDS_MAX} operands"
        )
        for arguments in commands or ():
            other = self._find(names, arguments)
            if (
                other.winner is not None
                and other.position > match.position
                and action_of(other.winner) != Verdict.ALLOW
            ):
                because = f"it does what {' '.join((plain, *arguments))!r} does, and that matches {other.winner.says()}"
                return _decided(command, argv, other.winner.action, other.winner, other.tried, because)
            doubt = doubt or self._doubt_spelling(plain, arguments, match)
        return _undecided(command, argv, match.winner, match.tried, doubt) if doubt else None

    def _doubt(
        self,
        command: SimpleCommand,
        names: tuple[str, ...],
        arguments: Sequence[str | None],
        match: Match,
        *,
        is_unwrapped: bool,
    ) -> str | None:
        """Why an allowed command may do more than its words show, or None."""
        winner = match.winner
        if winner is None:
            return None
        accepts_children = winner.children == INHERIT and command.resolution == "program"
        if command.undecided_because and not accepts_children:
            return command.undecided_because
        if command.resolution == "unknown":
            return "what the command's name means is not known here"
        if command.resolution == "function":
            return None
        plain = names[-1]
        respelled = self._doubt_spelling(plain, arguments, match)
        if respelled:
            return respelled
        if winner.is_glob:
            words = [Argument(_known_start(word), is_whole=word.value is not None) for word in command.words[1:]]
            elsewhere = why_connects_elsewhere(winner.match, plain.rpartition("/")[2], words)
            if elsewhere:
                return elsewhere
        is_path = "/" in plain
        if command.resolution == "builtin":
            return None
        if is_path:
            doubt = self._doubt_path(plain, arguments, match)
            if doubt:
                return doubt
        if accepts_children:
            return None
        # The reader takes wrappers apart, and says so where it cannot.
        if not is_unwrapped and plain not in WRAPPERS:
            why = why_starts_others(plain.rpartition("/")[2], arguments)
            if why:
                return why
        # Several programs in one rule, or an open first word: no rule names this program by itself.
        if not winner.programs and not is_known(plain) and plain not in WRAPPERS and not is_unwrapped:
            return f"{winner.says()} names no program, and what {plain!r} starts is not known"
        return None

    def _doubt_spelling(self, program: str, arguments: Sequence[str | None], match: Match) -> str | None:
        """A later rule may deny the same command with its options moved, joined or written out (reordered.py)."""
        for position, rule, spellings in self._respelled(program):
            if position <= match.position or (rule.when is not None and rule not in self._later(match)):
                continue
            if None in arguments:
                language = concat([program, *(argument_language(argument) for argument in arguments)])
                hit = spellings.may_hold(language)
            else:
                hit = spellings.hold(SEPARATOR.join((program, *(word for word in arguments if word is not None))))
            if hit:
                return f"with its options in other places it reads like {rule.says()}, which says {rule.action.value}"
        return None

    def _respelled(self, program: str) -> list[tuple[int, Rule, Spellings]]:
        return respelled_rules(self._policy, program)

    def _later(self, match: Match) -> list[Rule]:
        return self._book.later_rules(match.position, self._context)

    def _doubt_path(self, program: str, arguments: Sequence[str | None], match: Match) -> str | None:
        """A path outside the trusted directories may be a link to any program; later, stricter rules may name that."""
        later = [rule for rule in self._later(match) if rule.action is not Verdict.ALLOW]
        if not later:
            return None
        language = concat([ANY_WORD, *(argument_language(argument) for argument in arguments)])
        book = Rulebook(later)
        try:
            self._spend_question()
            possible = book.find_possible(language, self._context)
        except TooManySteps:
            possible = list(later)
        hit = next((rule for rule in possible if rule is not None), None)
        if hit is None:
            return None
        return f"{program!r} may be a link to any program, and {hit.says()} could name it"

    def _judge_unknown(self, command: SimpleCommand, *, is_unwrapped: bool) -> CommandDecision:
        first = command.words[0].value
        names = program_names(first, self._policy.trusted_path) if first is not None else None
        if self.allows_everything:
            return _decided(command, None, Verdict.ALLOW, None, (), "the policy allows every command")
        if self.denies_everything:
            return _decided(command, None, Verdict.DENY, None, (), "the policy denies every command")
        possible = self._possible(command.words, names)
        unknown = next(word for word in command.words if word.value is None)
        reason = f"{_unknown_shown(unknown)}: {unknown.undecided_because or 'its value is not known from the text'}"
        if possible is None:
            return _undecided(
                command, None, None, (), f"{reason}; too many values are possible to compare with the rules"
            )
        verdicts = {action_of(rule) for rule in possible}
        rule = possible[0] if len(possible) == 1 else None
        tried = tuple(rule for rule in possible if rule is not None)
        if len(verdicts) > 1:
            return _undecided(command, None, None, tried, reason)
        verdict = verdicts.pop()
        if verdict is not Verdict.ALLOW:
            free = self._judge_function(command, tried)
            if free is not None:
                return free
            shown = f"whatever {_unknown_shown(unknown)} is, {_lower_first(_why_rule((first or unknown.text,), rule))}"
            return _decided(command, None, verdict, rule, tried, shown)
        if names is None:
            return _undecided(command, None, rule, tried, f"{reason}; it names the program")
        if not self._allows_any_value(command.words, names):
            because = f"{reason}; with '..' in it, it could name a path that no rule allows"
            return _undecided(command, None, rule, tried, because)
        weakest = next((rule for rule in tried if rule.children != INHERIT or not rule.programs), tried[0])
        position = min(self._book.position(rule) for rule in tried)
        arguments = [
            None if word.value is None and _may_be_option(word) else word.value or "x" for word in command.words[1:]
        ]
        doubt = self._doubt(command, names, arguments, Match(weakest, position, tried), is_unwrapped=is_unwrapped)
        if doubt:
            return _undecided(command, None, rule, tried, doubt)
        because = f"whatever {_unknown_shown(unknown)} is, {_lower_first(_why_rule((first or '',), rule or tried[0]))}"
        return _decided(command, None, Verdict.ALLOW, rule, tried, because)

    def _allows_any_value(self, words: Sequence[Word], names: tuple[str, ...]) -> bool:
        """A word that is partly known may hold ``..`` and mean any path: then the rules must allow any."""
        if all(word.value is not None or word.pattern == (None,) for word in words[1:]):
            return True
        widened = [word if word.value is not None else _widened(word) for word in words]
        possible = self._possible(widened, names)
        return possible is not None and all(action_of(rule) is Verdict.ALLOW for rule in possible)

    def _judge_function(self, command: SimpleCommand, tried: tuple[Rule, ...]) -> CommandDecision | None:
        if any(rule.programs for rule in tried):
            return None
        if command.resolution == "function":
            because = f"{command.words[0].text} is a function of this text; what it runs is judged where it stands"
            return _decided(command, None, Verdict.ALLOW, None, tried, because)
        if command.resolution == "function_or_program":
            because = f"{command.words[0].text} may be a function of this text or the program of that name"
            return _undecided(command, None, None, tried, because)
        if (
            command.resolution == "builtin"
            and command.words[0].value in _DECLARATIONS | _FLOW
            and not (command.undecided_because or _writes(command))
            and all(_is_assignment_or_option(word) for word in command.words[1:])
        ):
            because = f"{command.words[0].value} sets variables, which are judged by themselves"
            return _decided(command, None, Verdict.ALLOW, None, tried, because)
        return None

    def _ask(self, command: Language) -> list[Rule | None]:
        """Ask the rules about every value of a command's unknown words; equal questions are asked once a text.

        Raises:
            TooManySteps: this question, or this text, asks too much.
        """
        if command not in self._answers:
            self._spend_question()
            self._answers[command] = self._book.find_possible(command, self._context)
        return self._answers[command]

    def _spend_question(self) -> None:
        self._questions_left -= 1
        if self._questions_left < 0:
            raise TooManySteps

    def _possible(self, words: Sequence[Word], names: tuple[str, ...] | None) -> list[Rule | None] | None:
        """Every rule that may decide; None when that could not be found out."""
        rest = [word_language(word) for word in words[1:]]
        heads: list[Language] = list(names) if names is not None else [program_language(words[0])]
        found: list[Rule | None] = []
        for head in heads:
            try:
                found += self._ask(concat([head, *rest]))
            except TooManySteps:
                return None
        unique: list[Rule | None] = []
        for rule in found:
            if not any(rule is kept for kept in unique):
                unique.append(rule)
        if len(heads) > 1:
            return self._over_names(unique, heads, rest)
        return unique

    def _over_names(
        self, found: list[Rule | None], heads: Sequence[Language], rest: Sequence[Language]
    ) -> list[Rule | None] | None:
        """One program under two names: a rule that matches under either counts, so no winner is behind both minima."""
        positions: list[list[int]] = []
        for head in heads:
            try:
                rules = self._ask(concat([head, *rest]))
            except TooManySteps:
                return None
            positions.append([self._book.position(rule) for rule in rules])
        floor = max(min(each) for each in positions)
        return [rule for rule in found if self._book.position(rule) >= floor]


def _only_declares(arguments: Sequence[str]) -> bool:
    """Whether a declaration names a variable; without one it would print them all."""
    names = [word for word in arguments if not word.startswith(("-", "+"))]
    options = [word for word in arguments if word.startswith(("-", "+"))]
    return bool(names) and all(word in _DECLARATION_OPTIONS for word in options)


def _decided(
    command: SimpleCommand,
    argv: tuple[str, ...] | None,
    verdict: Verdict,
    rule: Rule | None,
    tried: tuple[Rule, ...],
    because: str,
) -> CommandDecision:
    return CommandDecision(
        text=command.text,
        argv=argv,
        verdict=verdict,
        rule=rule,
        span=command.span,
        because=because,
        # What the rules refuse may still do more than it shows; what they allow was asked about that.
        undecided_because=None if verdict is Verdict.ALLOW else command.undecided_because,
        tried=tried,
        via=command.via,
    )


def _undecided(
    command: SimpleCommand,
    argv: tuple[str, ...] | None,
    rule: Rule | None,
    tried: tuple[Rule, ...],
    because: str,
) -> CommandDecision:
    return CommandDecision(
        text=command.text,
        argv=argv,
        verdict=Verdict.UNDECIDED,
        rule=rule,
        span=command.span,
        because=because,
        undecided_because=because,
        tried=tried,
        via=command.via,
    )


def _why_rule(argv: Sequence[str], rule: Rule | None) -> str:
    shown = " ".join(argv)
    if rule is None:
        return f"No rule matches {shown!r}, and what no rule allows is denied"
    reason = f": {rule.because}" if rule.because else ""
    return f"{shown!r} matches {rule.says()}{reason}"


def _unknown_shown(word: Word) -> str:
    """A word as written; one that a wrapper appends from its input is written nowhere."""
    return repr(word.text) if word.text else "a word from the input"


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


def _say(rule: Rule | None) -> str:
    return rule.says() if rule else "no rule"


def _writes(command: SimpleCommand) -> bool:
    return any(redirection.kind in ("write", "append", "read_write") for redirection in command.redirections)


def _known_start(word: Word) -> str:
    """What a word, or the first of the words that it becomes, certainly begins with."""
    start = word.value if word.value is not None else word.pattern[0] if word.pattern else None
    return start if start is not None and (word.value is not None or not word.may_split) else ""


def _may_be_option(word: Word) -> bool:
    start = word.pattern[0] if word.pattern else None
    return word.may_split or start is None or start == "" or start.startswith("-")


def _is_assignment_or_option(word: Word) -> bool:
    start = word.pattern[0] if word.pattern else None
    return (
        start is not None
        and not word.may_split
        and (word.value in _DECLARATION_OPTIONS or not start.startswith(("-", "+")))
    )


def _widened(word: Word) -> Word:
    return Word(word.text, word.span, None, (None,), word.undecided_because, word.may_split)
