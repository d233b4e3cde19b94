"""How well-known programs take their options: reviewed data for seeing one command behind two spellings.

``git -C /srv push`` is ``git push``, ``rm -r -f`` is ``rm -rf``. Used to doubt a command that a rule allows while a
later rule denies the same command in another spelling; never to allow anything.

Sources: git(1), kubectl(1) "options", docker(1), podman(1), systemctl(1), rm(1), chmod(1), cp(1), GNU tar manual. Pure.
"""

from typing import Final

__all__ = ["FLAGS", "SAME_OPTIONS"]

# Options that take no value, so that the word behind them is never theirs. Every other option may take one.
FLAGS: Final[dict[str, frozenset[str]]] = {
    "git": frozenset(
        [
            "-p",
            "-P",
            "--paginate",
            "--no-pager",
            "--bare",
            "--no-replace-objects",
            "--no-lazy-fetch",
            "--no-optional-locks",
            "--no-advice",
            "--literal-pathspecs",
            "--glob-pathspecs",
            "--noglob-pathspecs",
            "--icase-pathspecs",
            "--version",
            "--help",
        ]
    ),
    "kubectl": frozenset(
        ["--insecure-skip-tls-verify", "--match-server-version", "--warnings-as-errors", "-A", "--all-namespaces"]
    ),
    "docker": frozenset(["-D", "--debug", "--tls", "--tlsverify"]),
    "podman": frozenset(["-r", "--remote", "--transient-store", "--help"]),
    "systemctl": frozenset(
        [
            "-a",
            "--all",
            "-l",
            "--full",
            "-q",
            "--quiet",
            "--no-pager",
            "--no-legend",
            "--user",
            "--system",
            "--failed",
            "--no-block",
            "--no-ask-password",
            "--now",
            "--runtime",
            "--global",
            "--wait",
            "--plain",
            "--no-wall",
            "--no-reload",
            "--dry-run",
            "--show-types",
            "--with-dependencies",
        ]
    ),
    "journalctl": frozenset(
        ["--no-pager", "-f", "--follow", "-r", "--reverse", "-q", "--quiet", "-a", "--all", "-e", "-x", "-k"]
    ),
    "ip": frozenset(
        [
            "-4",
            "-6",
            "-0",
            "-B",
            "-M",
            "-s",
            "-d",
            "-h",
            "-o",
            "-r",
            "-a",
            "-t",
            "-j",
            "-p",
            "-br",
            "-brief",
            "-details",
            "-statistics",
            "-oneline",
            "-json",
            "-pretty",
            "-color",
        ]
    ),
    "rm": frozenset(["-r", "-R", "-f", "-i", "-I", "-v", "-d", "-rf", "-fr", "--recursive", "--force", "--verbose"]),
}

# Spellings of one option: each set is one option.
SAME_OPTIONS: Final[dict[str, tuple[frozenset[str], ...]]] = {
    "rm": (frozenset({"-r", "-R", "--recursive"}), frozenset({"-f", "--force"}), frozenset({"-d", "--dir"})),
    "chmod": (frozenset({"-R", "--recursive"}),),
    "chown": (frozenset({"-R", "--recursive"}),),
    "chgrp": (frozenset({"-R", "--recursive"}),),
    "cp": (frozenset({"-r", "-R", "-a", "--recursive", "--archive"}), frozenset({"-f", "--force"})),
    "mv": (frozenset({"-f", "--force"}),),
    "ln": (frozenset({"-s", "--symbolic"}), frozenset({"-f", "--force"})),
    "sed": (frozenset({"-i", "--in-place"}),),
    "git": (
        frozenset({"-f", "--force"}),
        frozenset({"-d", "--delete"}),
        frozenset({"-a", "--all"}),
        frozenset({"-D"}),
    ),
    "kubectl": (
        frozenset({"-f", "--filename"}),
        frozenset({"-n", "--namespace"}),
        frozenset({"-A", "--all-namespaces"}),
        frozenset({"-o", "--output"}),
        frozenset({"-l", "--selector"}),
        frozenset({"-w", "--watch"}),
    ),
    "docker": (frozenset({"-f", "--force"}), frozenset({"-v", "--volume", "--volumes"}), frozenset({"-a", "--all"})),
    "tar": (frozenset({"-x", "--extract", "--get"}), frozenset({"-c", "--create"}), frozenset({"-t", "--list"})),
    "curl": (
        frozenset({"-o", "--output"}),
        frozenset({"-X", "--request"}),
        frozenset({"-d", "--data"}),
        frozenset({"-T", "--upload-file"}),
        frozenset({"-O", "--remote-name"}),
    ),
    "kill": (frozenset({"-9", "-KILL", "-SIGKILL"}),),
    "date": (frozenset({"-s", "--set"}),),
    "dmesg": (frozenset({"-C", "--clear"}), frozenset({"-c", "--read-clear"})),
    "sort": (frozenset({"-o", "--output"}),),
    "find": (frozenset({"-exec", "-execdir", "-ok", "-okdir"}),),
}
