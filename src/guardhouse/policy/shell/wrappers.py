"""Programs that run the command among their own arguments, and the grammar of their options: reviewed data.

An option that is not written here leaves the wrapped command undecided, as does a word whose value is not known
where an option could stand. ``UNREADABLE`` are programs that run commands in ways that are not taken apart here.
Pure data. Sources: the manual of each program (coreutils 9.1, util-linux 2.38, findutils 4.9, sudo 1.9, procps 4.0).
"""

from dataclasses import dataclass
from typing import Final

__all__ = ["FIND_ACTIONS", "SHELLS", "SHELL_OPTIONS", "UNREADABLE", "WRAPPERS", "Wrapper"]


@dataclass(frozen=True, slots=True)
class Wrapper:
    """How one program finds the command that it runs.

    Attributes:
        flags: short options without a value. ``values``: short options with one, attached or the next word.
        long_flags: long options without a value, or with one only after ``=``. ``long_values``: with one either way.
        none: options (short letters, or long names) after which no command is run.
        refuse: options that leave everything undecided, short letters or long names.
        operands: words before the command that are no options.
        assignments: ``NAME=value`` words before the command set its environment.
        minus_number: ``-10`` is an option.
        text: options whose value is shell text that is run. ``joined``: the command's words are joined and run so.
        alone: what running it without a command does: nothing, or starts a shell that reads its input.
        foreign: why the command's name does not mean what it means here, or None.
        appends: words from elsewhere are added behind the command's own.
    """

    flags: str = ""
    values: str = ""
    long_flags: frozenset[str] = frozenset()
    long_values: frozenset[str] = frozenset()
    none: frozenset[str] = frozenset()
    refuse: frozenset[str] = frozenset()
    operands: int = 0
    assignments: bool = False
    minus_number: bool = False
    text: frozenset[str] = frozenset()
    joined: bool = False
    alone: str | None = None
    foreign: str | None = None
    appends: bool = False


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_ROOT: Final = "the command runs in another root directory, where its name means another file"
_NAMESPACE: Final = "the command runs in other namespaces, where its name may mean another file"
_PERSONALITY: Final = Wrapper(
    flags="vRFILBSTXZ3",
    long_flags=_names(
        "--verbose --addr-no-randomize --fdpic-funcptrs --short-inode --addr-compat-layout --whole-seconds"
        " --sticky-timeouts --read-implies-exec --mmap-page-zero --3gb --32bit --uname-2.6"
    ),
    alone="starts a shell",
)

WRAPPERS: Final[dict[str, Wrapper]] = {
    # A program of many names does what argv[0] says, so -a makes the file's name mean nothing.
    "exec": Wrapper(flags="cl", refuse=frozenset({"a"})),
    "command": Wrapper(flags="p", none=frozenset("vV")),
    "builtin": Wrapper(),
    "env": Wrapper(
        flags="i0v",
        values="uC",
        long_flags=_names(
            "--ignore-environment --null --debug --block-signal --default-signal --ignore-signal --list-signal-handling"
        ),
        long_values=_names("--unset --chdir"),
        none=_names("--help --version"),
        refuse=frozenset({"S", "--split-string"}),
        assignments=True,
    ),
    "nice": Wrapper(values="n", long_values=_names("--adjustment"), minus_number=True),
    "nohup": Wrapper(),
    "setsid": Wrapper(flags="cfw", long_flags=_names("--ctty --fork --wait")),
    "ionice": Wrapper(
        flags="t",
        values="cn",
        long_flags=_names("--ignore"),
        long_values=_names("--class --classdata"),
        none=frozenset({"p", "P", "u", "--pid", "--pgid", "--uid"}),
    ),
    "chrt": Wrapper(
        flags="abdfiorRv",
        values="TPD",
        long_flags=_names("--batch --deadline --fifo --idle --other --rr --reset-on-fork --verbose --all-tasks"),
        none=frozenset({"p", "m", "--pid", "--max"}),
        operands=1,
    ),
    "taskset": Wrapper(
        flags="ac", long_flags=_names("--all-tasks --cpu-list"), none=frozenset({"p", "--pid"}), operands=1
    ),
    "timeout": Wrapper(
        flags="v",
        values="ks",
        long_flags=_names("--foreground --preserve-status --verbose"),
        long_values=_names("--kill-after --signal"),
        operands=1,
    ),
    "stdbuf": Wrapper(values="ioe", long_values=_names("--input --output --error")),
    "time": Wrapper(
        flags="apvq",
        values="fo",
        long_flags=_names("--append --portability --verbose --quiet"),
        long_values=_names("--format --output"),
    ),
    "setpriv": Wrapper(
        long_flags=_names("--clear-groups --keep-groups --init-groups --no-new-privs --nnp"),
        long_values=_names(
            "--groups --inh-caps --ambient-caps --bounding-set --rgid --egid --regid --ruid --euid --reuid --securebits"
            " --pdeathsig --selinux-label --apparmor-profile"
        ),
        none=_names("d h V --dump --help --version --list-caps"),
        # It puts another PATH in force, by which the command's name is looked up.
        refuse=_names("--reset-env"),
    ),
    "prlimit": Wrapper(
        long_flags=_names(
            "--core --data --nice --fsize --sigpending --memlock --rss --nofile --msgqueue --rtprio --stack --cpu"
            " --nproc --as --locks --rttime --noheadings --raw --verbose"
        ),
        none=_names("p h V --pid --help --version"),
    ),
    "choom": Wrapper(values="n", long_values=_names("--adjust"), none=_names("p h V --pid --help --version")),
    "strace": Wrapper(
        flags="cCdDfFhiknNqrtTvVwxyzZ",
        values="aeIOPsSuUX",
        refuse=frozenset({"o", "E", "p", "b"}),
    ),
    "sudo": Wrapper(
        flags="AbEHknPSNB",
        values="CDghprRTtUu",
        long_flags=_names(
            "--askpass --background --bell --preserve-env --set-home --reset-timestamp --non-interactive"
            " --preserve-groups --stdin --no-update"
        ),
        long_values=_names("--close-from --user --group --host --prompt --role --type --other-user --command-timeout"),
        none=frozenset({"l", "v", "K", "V", "--list", "--validate", "--remove-timestamp", "--version", "--help"}),
        refuse=frozenset({"s", "i", "e", "--shell", "--login", "--edit", "--chroot", "--chdir"}),
        assignments=True,
    ),
    "doas": Wrapper(flags="nL", values="au", refuse=frozenset({"s", "C"})),
    "su": Wrapper(
        flags="lmpfP",
        values="gGwu",
        long_flags=_names("--login --preserve-environment --fast --pty"),
        long_values=_names("--group --supp-group --whitelist-environment"),
        refuse=frozenset({"s", "--shell"}),
        text=frozenset({"c", "--command", "--session-command"}),
        operands=1,
        alone="starts a shell",
        foreign="another user's own shell reads the text",
    ),
    "runuser": Wrapper(
        flags="lmpfP",
        values="gGwu",
        long_flags=_names("--login --preserve-environment --fast --pty"),
        long_values=_names("--group --supp-group --whitelist-environment --user"),
        refuse=frozenset({"s", "--shell"}),
        text=frozenset({"c", "--command", "--session-command"}),
        operands=0,
        alone="starts a shell",
        foreign="another user's own shell may read the text",
    ),
    "script": Wrapper(
        flags="aefq",
        values="EmoIOBT",
        long_flags=_names("--append --return --flush --force --quiet"),
        long_values=_names("--echo --logging-format --output-limit --log-in --log-out --log-io --log-timing"),
        text=frozenset({"c", "--command"}),
        operands=1,
        alone="starts a shell",
        foreign="the shell that SHELL names reads the text",
    ),
    "flock": Wrapper(
        flags="enosuxF",
        values="wE",
        long_flags=_names("--exclusive --nonblock --no-fork --close --shared --unlock --verbose"),
        long_values=_names("--timeout --wait --conflict-exit-code"),
        text=frozenset({"c", "--command"}),
        operands=1,
    ),
    "watch": Wrapper(
        flags="bcdegptwx",
        values="nq",
        long_flags=_names("--beep --color --differences --errexit --chgexit --precise --no-title --no-wrap --exec"),
        long_values=_names("--interval --equexit"),
        joined=True,
    ),
    "xargs": Wrapper(
        flags="0rtpxo",
        values="adEILnPs",
        long_flags=_names("--null --no-run-if-empty --verbose --interactive --exit --open-tty --max-lines --eof"),
        long_values=_names("--arg-file --delimiter --max-args --max-procs --max-chars"),
        refuse=_names("i e l --replace --process-slot-var"),
        appends=True,
    ),
    "busybox": Wrapper(none=_names("--list --list-full --help --install")),
    "coreutils": Wrapper(
        none=_names("--help --version --list"), refuse=_names("--coreutils-prog --coreutils-prog-shebang")
    ),
    "toybox": Wrapper(none=_names("--long --help --version")),
    "chroot": Wrapper(
        long_flags=_names("--skip-chdir"),
        long_values=_names("--userspec --groups"),
        operands=1,
        alone="starts a shell",
        foreign=_ROOT,
    ),
    "unshare": Wrapper(
        flags="muinpUCTfrc",
        values="SG",
        long_flags=_names(
            "--mount --uts --ipc --net --pid --user --cgroup --time --fork --map-root-user --map-current-user"
            " --mount-proc --kill-child --keep-caps"
        ),
        long_values=_names("--setuid --setgid --propagation --setgroups"),
        refuse=_names("R w --root --wd"),
        alone="starts a shell",
        foreign=_NAMESPACE,
    ),
    "nsenter": Wrapper(
        flags="aFmuinpUCTrwe",
        values="tSG",
        long_flags=_names(
            "--all --no-fork --mount --uts --ipc --net --pid --user --cgroup --time --root --wd --preserve-credentials"
        ),
        long_values=_names("--target --setuid --setgid"),
        alone="starts a shell",
        foreign=_NAMESPACE,
    ),
    "linux32": _PERSONALITY,
    "linux64": _PERSONALITY,
    "i386": _PERSONALITY,
    "i686": _PERSONALITY,
    "x86_64": _PERSONALITY,
}

SHELLS: Final = {"bash": "bash", "rbash": "bash", "sh": "posix", "dash": "posix", "ash": "posix"}
# Of bash and dash: options of the shell's own command line. `i` and `l` read start-up files; `O` and most of `o`
# change how text is read.
SHELL_OPTIONS: Final = "aebfhmnprstuvxBC"

UNREADABLE: Final[dict[str, str]] = {
    name: why
    for why, names in {
        "runs a command line made of its arguments and input": "parallel sem rush xjobs",
        "is a shell whose language is not read here": (
            "zsh ksh mksh lksh pdksh ksh93 yash fish csh tcsh rc es elvish nu xonsh pwsh powershell scsh posh"
        ),
        "runs its arguments as a command": (
            "setarch dbus-run-session dbus-launch xvfb-run firejail bwrap proot fakeroot fakechroot catchsegv ltrace"
            " rlwrap unbuffer torsocks torify proxychains proxychains4 tsocks cpulimit chpst softlimit setuidgid"
            " envdir envuidgid setlock start-stop-daemon daemonize numactl cgexec capsh pkexec gosu"
            " su-exec tini dumb-init sg newgrp systemd-run systemd-inhibit run0 uutils coresched uclampset"
            " trickle eatmydata libtool ld.so nocache pipexec socat-exec s6-setuidgid runcon sandbox-exec"
        ),
        "runs commands when files change, later or again": "entr watchexec at batch crontab anacron incrontab",
        "runs the programs of a directory": "run-parts",
        "runs commands inside": "gdb lldb valgrind perf expect screen tmux dtach abduco",
    }.items()
    for name in names.split()
}

# Of find: what runs a command (up to `;` or `{} +`). Source: findutils 4.9.
FIND_ACTIONS: Final = frozenset({"-exec", "-execdir", "-ok", "-okdir"})
