"""Which programs can start others or run code that their words do not show: reviewed data, each with its reason.

Two tables. `ESCAPES`: programs that can, always or with certain options; `policy lint` warns about rules that let
them through, and gate one leaves an allowed one to gate two. `HARMLESS`: programs that cannot, whatever their
arguments; only these are allowed by a rule that names no program (``"*": allow``) without asking gate two. A program
in neither table is taken at the word of a rule that names it, and left to gate two under one that does not.

Sources: each tool's own manual page (man7.org, git-scm.com, gnu.org), and the GTFOBins list (gtfobins.github.io, GPL,
consulted for names; the wording is ours). Reviewed for Debian 12 versions.
"""

from dataclasses import dataclass, field
from typing import Final

__all__ = ["ESCAPES", "HARMLESS", "Escape"]


@dataclass(frozen=True, slots=True)
class Escape:
    """How one program reaches others.

    Attributes:
        because: what it does, as a clause that follows the program's name.
        source: where that is written.
        always: any use of it counts; otherwise only one of the following parts does.
        long: long options that count, whole; an abbreviation counts as well, as getopt_long(3) takes it.
        short: letters of one-letter options that count, anywhere in a cluster.
        words: whole words that count (subcommands, ``-exec`` and its like).
        starts: beginnings of words that count.
        contains: texts that count anywhere in a word (languages inside one argument).
        bundle: the first word counts as a cluster of letters even without a dash (tar's old form).
        unless_first: with ``always``: subcommands (the first word that is no option) that are harmless.
    """

    because: str
    source: str
    always: bool = False
    long: tuple[str, ...] = ()
    short: str = ""
    words: frozenset[str] = frozenset()
    starts: tuple[str, ...] = ()
    contains: tuple[str, ...] = ()
    bundle: bool = False
    unless_first: frozenset[str] = field(default_factory=frozenset)


def _always(because: str, source: str, *names: str) -> dict[str, Escape]:
    escape = Escape(because, source, always=True)
    return dict.fromkeys(names, escape)


_INTERPRETERS: Final = _always(
    "runs any program text it is given",
    "its own manual",
    *("ash", "bash", "csh", "dash", "elvish", "fish", "ksh", "ksh93", "mksh", "posh", "pwsh", "rbash", "rc", "sash"),
    *("sh", "tcsh", "yash", "zsh", "busybox", "toybox", "python", "python2", "python3", "pypy", "pypy3", "ipython"),
    *("perl", "perl5", "ruby", "irb", "node", "nodejs", "deno", "bun", "php", "lua", "luajit", "tclsh", "wish"),
    *("expect", "guile", "sbcl", "clisp", "ecl", "ghci", "runghc", "ocaml", "erl", "elixir", "iex", "julia", "octave"),
    *("R", "Rscript", "scala", "groovy", "java", "jjs", "jrunscript", "jshell", "kotlin", "mono", "dotnet", "slsh"),
    *("gdb", "lldb", "pdb", "pdb3", "m4", "bc", "dc", "ginsh", "gnuplot", "maxima", "qemu-x86_64", "wine", "raku"),
)
_EDITORS_AND_PAGERS: Final = _always(
    "starts a shell or a command on a key press or from its settings",
    "less(1) '!', vi(1) ':!', man(1) PAGER",
    *("less", "more", "most", "pg", "man", "info", "vi", "vim", "nvim", "view", "rview", "rvim", "ex", "ed", "red"),
    *("emacs", "nano", "pico", "joe", "jed", "micro", "mc", "mcedit", "w3m", "lynx", "elinks", "links", "mutt", "mail"),
    *("mailx", "sensible-editor", "sensible-pager", "editor", "pager", "vimdiff", "vigr", "vipw", "visudo", "crontab"),
    *("lesspipe", "zless", "bzless", "xzless", "zmore", "tmux", "screen", "byobu", "dialog", "whiptail", "fzf", "nnn"),
)
_STARTERS: Final = _always(
    "starts the program that its arguments name",
    "its own manual",
    *("env", "xargs", "parallel", "timeout", "nice", "ionice", "nohup", "setsid", "stdbuf", "unbuffer", "time"),
    *("watch", "entr", "flock", "setlock", "chrt", "taskset", "numactl", "prlimit", "cpulimit", "chroot", "fakeroot"),
    *("unshare", "nsenter", "setpriv", "capsh", "setarch", "linux32", "linux64", "i386", "x86_64", "sudo", "doas"),
    *("su", "runuser", "pkexec", "sg", "newgrp", "gosu", "su-exec", "chpst", "softlimit", "setuidgid", "envdir"),
    *("envuidgid", "tini", "dumb-init", "catatonit", "script", "scriptlive", "strace", "ltrace", "valgrind", "perf"),
    *("rlwrap", "xvfb-run", "dbus-run-session", "dbus-launch", "proxychains", "torify", "torsocks", "systemd-run"),
    *("start-stop-daemon", "run-parts", "at", "batch", "logsave", "choom", "coproc", "ld.so", "ld-linux.so.2"),
    *("ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1", "bwrap", "firejail", "nsjail", "minijail0", "sandbox", "proot"),
    *("caffeinate", "chronic", "ts", "sem", "task", "unzipsfx", "uidmap", "aa-exec", "cgexec", "systemd-inhibit"),
    *("systemd-nspawn", "machinectl", "daemonize", "daemon", "supervise", "multitime", "hyperfine", "pipexec", "pee"),
)
_REMOTE: Final = _always(
    "runs commands on another host, and local helpers that its options and settings name",
    "ssh_config(5) ProxyCommand, rsync(1) -e, scp(1) -S",
    *("ssh", "scp", "sftp", "rsync", "mosh", "autossh", "sshpass", "pssh", "pdsh", "clush", "ansible", "telnet"),
    *("ansible-playbook", "ansible-console", "salt", "salt-call", "rsh", "rlogin", "rexec", "ftp", "lftp", "ncftp"),
    *("socat", "nc", "ncat", "netcat", "nc.openbsd", "nc.traditional", "cryptcat", "openvpn", "pppd", "wg-quick"),
)
_BUILD_TOOLS: Final = _always(
    "runs commands from files and settings of the directory it works in",
    "make(1), npm-scripts(7), git-config(1) aliases, cargo's build scripts",
    *("make", "gmake", "bmake", "cmake", "ninja", "meson", "scons", "ant", "mvn", "gradle", "bazel", "buck", "just"),
    *("npm", "npx", "yarn", "pnpm", "pip", "pip3", "pipx", "poetry", "uv", "uvx", "tox", "nox", "pytest", "cargo"),
    *("rustc", "go", "gcc", "g++", "cc", "c++", "clang", "clang++", "tcc", "ld", "as", "gem", "bundle", "rake", "cpan"),
    *("composer", "mix", "stack", "cabal", "rpmbuild", "dpkg-buildpackage", "debuild", "vagrant", "packer", "puppet"),
    *("chef-client", "terraform", "tofu", "terragrunt", "pulumi", "pre-commit", "direnv", "asdf", "nvm", "hg", "svn"),
    *("cvs", "bzr", "fossil", "tig", "lazygit", "gh", "glab", "latex", "pdflatex", "xelatex", "lualatex", "tex"),
    *("gs", "convert", "magick", "ffmpeg", "gimp", "pandoc", "doxygen", "protoc", "bison", "flex"),
)
_PACKAGES: Final = _always(
    "runs scripts of packages, hooks or plug-ins as a part of its work",
    "apt.conf(5) hooks, deb-postinst(5), rpm scriptlets",
    *("apt", "apt-get", "aptitude", "dpkg", "dpkg-reconfigure", "dnf", "yum", "rpm", "zypper", "pacman", "apk", "snap"),
    *(
        "flatpak",
        "brew",
        "nix",
        "nix-shell",
        "guix",
        "emerge",
        "conda",
        "update-alternatives",
        "service",
        "invoke-rc.d",
    ),
    *("update-rc.d", "initctl", "telinit", "init", "shutdown", "reboot", "halt", "poweroff", "kexec", "modprobe"),
    *("insmod", "depmod", "mkinitramfs", "update-initramfs", "dracut", "grub-install", "logrotate", "anacron", "cron"),
    *("ifup", "ifdown", "dhclient", "dhcpcd", "NetworkManager", "nmcli", "wpa_supplicant", "udevadm", "mount.fuse"),
    *("fusermount", "sshfs", "debugfs", "dmsetup", "lvm", "zfs", "zpool", "btrfs", "cryptsetup", "virsh", "lxc"),
    *("lxc-attach", "lxc-execute", "incus", "multipass", "crun", "runc", "ctr", "nerdctl", "buildah", "skopeo"),
)
_DATABASES: Final = _always(
    "has a command that starts a shell or a program, or a server-side one",
    "psql(1) \\!, mysql(1) system, sqlite3(1) .shell, redis EVAL, COPY … TO PROGRAM",
    *("psql", "mysql", "mariadb", "sqlite3", "sqlite", "mongo", "mongosh", "redis-cli", "cqlsh", "sqlplus", "isql"),
    *("tsql", "sqlcmd", "duckdb", "clickhouse-client", "clickhouse", "influx", "litecli", "pgcli", "mycli", "ldapvi"),
    *("msfconsole", "nmap", "nikto", "hping3", "hydra", "sqlmap", "aws", "gcloud", "az", "helm", "kubectx", "k9s"),
)

# programs.py reads their languages: a plain program text of theirs is recognised and starts nothing.
_LANGUAGES: Final = _always(
    "has a language that starts programs and writes files",
    "gawk(1): system, pipes, getline; sed(1): e, w, s///e, -i",
    *("awk", "gawk", "mawk", "nawk", "original-awk", "sed", "gsed", "ssed"),
)

_LOADERS: Final = _always(
    "loads a library, or starts helpers that its options or settings name",
    "ssh-keygen(1) -D, ssh-agent(1), groff(1) pipelines, patch(1) -e, aspell(1) filters, bpftrace(8) system()",
    *("ssh-agent", "ssh-add", "ssh-keygen", "ssh-copy-id", "groff", "nroff", "troff", "aspell", "hunspell", "ispell"),
    *("patch", "bpftrace", "bpftool", "stap", "dstat", "cowsay", "cowthink", "run-mailcap", "see", "xdg-open", "wall"),
    *("check_by_ssh", "gtester", "varnishncsa", "restic", "borg", "certbot", "knife", "facter", "rpmdb", "rpmquery"),
    *("rpmverify", "wireshark", "tmate", "genisoimage", "xdotool", "objdump", "objcopy", "strip", "gcov", "gprof"),
)

_BY_OPTION: Final[dict[str, Escape]] = {
    "git": Escape(
        "starts pagers, hooks, filters and helpers that the repository's own configuration names",
        "git-config(1): core.fsmonitor, core.pager, alias, diff.external, filter, credential.helper",
        always=True,
        unless_first=frozenset({"version", "--version"}),
    ),
    "find": Escape(
        "runs a command for each file, or writes and deletes files",
        "find(1): -exec, -execdir, -ok, -okdir",
        words=frozenset({"-exec", "-execdir", "-ok", "-okdir"}),
    ),
    "fd": Escape("runs a command for each file", "fd(1): -x, -X", short="xX", long=("--exec", "--exec-batch")),
    "fdfind": Escape("runs a command for each file", "fd(1): -x, -X", short="xX", long=("--exec", "--exec-batch")),
    "rg": Escape(
        "runs a preprocessor or a helper",
        "rg(1): --pre, --hostname-bin, -z",
        long=("--pre", "--hostname-bin"),
        short="z",
    ),
    "tar": Escape(
        "starts compressors, checkpoint actions and remote shells",
        "GNU tar manual: --checkpoint-action, --to-command, -I, -F, --rsh-command, --rmt-command",
        long=(
            *("--checkpoint-action", "--to-command", "--use-compress-program", "--info-script", "--new-volume-script"),
            *("--rsh-command", "--rmt-command"),
        ),
        short="IF",
        contains=(":",),
        bundle=True,
    ),
    "sort": Escape(
        "starts a compressor for its temporary files", "sort(1): --compress-program", long=("--compress-program",)
    ),
    "split": Escape("starts a filter for each part", "split(1): --filter", long=("--filter",)),
    "install": Escape("starts a strip program", "install(1): --strip-program", long=("--strip-program",)),
    "zip": Escape("starts a test program", "zip(1): -T -TT", long=("--unzip-command",), short="T"),
    "unzip": Escape("starts a pager in place of more", "unzip(1): -M", short="M"),
    "7z": Escape("loads plug-ins", "7-Zip manual", starts=("-p",)),
    "ar": Escape("loads a plug-in", "ar(1): --plugin", long=("--plugin",)),
    "nm": Escape("loads a plug-in", "nm(1): --plugin", long=("--plugin",)),
    "cpio": Escape("starts a remote shell", "cpio(1): --rsh-command", long=("--rsh-command",), contains=(":",)),
    "tcpdump": Escape("starts a program after each file", "tcpdump(1): -z", short="z"),
    "tshark": Escape("loads scripts", "tshark(1): -X", short="X"),
    "wget": Escape(
        "starts helpers and reads settings from arguments",
        "wget(1): --use-askpass, -e, --config",
        long=("--use-askpass", "--execute", "--config"),
        short="e",
    ),
    "curl": Escape(
        "reads further options from a file, loads engines",
        "curl(1): -K, --config, --engine",
        long=("--config", "--engine", "--proxy-header", "--aws-sigv4"),
        short="K",
    ),
    "openssl": Escape(
        "loads engines and providers, starts helpers",
        "openssl(1): engine, -engine, -provider",
        words=frozenset({"engine", "-engine", "-provider", "-provider-path", "-config"}),
    ),
    "systemctl": Escape(
        "starts an editor or units",
        "systemctl(1): edit, start",
        words=frozenset(
            {"edit", "start", "restart", "reload", "link", "enable", "isolate", "kexec", "import-environment"}
        ),
        starts=("try-", "reload-"),
        long=("--host", "--machine"),
        short="HM",
    ),
    "journalctl": Escape(
        "reads another host's or machine's journal", "journalctl(1): -M", long=("--machine",), short="M"
    ),
    "kubectl": Escape(
        "runs commands in pods, editors, plug-ins, diff programs, and credential helpers that a kubeconfig names",
        "kubernetes.io: kubectl exec, edit, debug, diff, plugin; client-go exec credential plug-ins",
        words=frozenset({"exec", "edit", "debug", "attach", "diff", "plugin", "cp", "run", "port-forward", "proxy"}),
        long=("--kubeconfig", "--raw-config"),
    ),
    "oc": Escape(
        "runs commands in pods",
        "oc --help",
        words=frozenset({"exec", "rsh", "edit", "debug", "attach", "diff", "plugin", "cp", "run", "rsync"}),
        long=("--kubeconfig",),
    ),
    "docker": Escape(
        "runs programs in containers, plug-ins, and helpers that its configuration names",
        "docs.docker.com: docker run, exec, build; credsStore; cli-plugins",
        words=frozenset(
            {"run", "exec", "build", "buildx", "compose", "start", "create", "plugin", "login", "pull", "push", "cp"}
        )
        | {"stack", "swarm", "service", "commit", "load", "import", "attach", "restart", "update", "context"},
        long=("--config", "--host", "--context"),
        short="Hc",
    ),
    "podman": Escape(
        "runs programs in containers",
        "podman(1)",
        words=frozenset({"run", "exec", "build", "start", "create", "attach", "kube", "play", "machine", "unshare"})
        | {"restart", "cp", "pull", "push", "login", "mount"},
        long=("--remote", "--url", "--connection", "--config", "--hooks-dir", "--runtime", "--conmon", "--module"),
        short="rc",
    ),
    "crictl": Escape(
        "runs programs in containers",
        "crictl --help",
        words=frozenset({"exec", "run", "runp", "create", "start", "attach"}),
    ),
    "ip": Escape(
        "runs a command in another network namespace, or reads commands from a file",
        "ip(8): netns exec, vrf exec, -batch",
        words=frozenset({"exec", "exe", "ex", "-b", "-ba", "-bat", "-batc", "-batch", "--batch"}),
    ),
    "tc": Escape(
        "reads commands from a file, runs a command", "tc(8): -batch, exec", words=frozenset({"exec"}), starts=("-b",)
    ),
    "iftop": Escape("starts a shell on a key press", "iftop(8): '!'", always=True),
    "htop": Escape("starts strace and lsof on a key press", "htop(1)", always=True),
    "atop": Escape("starts programs for modules", "atop(1)", always=True),
    "dmesg": Escape("starts a pager", "dmesg(1): -H", long=("--human",), short="H"),
    "sar": Escape("starts its collector", "sar(1): without -f it runs sadc", always=True),
    "diff": Escape("starts pr", "diff(1): --paginate", long=("--paginate",), short="l"),
    "sdiff": Escape(
        "starts diff and an editor", "sdiff(1): -o, --diff-program", long=("--output", "--diff-program"), short="o"
    ),
    "diff3": Escape("starts a diff program", "diff3(1): --diff-program", long=("--diff-program",)),
    "bat": Escape("starts a pager", "bat(1)", always=True),
    "batcat": Escape("starts a pager", "bat(1)", always=True),
    "yq": Escape("can evaluate environment and files", "yq manual: load, eval", contains=("load", "env", "system")),
    "jq": Escape(
        "loads modules", "jq(1): -L, import", long=("--library-path",), short="L", contains=("import ", "include ")
    ),
    "zgrep": Escape("is a shell script around gzip and grep", "zgrep(1)", always=True),
    "zcat": Escape("is a shell script around gzip", "zcat(1)", always=True),
    "zdiff": Escape("is a shell script around gzip and diff", "zdiff(1)", always=True),
    "xzgrep": Escape("is a shell script around xz and grep", "xzgrep(1)", always=True),
    "ldd": Escape("runs the file's own loader", "ldd(1), Security", always=True),
    "file": Escape("starts decompressors", "file(1): -z", long=("--uncompress", "--uncompress-noreport"), short="zZ"),
    "mount": Escape(
        "starts helpers for file systems", "mount(8): /sbin/mount.*", always=True, unless_first=frozenset({""})
    ),
    "umount": Escape("starts helpers for file systems", "umount(8)", always=True),
    "pidstat": Escape("starts a program to watch", "pidstat(1): -e", short="e"),
}

ESCAPES: Final[dict[str, Escape]] = {
    **_INTERPRETERS,
    **_EDITORS_AND_PAGERS,
    **_STARTERS,
    **_REMOTE,
    **_BUILD_TOOLS,
    **_PACKAGES,
    **_DATABASES,
    **_LANGUAGES,
    **_LOADERS,
    **_BY_OPTION,
}

# Programs (coreutils, procps, util-linux, iproute2 and the like) and builtins that start nothing themselves.
HARMLESS: Final = frozenset(
    (
        *(":", "[", "alias", "arch", "b2sum", "base32", "base64", "basename", "basenc"),
        *("bg", "break", "builtin", "cal", "cat", "cd", "chgrp", "chmod", "chown"),
        *("cksum", "clear", "cmp", "column", "comm", "continue", "cp", "csplit", "cut"),
        *("date", "dd", "declare", "df", "diff", "dig", "dir", "dircolors", "dirname"),
        *("dirs", "disown", "du", "echo", "egrep", "exit", "expand", "export", "expr"),
        *("factor", "false", "fg", "fgrep", "findmnt", "fmt", "fold", "free", "getconf"),
        *("getent", "getopt", "getopts", "grep", "groups", "hash", "head", "hexdump", "host"),
        *("hostid", "hostname", "iconv", "id", "install", "iostat", "ipcs", "jobs", "join"),
        *("kill", "killall", "last", "lastlog", "let", "link", "ln", "local", "locale"),
        *("logger", "logname", "look", "ls", "lsattr", "lsblk", "lscpu", "lsipc", "lsirq"),
        *("lslogins", "lsmem", "lsmod", "lsns", "lsof", "lspci", "lsusb", "md5sum", "mkdir"),
        *("mkfifo", "mknod", "mktemp", "mpstat", "mv", "namei", "netstat", "nl", "nproc"),
        *("nslookup", "nstat", "numfmt", "od", "paste", "pathchk", "pgrep", "pidof", "ping"),
        *("ping6", "pkill", "pmap", "pr", "printenv", "printf", "ps", "pwd", "pwdx"),
        *("read", "readelf", "readlink", "readonly", "realpath", "renice", "return", "rev", "rm"),
        *("rmdir", "seq", "set", "sha1sum", "sha224sum", "sha256sum", "sha384sum", "sha512sum", "shift"),
        *("shred", "shuf", "size", "slabtop", "sleep", "ss", "stat", "strings", "stty"),
        *("sum", "sync", "tac", "tail", "tee", "test", "times", "top", "touch", "tr"),
        *("tracepath", "traceroute", "true", "truncate", "tsort", "tty", "type", "typeset", "ulimit"),
        *("umask", "uname", "unexpand", "uniq", "unlink", "unset", "uptime", "users", "vdir"),
        *("vmstat", "w", "wait", "wc", "whereis", "who", "whoami", "xxd", "yes"),
    )
)
