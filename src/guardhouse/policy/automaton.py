"""Finite automata over several languages at once: which of them can still match, and the shortest text that does.

Each language becomes a Glushkov automaton: one *position* a character class of its expression, no silent steps. The
state of a `Machine` is the set of positions that the text so far can have reached in any of its languages, so one
walk answers for all rules of one policy, or of two. States are built as they are needed, with a bound.

Knows nothing of rules or actions. Pure.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from guardhouse.policy.language import Chars, Choice, Concat, Language, Repeat

__all__ = ["Machine", "State", "TooManySteps"]

State = frozenset[int]


class TooManySteps(Exception):  # noqa: N818 - an answer of this package, turned into "undecided" or a message
    """The question would take more work than its bound."""


@dataclass(slots=True)
class _Piece:
    """A part of an expression: can it be empty, where does it begin and end."""

    nullable: bool
    first: list[int]
    last: list[int]


class Machine:
    """Positions of all languages, numbered through; language ``i`` begins at position ``starts[i]``.

    ``max_steps`` bounds the positions looked at over the machine's life, which is what its answers cost; the
    positions themselves count as well. Past it, every question raises `TooManySteps`.
    """

    def __init__(self, languages: Sequence[Language], *, max_steps: int) -> None:
        self._steps_left = max_steps
        self._chars: list[Chars] = []
        self._follow: list[set[int]] = []
        self.owner: list[int] = []
        self._final: list[bool] = []
        starts: list[int] = []
        for index, language in enumerate(languages):
            start = self._add(Chars(frozenset()), index)
            piece = self._build(language, index)
            self._follow[start].update(piece.first)
            for position in piece.last:
                self._final[position] = True
            self._final[start] = piece.nullable
            starts.append(start)
        self.starts: tuple[int, ...] = tuple(starts)
        self._universal = [self._is_universal(position) for position in range(len(self._chars))]

    def start_state(self) -> State:
        """The state before any character."""
        return frozenset(self.starts)

    def accepting(self, state: State) -> set[int]:
        """Indices of the languages that hold the text which led here."""
        return {self.owner[position] for position in state if self._final[position]}

    def universal(self, state: State) -> set[int]:
        """Indices of languages that hold this text and every text that begins with it (found by shape: sound)."""
        return {self.owner[position] for position in state if self._universal[position]}

    def live(self, state: State) -> set[int]:
        """Indices of the languages that may still hold a text which begins so."""
        return {self.owner[position] for position in state}

    def without(self, state: State, is_dropped: Callable[[int], bool]) -> State:
        """Forget the positions of some languages."""
        return frozenset(position for position in state if not is_dropped(self.owner[position]))

    def step(self, state: State, char: str) -> State:
        """The state after one more character."""
        chars = self._chars
        self._spend(len(state))
        return frozenset(
            target for position in state for target in self._follow[position] if chars[target].admits(char)
        )

    def alphabet(self, state: State) -> Iterator[str]:
        """Yield one character for each way in which the next step can differ, readable ones first.

        Every character that no class of the possible next positions names behaves like any other such; one of them
        stands for all.
        """
        targets = {target for position in state for target in self._follow[position]}
        self._spend(len(targets))
        named: set[str] = set()
        open_ended = False
        for target in targets:
            chars = self._chars[target]
            named |= chars.members
            open_ended = open_ended or chars.negated
        if open_ended:
            yield _other_than(named)
        yield from sorted(named, key=_readability)

    def _spend(self, steps: int) -> None:
        self._steps_left -= steps
        if self._steps_left < 0:
            raise TooManySteps

    def _add(self, chars: Chars, owner: int) -> int:
        # Making a position costs about as much as four looks at one.
        self._spend(4)
        self._chars.append(chars)
        self._follow.append(set())
        self._final.append(False)
        self.owner.append(owner)
        return len(self._chars) - 1

    def _build(self, language: Language, owner: int) -> _Piece:
        if isinstance(language, str):
            return self._build_text(language, owner)
        if isinstance(language, Chars):
            position = self._add(language, owner)
            return _Piece(nullable=False, first=[position], last=[position])
        if isinstance(language, Repeat):
            piece = self._build(language.inner, owner)
            self._spend(len(piece.last) * len(piece.first))
            for position in piece.last:
                self._follow[position].update(piece.first)
            return _Piece(piece.nullable or language.minimum == 0, piece.first, piece.last)
        if isinstance(language, Choice):
            pieces = [self._build(option, owner) for option in language.options]
            return _Piece(
                nullable=any(piece.nullable for piece in pieces),
                first=[position for piece in pieces for position in piece.first],
                last=[position for piece in pieces for position in piece.last],
            )
        return self._build_concat(language, owner)

    def _build_text(self, value: str, owner: int) -> _Piece:
        if not value:
            return _Piece(nullable=True, first=[], last=[])
        positions = [self._add(Chars(frozenset(char)), owner) for char in value]
        for position in positions[:-1]:
            self._follow[position].add(position + 1)
        return _Piece(nullable=False, first=positions[:1], last=positions[-1:])

    def _build_concat(self, language: Concat, owner: int) -> _Piece:
        whole = _Piece(nullable=True, first=[], last=[])
        for part in language.parts:
            piece = self._build(part, owner)
            self._spend(len(whole.last) * len(piece.first))
            for position in whole.last:
                self._follow[position].update(piece.first)
            whole = _Piece(
                nullable=whole.nullable and piece.nullable,
                first=whole.first + piece.first if whole.nullable else whole.first,
                last=whole.last + piece.last if piece.nullable else piece.last,
            )
        return whole

    def _is_universal(self, position: int) -> bool:
        return self._final[position] and any(
            self._final[target]
            and target in self._follow[target]
            and self._chars[target].negated
            and not self._chars[target].members
            for target in self._follow[position]
        )


def _other_than(named: set[str]) -> str:
    for char in "xyzabcdefghijklmnopqrstuvw0123456789_":
        if char not in named:
            return char
    code = 0xA1
    while chr(code) in named:
        code += 1
    return chr(code)


def _readability(char: str) -> tuple[int, str]:
    if char.isascii() and char.isalnum():
        return (0, char)
    return (1 if char == "\0" else 2, char)
