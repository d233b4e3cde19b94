"""Variables whose assignment changes what a later word, command or program means: reviewed data with reasons.

Two tables for two questions. ``DANGEROUS``: setting it in the shell itself matters. ``HARMLESS_EXPORTS``: a program
may be given it; whatever is in neither is undecided once it reaches a program's environment, since no list of
dangerous names for every program can be whole. Pure data.
"""

import re
from typing import Final

__all__ = ["why_assignment_matters", "why_export_matters"]

# Source: bash(1), "Shell Variables"; ld.so(8); environment(7); each tool's own manual.
DANGEROUS: Final[dict[str, str]] = {
    "PATH": "chooses which file a command name means",
    "IFS": "chooses where expansions are split into words",
    "ENV": "names a file that sh reads when it starts",
    "HOME": "chooses where tilde and every program's start-up files are",
    "SHELL": "names the program that others start as the shell",
    "SHELLOPTS": "switches shell options in every bash below",
    "BASHOPTS": "switches shell options in every bash below",
    "POSIXLY_CORRECT": "switches bash to posix mode, which reads text differently",
    "PS0": "is expanded, substitutions included, before a command",
    "PS1": "is expanded, substitutions included, at a prompt",
    "PS2": "is expanded, substitutions included, at a prompt",
    "PS3": "is printed by select",
    "PS4": "is expanded, substitutions included, for each traced command",
    "PROMPT_COMMAND": "is run before a prompt",
    "PROMPT_DIRTRIM": "changes prompts",
    "CDPATH": "changes where cd goes",
    "GLOBIGNORE": "changes what a glob matches",
    "EXECIGNORE": "changes which file a command name means",
    "FIGNORE": "changes completion",
    "INPUTRC": "names a file of key bindings that can run commands",
    "HISTFILE": "names a file that bash writes",
    "HISTCMD": "has the integer attribute: its value is evaluated as arithmetic",
    "LINENO": "has the integer attribute: its value is evaluated as arithmetic",
    "TEXTDOMAIN": 'chooses the catalogue that translates $"…"',
    "TEXTDOMAINDIR": 'chooses the catalogue that translates $"…"',
    "NLSPATH": "names message catalogues that programs use as formats",
    "LOCPATH": "names locale data that is loaded",
    "GCONV_PATH": "names modules that libc loads",
    "GETCONF_DIR": "names a directory of programs",
    "HOSTALIASES": "names a file that resolves host names",
    "LOCALDOMAIN": "changes how host names are resolved",
    "RES_OPTIONS": "changes how host names are resolved",
    "MALLOC_TRACE": "names a file that libc writes",
    "TMPDIR": "chooses where temporary files are made",
    "TZDIR": "names time zone data that is loaded",
    "TERMINFO": "names terminal data that is loaded",
    "TERMINFO_DIRS": "names terminal data that is loaded",
    "TERMCAP": "is terminal data, or names a file of it",
    "PAGER": "names a program that others start",
    "MANPAGER": "names a program that man starts",
    "EDITOR": "names a program that others start",
    "VISUAL": "names a program that others start",
    "FCEDIT": "names a program that fc starts",
    "BROWSER": "names a program that others start",
    "LESSOPEN": "is a command line that less runs",
    "LESSCLOSE": "is a command line that less runs",
    "LESS": "holds options of less, key commands included",
    "LESSKEY": "names a file of key commands of less",
    "MORE": "holds options of more",
    "SYSTEMD_PAGER": "names a program that systemd's tools start",
    "SYSTEMD_LESS": "holds options of the pager",
    "SYSTEMD_EDITOR": "names a program that systemctl starts",
    "SUDO_ASKPASS": "names a program that sudo starts",
    "SUDO_EDITOR": "names a program that sudo starts",
    "SSH_ASKPASS": "names a program that ssh starts",
    "RSYNC_RSH": "is a command line that rsync runs",
    "CVS_RSH": "is a command line that cvs runs",
    "SVN_SSH": "is a command line that svn runs",
    "TAR_OPTIONS": "holds options of tar, programs to run included",
    "GREP_OPTIONS": "holds options of grep",
    "GZIP": "holds options of gzip",
    "MAKEFLAGS": "holds options of make",
    "MAKEFILES": "names files that make reads",
    "GNUMAKEFLAGS": "holds options of make",
    "KUBECONFIG": "names a file whose credential plug-in kubectl runs",
    "KUBE_EDITOR": "names a program that kubectl starts",
    "KUBECTL_EXTERNAL_DIFF": "names a program that kubectl diff starts",
    "CLASSPATH": "names code that java loads",
    "JAVA_TOOL_OPTIONS": "holds options of every java, agents included",
    "JDK_JAVA_OPTIONS": "holds options of java",
    "_JAVA_OPTIONS": "holds options of java",
    "NODE_OPTIONS": "holds options of node, code to load included",
    "NODE_PATH": "names code that node loads",
    "RUBYOPT": "holds options of ruby, code to load included",
    "RUBYLIB": "names code that ruby loads",
    "LUA_INIT": "is code that lua runs",
    "LUA_PATH": "names code that lua loads",
    "LUA_CPATH": "names code that lua loads",
    "AWKPATH": "names code that awk loads",
    "AWKLIBPATH": "names code that awk loads",
    "PHPRC": "names settings that php loads",
    "R_PROFILE": "names code that R runs",
    "GDBHISTFILE": "names a file that gdb writes",
    "DBUS_SESSION_BUS_ADDRESS": "may start a program (unixexec:)",
    "DBUS_SYSTEM_BUS_ADDRESS": "may start a program (unixexec:)",
    "OPENSSL_CONF": "names settings that load modules into every TLS program",
    "OPENSSL_MODULES": "names modules that are loaded",
    "OPENSSL_ENGINES": "names modules that are loaded",
    "SSLKEYLOGFILE": "names a file that TLS keys are written to",
    "CURL_HOME": "names the place of curl's settings",
    "WGETRC": "names settings of wget",
    "NETRC": "names a file of credentials",
    "PSQLRC": "names a file of commands that psql runs",
    "PGSERVICEFILE": "names settings of every libpq program",
    "PGPASSFILE": "names a file of credentials",
    "MYSQL_HOME": "names the place of mysql's settings",
    "PSQL_PAGER": "names a program that psql starts",
    "PSQL_EDITOR": "names a program that psql starts",
    "DELTA_PAGER": "names a program that delta starts",
    "BAT_PAGER": "names a program that bat starts",
    "RIPGREP_CONFIG_PATH": "names options of rg, a program to run included",
    "FZF_DEFAULT_COMMAND": "is a command line that fzf runs",
    "FZF_DEFAULT_OPTS": "holds options of fzf, commands included",
    "LS_COLORS": "is parsed by ls",
    "ANSIBLE_CONFIG": "names settings that load code",
    "VIMINIT": "is a list of commands that vim runs",
    "EXINIT": "is a list of commands that vi runs",
    "MYVIMRC": "names commands that vim runs",
    "EMACSLOADPATH": "names code that emacs loads",
}
DANGEROUS_PREFIXES: Final[dict[str, str]] = {
    "LD_": "steers the dynamic loader, which loads code into every program",
    "DYLD_": "steers a dynamic loader",
    "BASH_": "steers bash itself (start-up files, functions, hashed commands, traps)",
    "GIT_": "makes git run programs or use other settings",
    "PYTHON": "makes python load code or change its behaviour",
    "PERL": "makes perl load code",
    "RUBY": "makes ruby load code",
    "NODE_": "makes node load code or change its behaviour",
    "NPM_CONFIG_": "holds settings of npm, programs included",
    "npm_config_": "holds settings of npm, programs included",
    "JAVA_": "chooses or steers java",
    "DOCKER_": "chooses the daemon or settings of docker",
    "AWS_": "chooses credentials, endpoints or a credential process",
    "AZURE_": "chooses credentials or settings",
    "CLOUDSDK_": "chooses credentials or settings",
    "GOOGLE_": "chooses credentials",
    "KUBERNETES_": "chooses the cluster",
    "HELM_": "chooses plug-ins and settings of helm",
    "TF_": "chooses plug-ins and settings of terraform",
    "VAULT_": "chooses the server and credentials of vault",
    "XDG_": "chooses where settings are looked up",
    "CARGO_": "chooses programs that cargo starts",
    "GLIBC_": "steers libc",
    "MALLOC_": "steers libc",
    "ANSIBLE_": "loads code into ansible",
    "SUDO_": "steers sudo",
    "SYSTEMD_": "steers systemd's tools, programs to start included",
    "SSH_": "chooses agents and programs of ssh",
}
# With the integer attribute, an assigned value is evaluated as arithmetic. Source: bash 5.2, variables.c.
INTEGER: Final = frozenset({"RANDOM", "SECONDS", "SRANDOM", "EPOCHSECONDS", "BASHPID", "OPTIND", "PPID", "UID", "EUID"})
# Its value is looked up as text and cannot name code, a file to load, a program or a server.
HARMLESS_EXPORTS: Final = frozenset(
    {
        "LANG",
        "LANGUAGE",
        "TZ",
        "COLUMNS",
        "LINES",
        "NO_COLOR",
        "CLICOLOR",
        "CLICOLOR_FORCE",
        "FORCE_COLOR",
        "CI",
        "TERM",
        "DEBIAN_FRONTEND",
        "TIME_STYLE",
        "BLOCKSIZE",
        "BLOCK_SIZE",
        "QUOTING_STYLE",
    }
)
_LOCALE: Final = re.compile(r"LANG|LC_[A-Z]+")
# Other character sets have characters whose second byte is a backslash or a quote: they change how text is read.
_SAFE_LOCALE: Final = re.compile(r"|C|POSIX|[A-Za-z_]{1,8}\.(?:UTF-8|utf8)")
_NUMBER: Final = re.compile(r"[0-9]{0,18}")
_HARMLESS_VALUE: Final = re.compile(r"[A-Za-z0-9_+,.:-]{0,64}")


def why_assignment_matters(name: str, value: str | None) -> str | None:
    """Return what setting ``name`` changes beyond the variable itself, or None when it changes nothing.

    Args:
        value: the literal value, or None when it is not known.
    """
    if _LOCALE.fullmatch(name):
        if value is not None and _SAFE_LOCALE.fullmatch(value):
            return None
        return f"{name} chooses the character set in which text is read"
    if name in INTEGER:
        if value is not None and _NUMBER.fullmatch(value):
            return None
        return f"{name} has the integer attribute: its value is evaluated as arithmetic"
    reason = DANGEROUS.get(name)
    if reason is None:
        reason = next((why for prefix, why in DANGEROUS_PREFIXES.items() if name.startswith(prefix)), None)
    return None if reason is None else f"{name} {reason}"


def why_export_matters(name: str, value: str | None) -> str | None:
    """Return why giving ``name`` to a program matters, or None for a harmless name with a harmless value."""
    reason = why_assignment_matters(name, value)
    if reason is not None:
        return reason
    if _LOCALE.fullmatch(name):
        return None
    if name in HARMLESS_EXPORTS and value is not None and _HARMLESS_VALUE.fullmatch(value) and ".." not in value:
        return None
    return f"{name} reaches a program's environment, and what that program does with it is not known"
