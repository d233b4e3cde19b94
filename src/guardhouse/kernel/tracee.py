"""The memory of a stopped tracee: strings, argument vectors, and the stack that the kernel builds for a new program.

Raw facts only; what is done about them is decided in `guardhouse.launcher.gate`. Everything of everyday size is read
with one process_vm_readv(2), since every exec pays for each. Little-endian; words of 8 bytes, or of 4 for i386.

Runs in the exec gate's monitor.
"""

import ctypes
import errno
import os
import struct
from typing import Final, NamedTuple

from guardhouse.kernel import ptrace

__all__ = ["Stack", "new_stack", "read_memory", "read_path_and_words", "read_string", "read_vector"]

_PAGE: Final = 4096
_WORD: Final = 8
# Of struct, for a pointer of so many bytes.
_FORMATS: Final = {8: "Q", 4: "I"}
_BUFFER_BYTES: Final = 256 * 1024
# IOV_MAX of limits.h
_IOVECS: Final = 1024

# Reused by every call: a monitor is one thread, and it reads for every exec of every process.
_BUFFER: Final = bytearray(_BUFFER_BYTES)
_BUFFER_IN_C: Final = (ctypes.c_char * _BUFFER_BYTES).from_buffer(_BUFFER)
_LOCAL: Final = (ctypes.c_uint64 * 2)(ctypes.addressof(_BUFFER_IN_C), _BUFFER_BYTES)
_VIEW: Final = memoryview(_BUFFER)
_REMOTE: Final = bytearray(16 * _IOVECS)
_PAIR: Final = struct.Struct("<QQ")
_REMOTE_IN_C: Final = (ctypes.c_char * (16 * _IOVECS)).from_buffer(_REMOTE)

_READV = ctypes.CDLL(None, use_errno=True)["process_vm_readv"]
_READV.restype = ctypes.c_ssize_t
# As `ptrace.py` does: only addresses that were wrapped once, and numbers that pass as C ints.
_QUICK_READV = ctypes.PyDLL(None)["process_vm_readv"]
_LOCAL_POINTER: Final = ctypes.byref(_LOCAL)
_REMOTE_POINTER: Final = ctypes.byref(_REMOTE_IN_C)


def _read(tid: int, count: int) -> int:
    """Read the first ``count`` ranges of `_REMOTE`, at most the buffer together, and return how many bytes came.

    Raises:
        OSError: none did.
    """
    # SAFE: the kernel writes at most the buffer's length into the buffer, which lives as long as this module; the
    # remote addresses are the kernel's to check.
    got = int(_QUICK_READV(tid, _LOCAL_POINTER, 1, _REMOTE_POINTER, count, 0))
    if got >= 0:
        return got
    got = int(_READV(tid, _LOCAL_POINTER, 1, _REMOTE_POINTER, count, 0))
    if got < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"process_vm_readv: {os.strerror(code)}")
    return got


def read_memory(tid: int, address: int, length: int) -> bytes:
    """Return up to ``length`` bytes at ``address`` of the tracee: fewer where its mapping ends.

    Raises:
        OSError: EFAULT when nothing is mapped there, EPERM when the tracee may not be read.
    """
    if length > _BUFFER_BYTES:
        pieces = []
        for offset in range(0, length, _BUFFER_BYTES):
            wanted = min(_BUFFER_BYTES, length - offset)
            pieces.append(read_memory(tid, address + offset, wanted))
            if len(pieces[-1]) < wanted:
                break
        return b"".join(pieces)
    # One iovec a page on the other side: a transfer is cut between iovecs, never inside one (process_vm_readv(2)), so
    # what is mapped before a hole is read and what lies behind it is not asked for.
    count = 0
    end = address + length
    while address < end:
        step = (address // _PAGE + 1) * _PAGE
        if step > end:
            step = end
        _PAIR.pack_into(_REMOTE, 16 * count, address, step - address)
        count += 1
        address = step
    return bytes(_VIEW[: _read(tid, count)])


def read_string(tid: int, address: int, *, limit_bytes: int) -> bytes:
    """Return the NUL-terminated string at ``address``, without its NUL.

    Raises:
        OSError: EFAULT for an unmapped address, E2BIG for a string longer than ``limit_bytes``.
    """
    collected = bytearray()
    while len(collected) <= limit_bytes:
        # Never across a page's end in one read: the next page may be unmapped and the string may end before it.
        piece = read_memory(tid, address + len(collected), _PAGE - (address + len(collected)) % _PAGE)
        end = piece.find(b"\0")
        if end >= 0:
            collected += piece[:end]
            break
        collected += piece
    if len(collected) > limit_bytes:
        raise OSError(errno.E2BIG, f"a string of more than {limit_bytes} bytes in the tracee")
    return bytes(collected)


# How many bytes one read for many strings takes at each: most words are shorter, the others are read by themselves.
_WORD_BYTES: Final = 128
# As much of a path and of a pointer array as the first look takes: one page boundary less to think of.
_PATH_BYTES: Final = 256
_POINTERS: Final = 16


def read_path_and_words(
    tid: int, path: int, words: int, *, path_bytes: int, limit: int, limit_bytes: int, word_bytes: int = _WORD
) -> tuple[bytes, tuple[bytes, ...]]:
    """Return the string at ``path`` and the strings of the pointer array at ``words``, as execve is given them.

    Args:
        word_bytes: of a pointer in the array.

    Raises:
        OSError: EFAULT, or E2BIG for a path of more than ``path_bytes``, more than ``limit`` strings or
            ``limit_bytes`` bytes of them in all.
    """
    path_length = min(_PATH_BYTES, _PAGE - path % _PAGE)
    words_length = min(_WORD * _POINTERS, _PAGE - words % _PAGE)
    struct.pack_into("<4Q", _REMOTE, 0, path, path_length, words, words_length)
    if _read(tid, 2) == path_length + words_length:
        end = _BUFFER.find(b"\0", 0, path_length)
        layout = f"<{words_length // word_bytes}{_FORMATS[word_bytes]}"
        pointers = struct.unpack_from(layout, _BUFFER, path_length)
        if end >= 0 and 0 in pointers:
            found = bytes(_BUFFER[:end])
            return found, _strings(tid, pointers[: pointers.index(0)], limit_bytes)
    found = read_string(tid, path, limit_bytes=path_bytes)
    return found, read_vector(tid, words, limit=limit, limit_bytes=limit_bytes, word_bytes=word_bytes)


def read_vector(tid: int, address: int, *, limit: int, limit_bytes: int, word_bytes: int = _WORD) -> tuple[bytes, ...]:
    """Return the strings of a NULL-terminated pointer array (argv) of the tracee; a NULL array is empty.

    Raises:
        OSError: EFAULT, or E2BIG for more than ``limit`` strings or ``limit_bytes`` bytes in all.
    """
    if address == 0:
        return ()
    pointers: list[int] = []
    while True:
        position = address + len(pointers) * word_bytes
        whole = (_PAGE - position % _PAGE) // word_bytes * word_bytes
        piece = read_memory(tid, position, max(word_bytes, whole) if pointers else 64)
        count = len(piece) // word_bytes
        words = struct.unpack_from(f"<{count}{_FORMATS[word_bytes]}", piece)
        if not words:
            raise OSError(errno.EFAULT, "a pointer array that ends outside the tracee's memory")
        if 0 in words:
            pointers += words[: words.index(0)]
            break
        pointers += words
        if len(pointers) > limit:
            break
    if len(pointers) > limit:
        raise OSError(errno.E2BIG, f"more than {limit} arguments in the tracee")
    return _strings(tid, tuple(pointers), limit_bytes)


def _strings(tid: int, pointers: tuple[int, ...], limit_bytes: int) -> tuple[bytes, ...]:
    strings: list[bytes] = []
    left = limit_bytes
    for first in range(0, len(pointers), _IOVECS):
        group = pointers[first : first + _IOVECS]
        for pointer, begun in zip(group, _beginnings(tid, group), strict=True):
            end = begun.find(b"\0")
            strings.append(begun[:end] if end >= 0 else read_string(tid, pointer, limit_bytes=left))
            left -= len(strings[-1]) + 1
            if left < 0:
                raise OSError(errno.E2BIG, f"more than {limit_bytes} bytes of arguments in the tracee")
    return tuple(strings)


def _beginnings(tid: int, addresses: tuple[int, ...]) -> list[bytes]:
    """Return up to `_WORD_BYTES` from each address, none of them across a page's end; empty where it cannot be read."""
    if not addresses:
        return []
    lengths = [min(_WORD_BYTES, _PAGE - address % _PAGE) for address in addresses]
    ranges = [number for pair in zip(addresses, lengths, strict=True) for number in pair]
    struct.pack_into(f"<{len(ranges)}Q", _REMOTE, 0, *ranges)
    try:
        got = _read(tid, len(addresses))
    except OSError:
        got = 0
    pieces: list[bytes] = []
    position = 0
    for length in lengths:
        pieces.append(bytes(_BUFFER[position : position + length]) if position + length <= got else b"")
        position += length
    return pieces


class Stack(NamedTuple):
    """What the kernel puts on the stack of a new program (fs/binfmt_elf.c, create_elf_tables).

    Attributes:
        arguments: argv, each word with the NUL behind it, as one text.
        environment: the environment likewise.
        execfn: AT_EXECFN, the path that was given to execve.
        word_bytes: of a pointer of the program: 8, or 4 where it is one of 32 bits.
    """

    arguments: bytes
    environment: bytes
    execfn: bytes
    word_bytes: int


# include/uapi/linux/auxvec.h
_AT_NULL: Final = 0
_AT_EXECFN: Final = 31
# Pointers, auxiliary vector, up to 8 KiB of nothing and the strings of an everyday environment and argument list: one
# look. A longer one takes another.
_STACK_FIRST_BYTES: Final = 12 * 1024
_NULL: Final = bytes(_WORD)
# Pairs of words; more than the kernel has kinds of.
_VECTOR_MAX_PAIRS: Final = 64
_PATH_MAX: Final = 4096


def new_stack(tid: int, *, limit_bytes: int) -> Stack:
    """Return argv, environment and AT_EXECFN of a tracee at its exec event, as the new program will find them.

    Args:
        limit_bytes: of pointers, and of strings.

    Raises:
        OSError: the tracee is gone (ESRCH), its stack cannot be read, or is larger (E2BIG).
        ValueError: not the stack of a program that has just been loaded.
    """
    top, word_bytes = ptrace.stack_pointer(tid)
    length = _STACK_FIRST_BYTES
    while True:
        raw = read_memory(tid, top, length)
        tables = _parse_tables(raw) if word_bytes == _WORD else _parse_tables_of_32_bits(raw)
        if tables is not None:
            break
        if len(raw) < length:
            raise ValueError("the stack of the new program ends too soon")
        if length >= limit_bytes:
            raise OSError(errno.E2BIG, f"more than {limit_bytes} bytes of arguments and environment")
        length = min(length * 8, limit_bytes)
    # Above the tables lie up to 8 KiB of nothing (arch_align_stack), then the strings of argv, those of the environment
    # and the path, without gaps (fs/exec.c, copy_strings).
    first, middle, last = tables.arguments, tables.environment, tables.execfn
    if not top < first <= middle <= last:
        raise ValueError("strings of the new program that are not where the kernel puts them")
    if last - first > limit_bytes:
        raise OSError(errno.E2BIG, f"more than {limit_bytes} bytes of arguments and environment")
    strings = raw[first - top :]
    end = strings.find(b"\0", last - first)
    if end < 0:
        strings = read_memory(tid, first, (last // _PAGE + 1) * _PAGE - first)
        end = strings.find(b"\0", last - first)
    if end < 0:
        strings = read_memory(tid, first, last - first + _PATH_MAX)
        end = strings.find(b"\0", last - first)
    if end < 0:
        raise ValueError("AT_EXECFN of the new program does not end")
    arguments = strings[: middle - first]
    if arguments.count(b"\0") != tables.arguments_count or (arguments and arguments[-1]):
        raise ValueError("other arguments on the stack of the new program than it counts")
    return Stack(arguments, strings[middle - first : last - first], strings[last - first : end], word_bytes)


class _Tables(NamedTuple):
    """How many arguments there are, and at which addresses their strings, the environment's and the path begin."""

    arguments_count: int
    arguments: int
    environment: int
    execfn: int


def _parse_tables(raw: bytes) -> _Tables | None:
    """Read argc, argv…, NULL, envp…, NULL and the auxiliary vector; None where ``raw`` ends before they do. Pure.

    Raises:
        ValueError: there is no AT_EXECFN among them.
    """
    (count,) = struct.unpack_from("<Q", raw) if len(raw) >= _WORD else (len(raw),)
    environment = _WORD * (count + 2)
    # A pointer is never zero, so eight zero bytes end the list; they may begin in the zero top bytes of the last one.
    vector = (raw.find(_NULL, environment) + 7) // _WORD * _WORD + _WORD
    if vector <= environment or vector >= len(raw):
        return None
    pairs = memoryview(raw)[vector : vector + 2 * _WORD * _VECTOR_MAX_PAIRS]
    words = pairs[: len(pairs) // 16 * 16].cast("Q").tolist()
    kinds = words[::2]
    if _AT_NULL not in kinds:
        return None
    if _AT_EXECFN not in kinds[: kinds.index(_AT_NULL)]:
        raise ValueError("no AT_EXECFN in its auxiliary vector")
    execfn = words[2 * kinds.index(_AT_EXECFN) + 1]
    has_environment = vector - _WORD > environment
    second = struct.unpack_from("<Q", raw, environment)[0] if has_environment else execfn
    first = struct.unpack_from("<Q", raw, _WORD)[0] if count else second
    return _Tables(count, first, second, execfn)


def _parse_tables_of_32_bits(raw: bytes) -> _Tables | None:
    """As `_parse_tables`, for words of four bytes. Pure."""
    words = memoryview(raw)[: len(raw) // 4 * 4].cast("I").tolist()
    if not words:
        return None
    count = words[0]
    # argc, the arguments and their NULL stand before the environment, whose own NULL ends it.
    environment = count + 2
    if environment >= len(words) or 0 not in words[environment:]:
        return None
    vector = words.index(0, environment) + 1
    pairs = words[vector : vector + 2 * _VECTOR_MAX_PAIRS]
    kinds = pairs[: len(pairs) // 2 * 2 : 2]
    if _AT_NULL not in kinds:
        return None
    if _AT_EXECFN not in kinds[: kinds.index(_AT_NULL)]:
        raise ValueError("no AT_EXECFN in its auxiliary vector")
    execfn = pairs[2 * kinds.index(_AT_EXECFN) + 1]
    second = words[environment] or execfn
    return _Tables(count, words[1] if count else second, second, execfn)
