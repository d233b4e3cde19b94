"""The helper closure: which programs an allowed system program may start for its own work. Reviewed data.

Without it an allow-list would have to name what nobody types: that `zgrep` is a script around `gzip` and `grep`, that
`tar -z` starts `gzip` by a shell. Derived from traces on Debian 12 (`tests/gate/trace_helpers.py` makes them again);
the rules by which a line may stand here:

* Both sides are files of the trusted path, or files that only root can change, named by their whole path.
* What is started must do nothing that the one who starts it could not do: read, filter, compress. A program that
  changes files, loads another or reads a language is only here with the words (`only`) that keep it from that.
* What an argument, a variable or a file of the command may choose is never here: `tar --to-command` and
  `--use-compress-program=./x`, `git` aliases, hooks and `ext::`, pagers and editors with words of their own,
  `sort --compress-program`, `find -exec`, `xargs`. Those stay judged by the policy.
* What a helper starts is judged again, by this table under its own name, or under the name given as ``then``.

Words of the started program, without the first, are joined by NUL and must match ``only`` as a whole. Reviewed with
the question: if somebody got this program to start that one with words of their own choice, what would they win?
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Final

__all__ = ["FIRST_LINE_INTERPRETERS", "HELPERS", "Start", "find_start"]


@dataclass(frozen=True, slots=True)
class Start:
    """What one program may start, and why.

    Attributes:
        programs: plain names of the trusted path.
        why: for the record and for the reviewer, a clause.
        paths: an expression for whole paths of files outside the trusted path; "" for none.
        only: an expression for the words after the first, joined by NUL; "" for any.
        then: the name under which what this one starts is looked up here; "" for its own.
        only_lists: the dynamic loader, where its environment tells it to run nothing (ld.so(8)).
    """

    programs: frozenset[str]
    why: str
    paths: str = ""
    only: str = ""
    then: str = ""
    only_lists: bool = False

    def fits(self, words: tuple[str, ...]) -> bool:
        """Tell whether these words, without the first, are among those that the program may be given."""
        return not self.only or _expression(self.only).fullmatch("\0".join(words)) is not None


def _start(programs: str, why: str, *, only: str = "", then: str = "", paths: str = "", lists: bool = False) -> Start:
    return Start(frozenset(programs.split()), why, paths=paths, only=only, then=then, only_lists=lists)


@cache
def _expression(text: str) -> "re.Pattern[str]":
    return re.compile(text, re.DOTALL)


# Filters of coreutils and their like: they read what they are given and write to stdout, whatever their words.
_FILTERS: Final = "basename dirname cut tr expr uname readlink head tail wc getopt gettext envsubst locale stty seq"

# One sed command of the kind that nothing follows: s with '/', '|' or ',' around its parts, without the flags 'w'
# (writes a file) and 'e' (runs a shell).
_PART: Final = r"(?:[^\\\n{0}]|\\.)*"
_SUBSTITUTION: Final = "|".join(
    rf"s{mark}{_PART.format(mark)}{mark}{_PART.format(mark)}{mark}g?" for mark in ("/", r"\|", ",")
)
_SUBSTITUTIONS: Final = rf"(?:\$!?)?(?:{_SUBSTITUTION})(?:[;\s]+(?:\$!?)?(?:{_SUBSTITUTION}))*\s*"
_ONLY_SUBSTITUTES: Final = rf"(?:-e\0)?{_SUBSTITUTIONS}(?:\0-e\0{_SUBSTITUTIONS})*"

_NO_WORDS: Final = r"(?:)"
_TO_STDOUT: Final = r"(?:--format=[a-z]+\0)?(?:-[qQ]+\0)?-(?:cd|dc)[fqQ]*(?:\0.*)?"
_TEMPORARY: Final = r"-r?f\0(?:/[^\0]*)?/(?:bz|z|xz|lz)(?:diff|cmp)[.][A-Za-z0-9]{6,12}|-f\0/tmp/zdiff[A-Za-z0-9]{9}"

_GZIP: Final = "a shell script of the gzip package around it"
_XZ: Final = "a shell script of the xz-utils package around it"
_BZIP2: Final = "a shell script of the bzip2 package around it"
_ZSTD: Final = "a shell script of the zstd package around it"
_GREP: Final = "a shell script of the grep package: exec grep with one option"
_GIT_CORE: Final = "/usr/lib/git-core/"
_GIT_READS: Final = "it asks itself for facts of the repository"

_SED: Final = _start("sed", "it edits names and messages; only substitutions, no files", only=_ONLY_SUBSTITUTES)
_FILTER: Final = _start(_FILTERS, "filters that only read and print")
# As less writes a file's name for a shell: what is not in this list keeps the line from matching.
_PLAIN: Final = r"(?:[A-Za-z0-9_./@:,+~=-]|\\[A-Za-z0-9_./@:,+~= -])*"
_DECOMPRESSES: Final = rf"(?:gzip|bzip2|xz|zstd)(?:[ ]-[-a-zA-Z=]+)*(?: --)? {_PLAIN}"
_DECOMPRESSES_ESCAPED: Final = rf"(?:gzip|bzip2|xz|zstd)(?:\\ -(?:[-a-zA-Z]|\\=)+)*(?:\\ --)?\\ {_PLAIN}"
_BY_LESS: Final = "less runs the filter of LESSOPEN by a shell; only a decompressor, as the z*less scripts set it"
_DECOMPRESSING_SHELLS: Final = (
    _start("sh dash bash", _BY_LESS, only=rf"-c\0(?:{_DECOMPRESSES})", then="the shell of less"),
    _start(
        "sh dash bash",
        _BY_LESS,
        only=rf"-c\0(?:/usr)?/bin/(?:ba|da)?sh -c {_DECOMPRESSES_ESCAPED}",
        then="the outer shell of less",
    ),
)
_DIFFING: Final = (
    _start("diff cmp", "what the script is there for"),
    _start("mktemp", "room for one of the two contents"),
    _start("rm", "its own temporary file, by the name that mktemp gave it", only=_TEMPORARY),
    _SED,
    _FILTER,
)


def _compressed(name: str, why: str) -> dict[str, tuple[Start, ...]]:
    """The shell that tar runs a compressor by, and the compressor itself."""
    return {f"tar's {name}": (_start(name, why, only=r"(?:-[0-9dcfknqTv]+(?:\0-[0-9dcfknqTv]+)*)?"),)}


_COMPRESSORS: Final = ("gzip", "bzip2", "xz", "lzip", "lzma", "lzop", "compress", "zstd", "pigz", "pbzip2", "pixz")
_BY_TAR: Final = "compresses the archive: reads stdin, writes stdout (tar(1), -z -j -J -Z -a --zstd)"

_LISTS: Final = r"--verify\0.*|--version|--help|--list\0.*"

_TABLE: Final[dict[str, tuple[Start, ...]]] = {
    # gzip
    "zcat": (_start("gzip", _GZIP, only=_TO_STDOUT),),
    "uncompress": (_start("gzip gunzip", _GZIP, only=r"-d(?:\0.*)?"),),
    "gunzip": (_start("gzip", _GZIP, only=r"-d(?:\0.*)?"),),
    "zgrep": (
        _start("gzip", _GZIP, only=_TO_STDOUT),
        _start("grep zgrep egrep fgrep", _GZIP),
        _SED,
        _FILTER,
    ),
    "zegrep": (_start("zgrep", _GZIP),),
    "zfgrep": (_start("zgrep", _GZIP),),
    "zless": (_start("less", _GZIP), _start("gzip", _GZIP, only=_TO_STDOUT)),
    "zmore": (
        _start("more", _GZIP),
        _start("less", _GZIP),
        _start("gzip", _GZIP, only=_TO_STDOUT),
        _FILTER,
    ),
    "zdiff": (_start("gzip", _GZIP, only=_TO_STDOUT), *_DIFFING),
    "zcmp": (_start("zdiff", _GZIP),),
    "less": _DECOMPRESSING_SHELLS,
    "the outer shell of less": (
        _start("sh dash bash", _BY_LESS, only=rf"-c\0(?:{_DECOMPRESSES})", then="the shell of less"),
    ),
    "the shell of less": tuple(
        _start(name, "decompresses the file to stdout", only=_TO_STDOUT) for name in ("gzip", "bzip2", "xz", "zstd")
    ),
    # xz-utils
    "xzgrep": (
        _start("xz", _XZ, only=_TO_STDOUT),
        _start("gzip bzip2 zstd lzop", _XZ, only=_TO_STDOUT),
        _start("grep egrep fgrep", _XZ),
        _SED,
        _FILTER,
    ),
    "xzegrep": (_start("xzgrep", _XZ),),
    "xzfgrep": (_start("xzgrep", _XZ),),
    "xzless": (_start("less", _XZ),),
    "xzmore": (_start("xz", _XZ, only=_TO_STDOUT), _start("more", _XZ), _FILTER),
    "xzdiff": (_start("xz gzip bzip2 zstd lzop", _XZ, only=_TO_STDOUT), *_DIFFING),
    # bzip2
    "bzgrep": (_start("bzip2", _BZIP2, only=_TO_STDOUT), _start("grep egrep fgrep", _BZIP2), _SED, _FILTER),
    "bzegrep": (_start("bzgrep", _BZIP2),),
    "bzfgrep": (_start("bzgrep", _BZIP2),),
    "bzmore": (_start("bzip2", _BZIP2, only=_TO_STDOUT), _start("more less", _BZIP2), _SED, _FILTER),
    "bzdiff": (_start("bzip2", _BZIP2, only=_TO_STDOUT), *_DIFFING),
    # zstd
    "zstdgrep": (_start("zstdcat", _ZSTD, only=r"(?:-[fq]+\0)?--\0.*"), _start("grep egrep fgrep", _ZSTD)),
    "zstdless": (_start("less", _ZSTD),),
    # grep, diffutils, debianutils, unzip
    "egrep": (_start("grep", _GREP),),
    "fgrep": (_start("grep", _GREP),),
    "rgrep": (_start("grep", _GREP),),
    "diff3": (_start("diff", "compares two files at a time by it"),),
    "sdiff": (_start("diff", "shows what it finds"),),
    "which": (_start("which.debianutils", "an alternative that is a script of debianutils"),),
    "zipgrep": (
        _start("unzip", "reads the archive to stdout", only=r"-(?:Z1|p-?L?|p)(?:\0.*)?"),
        _start("grep egrep fgrep", "searches what was read"),
        _SED,
        _FILTER,
    ),
    # libc-bin: a bash script, so what BASH_ENV names may speak in its name: only what lists and runs nothing
    "ldd": (
        _start(
            "",
            "the loader says itself what a program needs",
            paths=r"/(?:usr/)?lib(?:64|32|x32)?/.*/?ld-linux[^/]*"
            r"|/(?:usr/)?lib(?:64)?/ld-(?:linux|musl)[^/]*",
            only=_LISTS,
        ),
        _start(
            "",
            "the loader lists, told so by its environment",
            paths=r"/(?:usr/)?lib(?:64|32|x32)?/.*/?ld-linux[^/]*"
            r"|/(?:usr/)?lib(?:64)?/ld-(?:linux|musl)[^/]*",
            lists=True,
        ),
        _start("cat file", "prints what it found"),
    ),
    # tar: the compressor by a shell when it writes, itself when it reads
    "tar": (
        *(
            _start("sh dash", _BY_TAR, only=rf"-c\0{name}(?: -[0-9a-z]+)?", then=f"tar's {name}")
            for name in _COMPRESSORS
        ),
        *(_start(name, _BY_TAR, only=r"-dc?|-cd") for name in _COMPRESSORS),
    ),
    **{key: value for name in _COMPRESSORS for key, value in _compressed(name, _BY_TAR).items()},
    # man-db and groff
    "man": (
        _start("preconv tbl eqn neqn pic refer grap vgrind", "a preprocessor that the page asks for"),
        _start("nroff groff troff", "formats the page"),
        _start("col", "takes the overstrikes out"),
        _start("gzip", "stores the formatted page", only=r"-c[0-9]?"),
        _start("apropos whatis manpath", "man -k and man -f are these"),
        _start("zsoelim soelim locale", "reads the page and what it includes"),
        _start("less more pager", "shows the page", only=_NO_WORDS),
        _start("gzip bzip2 xz zstd", "reads a compressed page", only=_TO_STDOUT),
    ),
    "nroff": (_start("groff", "is a script around it"), _start("locale", "asks for the character set")),
    "groff": (_start("preconv tbl eqn pic refer grap chem soelim troff grotty grops", "is a driver for these"),),
    # git: its own plumbing, by the words that git gives it; hooks, aliases, filters and drivers are others
    "git": (
        _start("git", "checks what a fetch would need", only=r"rev-list\0--objects\0--stdin(?:\0.*)?"),
        _start(
            "git", "packs what is loose, when there is much of it", only=r"(?:maintenance\0run|gc)\0--auto(?:\0.*)?"
        ),
        _start("git", "a pull fetches", only=r"fetch\0--update-head-ok(?:\0.*)?"),
        _start("git", "a pull merges what it has fetched", only=r"merge(?:\0-[^\0]*)*\0FETCH_HEAD"),
        _start("git", "takes in a pack", only=r"(?:index-pack\0--stdin|unpack-objects)(?:\0.*)?"),
        _start("git", "makes a pack", only=r"pack-objects\0.*"),
        _start(
            "git",
            "a collection is made of these",
            only=r"(?:pack-refs\0--all|reflog\0expire\0--all|repack\0-d|prune\0--expire|worktree\0prune\0--expire|"
            r"rerere\0gc|prune-packed)(?:\0.*)?",
        ),
        _start("git", _GIT_READS, only=r"(?:commit-graph|multi-pack-index)\0(?:verify|write)(?:\0.*)?"),
        _start("git", "a remote helper of its own", only=r"remote-https?\0[^\0]*\0[^\0]*"),
        _start("", "speaks HTTP for it", paths=_GIT_CORE + r"git-remote-https?", then="git"),
        _start("git", "the HTTP helper's pack traffic", only=r"(?:fetch-pack|send-pack)\0--stateless-rpc(?:\0.*)?"),
        _start(
            "sh dash",
            "the other side of a local repository",
            only=r"-c\0(?P<words>git-upload-pack '[^'\0]*')(?:\0(?P=words))?",
            then="git's shell",
        ),
        _start("git-upload-pack", "the other side of a local repository", then="git"),
        _start("git", "the other side of a local repository", only=r"upload-pack\0.*"),
        _start(
            "", "a shell script of git", paths=_GIT_CORE + r"git-(?:submodule|bisect|mergetool)", then="git's script"
        ),
        _start("man", "git help shows a manual page", only=r"git(?:[-a-z0-9]*)?"),
        _start("less more pager", "its pager, without words of anybody's", only=_NO_WORDS),
    ),
    "git's shell": (
        _start("git-upload-pack", "the other side of a local repository", then="git"),
        _start("git", "the other side of a local repository", only=r"upload-pack\0.*"),
    ),
    "git's script": (
        _start("git", _GIT_READS, only=r"(?:--exec-path|rev-parse(?:\0.*)?|config\0--(?:bool|get|get-regexp)\0.*)"),
        _start("git", "does the work", only=r"(?:submodule--helper|bisect--helper)\0.*"),
        _SED,
        _FILTER,
    ),
    # apt and dpkg
    "dpkg": (
        _start("dpkg-query", "lists by it (dpkg(1), -l -L -S -s -p)"),
        _start("dpkg-deb", "looks into packages by it", only=r"--(?:info|contents|field|show|ctrl-tarfile)(?:\0.*)?"),
    ),
    "dpkg-deb": (_start("tar", "lists what a package holds", only=r"-?t[vf-]*(?:\0-)?"),),
    **dict.fromkeys(
        ("apt", "apt-cache", "apt-get", "apt-config", "apt-mark", "apt-list", "aptitude"),
        (_start("dpkg", "asks for the architectures", only=r"--print-(?:foreign-)?architectures?"),),
    ),
    "debsums": (
        _start("dpkg", "asks for the architecture", only=r"--print-architecture"),
        _start("dpkg-query", "asks what is installed"),
        _start(
            "sh dash",
            "asks for diversions",
            only=r"-c\0LC_ALL=C dpkg-divert --list --admindir [A-Za-z0-9_./-]+",
            then="the shell of debsums",
        ),
    ),
    "the shell of debsums": (_start("dpkg-divert", "lists diversions", only=r"--list\0.*"),),
    "lsb_release": (_FILTER,),
    "dpkg-architecture": (
        _start("dpkg", "asks for the architecture", only=r"--print-architecture"),
        _start("gcc", "asks what it compiles for", only=r"-dumpmachine"),
    ),
    # compilers: the driver's passes
    **dict.fromkeys(
        ("gcc", "g++", "cpp", "cc", "c++"),
        (
            _start(
                "", "the compiler itself", paths=r"/usr/(?:lib|libexec)/gcc/[^/]+/[0-9.]+/(?:cc1|cc1plus|f951|lto1)"
            ),
            _start(
                "", "links", then="collect2", paths=r"/usr/(?:lib|libexec)/gcc/[^/]+/[0-9.]+/(?:collect2|lto-wrapper)"
            ),
            _start("as", "assembles"),
        ),
    ),
    "collect2": (_start("ld ld.bfd ld.gold", "links"),),
    "ld": (
        _start(
            "",
            "optimizes while it links",
            then="the LTO wrapper",
            paths=r"/usr/(?:lib|libexec)/gcc/[^/]+/[0-9.]+/lto-wrapper",
        ),
    ),
    "the LTO wrapper": (_start("gcc g++ cc c++", "compiles what it is handed by the linker", only=r"@[^\0]*|-.*"),),
    "c89": (_start("gcc", "a script around it"),),
    "c99": (_start("gcc", "a script around it"),),
    # programs behind a wrapper of the distribution
    **dict.fromkeys(
        ("psql", "pg_dump", "pg_dumpall", "pg_isready", "pg_restore", "createdb", "dropdb", "vacuumdb", "reindexdb"),
        (_start("", "the same program of the cluster's version", paths=r"/usr/lib/postgresql/[0-9]+/bin/[a-z_]+"),),
    ),
    "pg_config": (
        _start("ls tail", "looks for the newest server's"),
        _start("pg_config.libpq-dev", "the client's"),
        _start("", "the newest server's", paths=r"/usr/lib/postgresql/[0-9]+/bin/pg_config"),
    ),
    "sar": (_start("", "collects what sar shows", paths=r"/usr/lib/(?:sysstat|sa)/sadc"),),
    # pagers of systemd: execlp with no words
    **dict.fromkeys(
        ("systemctl", "journalctl", "loginctl", "timedatectl", "hostnamectl", "localectl", "systemd-analyze"),
        (_start("less more pager", "its pager on a terminal, without words of anybody's", only=_NO_WORDS),),
    ),
}
# tar runs rmt or ssh for 'host:file', man a browser for --html, and so on: not here, so judged.
HELPERS: Final = MappingProxyType(_TABLE)

# What '#!/usr/bin/env NAME' of a trusted script may name: env looks it up in PATH, and only a trusted file counts.
FIRST_LINE_INTERPRETERS: Final = frozenset(
    {"node", "nodejs", "python", "python3", "perl", "ruby", "php", "lua", "tclsh", "bash", "sh", "dash"}
)


def find_start(
    parents: Iterable[str],
    called: str,
    names: frozenset[str],
    path: str,
    words: tuple[str, ...],
    *,
    is_roots: Callable[[], bool],
    may_list: bool,
) -> Start | None:
    """Return why one of ``parents`` may start a program for its own work; None where none may.

    Args:
        called: what the program is called by, one of ``names`` or of no meaning.
        names: the names under which the trusted path knows its file.
        path: where it is.
        words: its arguments without the first.
        is_roots: tells whether nobody but root can change what is there; only asked where the path is in question.
        may_list: the loader's environment tells it to list, or is not known yet.
    """
    for parent in parents:
        for start in HELPERS.get(parent, ()):
            is_named = called in names and called in start.programs
            is_there = bool(start.paths) and _expression(start.paths).fullmatch(path) is not None
            if not (is_named or is_there) or not start.fits(words) or (start.only_lists and not may_list):
                continue
            if is_named or is_roots():
                return start
    return None
