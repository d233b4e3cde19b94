"""The part of a filter that answers calls of a second table, as classic BPF of our own making.

Not by libseccomp: it takes ``socket`` of i386 for ``socketcall`` as well, whose arguments it cannot see, and refuses
conditions on both (libseccomp, arch-x86.c). What is made here is simulated against its rules like everything else
(`verify_filter.py`). Runs at boot and in the CLI.
"""

import errno
import struct
from collections.abc import Mapping, Sequence
from typing import Final

from guardhouse.sandbox.rules import Comparison, FilterRules, comparisons_of

__all__ = ["FOREIGN_AUDIT_ARCH", "second_table"]

# linux/audit.h AUDIT_ARCH_*, what seccomp_data.arch holds.
FOREIGN_AUDIT_ARCH: Final = {"i386": 0x40000003}

# linux/bpf_common.h, linux/seccomp.h.
_LOAD, _AND, _RETURN, _JUMP = 0x20, 0x54, 0x06, 0x05
_JUMP_EQUAL, _JUMP_GREATER, _JUMP_AT_LEAST = 0x15, 0x25, 0x35
_DATA_NR, _DATA_ARCH, _DATA_ARGUMENTS = 0, 4, 16
_RET_ERRNO: Final = 0x00050000
_RET_ALLOW: Final = 0x7FFF0000
_LOW_WORD: Final = 0xFFFFFFFF
# So few numbers are compared one after the other.
_LEAF: Final = 4
_STARTS: Final = frozenset({"execve", "execveat"})

_Instruction = tuple[int, int, int, int]
_Code = list[_Instruction]


def second_table(rules: FilterRules, names: Mapping[str, int], *, newest: int, denial: int, started: int) -> bytes:
    """Return instructions that answer every call of ``rules.architecture`` and let any other fall through.

    Args:
        names: every call known there, name to number.
        newest: the highest number that is not newer than the list; above it the answer is ENOSYS.
        denial: what a call that no rule permits is answered.
        started: what a permitted execve or execveat is answered.
    """
    blocks: dict[int, _Code] = {}
    for rule in rules.allow:
        if rule.call in names:
            answer = started if rule.call in _STARTS else _RET_ALLOW
            blocks.setdefault(names[rule.call], []).extend(_alternatives(comparisons_of(rule, width_bits=32), answer))
    blocks.update(
        {
            names[answer.call]: [(_RETURN, 0, 0, _RET_ERRNO | getattr(errno, answer.errno))]
            for answer in rules.answers
            if answer.call in names
        }
    )
    table: _Code = [
        (_LOAD, 0, 0, _DATA_NR),
        (_JUMP_GREATER, 0, 1, newest),
        (_RETURN, 0, 0, _RET_ERRNO | errno.ENOSYS),
        *_tree(sorted(blocks.items()), denial),
    ]
    code: _Code = [
        (_LOAD, 0, 0, _DATA_ARCH),
        (_JUMP_EQUAL, 1, 0, FOREIGN_AUDIT_ARCH[rules.architecture]),
        (_JUMP, 0, 0, len(table)),
        *table,
    ]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


def _alternatives(alternatives: Sequence[Sequence[Comparison]], answer: int) -> _Code:
    code: _Code = []
    for alternative in alternatives:
        one: _Code = [(_RETURN, 0, 0, answer)]
        for comparison in reversed(alternative):
            load: _Code = [(_LOAD, 0, 0, _DATA_ARGUMENTS + 8 * comparison.argument)]
            if comparison.mask != _LOW_WORD:
                load.append((_AND, 0, 0, comparison.mask))
            # An alternative is at most six arguments long, which a comparison's jump reaches over.
            one = [*load, (_JUMP_EQUAL, 0, len(one), comparison.value), *one]
        code += one
    return code


def _tree(blocks: Sequence[tuple[int, _Code]], denial: int) -> _Code:
    """Return a binary search over the numbers; each block ends with an answer or falls through to ``denial``."""
    if len(blocks) > _LEAF:
        middle = len(blocks) // 2
        lower, upper = _tree(blocks[:middle], denial), _tree(blocks[middle:], denial)
        # The jump of a comparison reaches 255 instructions, an unconditional one any number.
        return [(_JUMP_AT_LEAST, 0, 1, blocks[middle][0]), (_JUMP, 0, 0, len(lower)), *lower, *upper]
    code: _Code = []
    for number, block in blocks:
        # A block overwrites the number, so what it does not permit is refused there.
        whole = [*block, (_RETURN, 0, 0, denial)]
        code += [(_JUMP_EQUAL, 1, 0, number), (_JUMP, 0, 0, len(whole)), *whole]
    return [*code, (_RETURN, 0, 0, denial)]
