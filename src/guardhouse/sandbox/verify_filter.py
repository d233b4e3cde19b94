"""Run a finished filter on questions whose answers follow from the rules, before anybody relies on it.

A compiler between rules and kernel can be wrong: libseccomp, as Debian 12 has it, with its binary tree
(CTL_OPTIMIZE=2) let socket(AF_INET, SOCK_STREAM, IPPROTO_ICMP) through on aarch64 although no rule says so,
depending on the other rules of the filter. So every program is simulated: each call that the architecture has, and
for conditional ones every combination of values that the rules name and their neighbours. Runs at boot and in the
CLI.
"""

import errno
import itertools
import struct
from collections.abc import Iterator, Mapping
from typing import Final

from guardhouse.errors import InvariantError
from guardhouse.sandbox.profile import FOREIGN_ARCHITECTURES
from guardhouse.sandbox.rules import Comparison, FilterRules, comparisons_of

__all__ = ["EXEC_CALLS", "Answers", "exchange_returns", "find_mismatch", "same_but_for_returns"]

EXEC_CALLS: Final = frozenset({"execve", "execveat"})

_ALLOW: Final = 0x7FFF0000
_LOAD, _AND, _RETURN, _JUMP = 0x20, 0x54, 0x06, 0x05
_EQUAL, _GREATER, _AT_LEAST, _ANY_BIT = 0x15, 0x25, 0x35, 0x45
_LOW_WORD: Final = 0xFFFFFFFF
_LAYOUT: Final = "=HBBI"  # struct sock_filter
_Instruction = tuple[int, int, int, int]


class Answers:
    """What a filter must answer: ``denial`` for what nothing permits, ``started`` for ``stopping`` where allowed."""

    def __init__(self, *, denial: int, started: int, stopping: frozenset[str] = EXEC_CALLS) -> None:
        self.denial = denial
        self.started = started
        self.stopping = stopping


def find_mismatch(
    program: bytes, rules: FilterRules, *, audit_arch: int, names: Mapping[str, int], newest: int, answers: Answers
) -> str | None:
    """Return one question that ``program`` answers otherwise than ``rules``, in words; None when there is none.

    Questions of one table: those of ``rules`` itself, without its foreign ones.
    """
    code = _decode(program)
    width_bits = 32 if rules.architecture in FOREIGN_ARCHITECTURES else 64
    permitted: dict[str, list[tuple[Comparison, ...]]] = {}
    for rule in rules.allow:
        permitted.setdefault(rule.call, []).extend(comparisons_of(rule, width_bits=width_bits))
    answered = {answer.call: 0x00050000 | getattr(errno, answer.errno) for answer in rules.answers}
    for call, number in names.items():
        alternatives = permitted.get(call, [])
        for arguments in _questions(alternatives):
            if number > newest:
                expected = 0x00050000 | errno.ENOSYS
            elif _permits(alternatives, arguments):
                expected = answers.started if call in answers.stopping else _ALLOW
            else:
                expected = answered.get(call, answers.denial)
            got = _run(code, audit_arch, number, arguments)
            if got != expected:
                words = ", ".join(f"{argument:#x}" for argument in arguments)
                return f"{call}({words}) of {rules.architecture} is answered {got:#x}, the rules say {expected:#x}"
    return None


def _permits(alternatives: list[tuple[Comparison, ...]], arguments: tuple[int, ...]) -> bool:
    # Loops: `any` and `all` over generators take three times as long, in every process that starts a launcher.
    for chosen in alternatives:
        for comparison in chosen:
            if arguments[comparison.argument] & comparison.mask != comparison.value:
                break
        else:
            return True
    return False


def same_but_for_returns(program: bytes, other: bytes, changed: Mapping[int, int]) -> bool:
    """Say whether ``other`` is ``program`` with the return values of ``changed`` exchanged, and nothing else."""
    return exchange_returns(program, changed) == other


def exchange_returns(program: bytes, changed: Mapping[int, int]) -> bytes:
    """Return ``program`` with the return values of ``changed`` exchanged."""

    def exchanged(instruction: _Instruction) -> _Instruction:
        operation, when_true, when_false, constant = instruction
        return operation, when_true, when_false, changed.get(constant, constant) if operation == _RETURN else constant

    return b"".join(struct.pack(_LAYOUT, *exchanged(instruction)) for instruction in _decode(program))


def _questions(alternatives: list[tuple[Comparison, ...]]) -> Iterator[tuple[int, ...]]:
    """Yield argument vectors: every combination of named values, each with a neighbour; one with a high bit."""
    columns: dict[int, set[int]] = {}
    for comparison in itertools.chain.from_iterable(alternatives):
        lowest = comparison.mask & -comparison.mask
        found = columns.setdefault(comparison.argument, {0, _LOW_WORD, comparison.value | 1 << 40})
        found |= {comparison.value, comparison.value ^ lowest}
    if not columns:
        yield (0,) * 6
        return
    for values in itertools.product(*(sorted(column) for column in columns.values())):
        arguments = [0] * 6
        for index, value in zip(columns, values, strict=True):
            arguments[index] = value
        yield tuple(arguments)


def _decode(program: bytes) -> list[_Instruction]:
    return list(struct.iter_unpack(_LAYOUT, program))


def _run(code: list[_Instruction], audit_arch: int, number: int, arguments: tuple[int, ...]) -> int:
    """Interpret classic BPF over struct seccomp_data (linux/seccomp.h), words in the order of its offsets."""
    words = [number, audit_arch, 0, 0]
    for argument in arguments:
        words += [argument & _LOW_WORD, argument >> 32]
    accumulator = at = 0
    end = len(code)
    while at < end:
        operation, when_true, when_false, constant = code[at]
        at += 1
        if operation == _EQUAL:
            at += when_true if accumulator == constant else when_false
        elif operation == _GREATER:
            at += when_true if accumulator > constant else when_false
        elif operation == _LOAD:
            accumulator = words[constant >> 2]
        elif operation == _RETURN:
            return constant
        elif operation == _AT_LEAST:
            at += when_true if accumulator >= constant else when_false
        elif operation == _ANY_BIT:
            at += when_true if accumulator & constant else when_false
        elif operation == _AND:
            accumulator &= constant
        elif operation == _JUMP:
            at += constant
        else:
            raise InvariantError(f"a compiled filter has instruction {operation:#x}, which is not in this interpreter")
    raise InvariantError("a compiled filter runs past its end")
