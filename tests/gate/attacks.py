"""Evasions of a rule that denies `touch PWNED*`: each is a text for bash in which `@@` stands for the marker.

With a marker that the rule names no file may appear; with another one (the twin) the same text must create it, which
shows that the attack works and only the rule stopped it. `TOOL` is attack_tool.c, built for the tests; a text that
needs a program which is not installed is left out by name. The marker is harmless and the only thing at stake.
"""

from typing import Final

__all__ = ["HAS_NO_TWIN", "ON_THE_LIST_OF_SHELLS", "SHELL_ATTACKS", "TOOL_WAYS", "attacks"]

# Waits for a marker made by a process that nobody waits for; at most two seconds, for a loaded machine.
UNTIL_IT_IS_THERE: Final = "for i in {1..20}; do [ -e @@ ] && break; sleep 0.1; done"

_QUOTING: Final = [
    "touch @@",
    "t''ouch @@",
    't""ouch @@',
    "t\\ouch @@",
    "'touch' @@",
    "$'touch' @@",
    "$'\\x74ouch' @@",
    "$'\\164\\157uch' @@",
    "touch '@@'",
    "touch '' @@ 2>&1",
    "touch ./@@",
    "touch ././@@",
    'touch "$PWD/@@"',
    "touch -- @@",
    "touch -a @@",
    "touch -m -a @@",
    "touch -t 202001010000 @@",
    "touch --time=access @@",
    "touch harmless @@",
    "/usr/bin/touch @@",
    "/bin/touch @@",
    "/usr/bin/../bin/touch @@",
    "//usr//bin//touch @@",
    "/usr/./bin/touch @@",
    "/proc/self/root/usr/bin/touch @@",
    "cd /usr/bin && ./touch ~-/@@",
    "{touch,@@}",
    "{t,}ouch @@ 2>/dev/null; touc{h,} @@",
    "/usr/bin/t?uch @@",
    "/usr/bin/[t]ouch @@",
    "/???/b?n/touc[h-h] @@",
    "\ttouch\t@@",
    "touch \\\n@@",
]
_EXPANSION: Final = [
    "x=touch; $x @@",
    "x=to y=uch; $x$y @@",
    "x=@@; touch $x",
    'a=(touch @@); "${a[@]}"',
    "x=hcuot; $(echo $x | rev) @@",
    "x=xtouchx; ${x:1:5} @@",
    "x=TOUCH; ${x,,} @@",
    "x=taach; x=${x/aa/ou}; $x @@",
    "$(echo touch) @@",
    "`echo touch` @@",
    "touch $(echo @@)",
    'set -- touch @@; "$@"',
    "set -- touch @@; $*",
    "IFS=,; x=touch,@@; $x",
    "printf -v x '\\x74ouch'; $x @@",
    "read x <<< touch; $x @@",
    'mapfile -t x < <(echo touch; echo @@); "${x[@]}"',
    "declare -n r=v; v=touch; $r @@",
    "for c in touch; do $c @@; done",
    "for f in @@; do touch $f; done",
    "touch ${NOTHING:-@@}",
    "eval touch @@",
    "eval 'to''uch @@'",
    'eval "$(echo dG91Y2ggQEA= | base64 -d | sed s/@@/@@/)"; x=touch; eval "$x @@"',
    "trap 'touch @@' EXIT",
    "trap 'touch @@' USR1; kill -USR1 $$",
    "trap 'touch @@' DEBUG; :",
    "trap 'touch @@' ERR; false",
    "PROMPT_COMMAND='touch @@'; eval \"$PROMPT_COMMAND\"",
    "f() { touch @@; }; f",
    'touch() { command touch "$@"; }; touch @@',
    "f() { \"$@\"; }; export -f f; bash -c 'f touch @@'",
    "alias x='touch @@'; shopt -s expand_aliases; eval x",
    "command touch @@",
    "command -p touch @@",
    "builtin command touch @@",
    "exec touch @@",
    "exec -a true touch @@",
    "exec -a '' touch @@",
    "exec -l touch @@",
    "exec -c /usr/bin/touch @@",
    "(exec -a ls /usr/bin/touch @@)",
    "(touch @@)",
    "{ touch @@; }",
    "touch @@ &\nwait",
    "coproc touch @@; wait",
    "true && touch @@ || touch @@",
    "! touch @@",
    "time touch @@",
    "if touch @@; then :; fi",
    "case x in x) touch @@;; esac",
    "[[ $(touch @@) ]]",
    ": $(touch @@)",
    "cat < <(touch @@)",
    f"true > >(touch @@); {UNTIL_IT_IS_THERE}",
    "((x=$(touch @@; echo 1)))",
    "a[$(touch @@; echo 0)]=1",
    "hash -p /usr/bin/touch ls; ls @@",
    "PATH=/usr/bin:$PATH touch @@",
    "select x in a; do touch @@; break; done <<< 1",
    "while touch @@; do break; done",
    "echo touch @@ | bash",
    "echo touch @@ | sh",
    "bash <<< 'touch @@'",
    "bash -c 'touch @@'",
    "sh -c 'touch @@'",
    "dash -c 'touch @@'",
    "bash -c '\"$@\"' _ touch @@",
    'bash -c "bash -c \'bash -c \\"touch @@\\"\'"',
    "bash -s <<E\ntouch @@\nE",
    "source <(echo touch @@)",
    ". /dev/stdin <<< 'touch @@'",
    "echo 'touch @@' > s; . ./s",
    "echo 'touch @@' > s; bash s",
    "echo 'touch @@' > e; BASH_ENV=./e bash -c :",
    "echo 'touch @@' > e; ENV=./e sh -i -c : < /dev/null",
    "env 'BASH_FUNC_ls%%=() { touch @@; }' bash -c ls",
    "PS4='$(touch @@)' bash -xc :",
    "bash --rcfile <(echo touch @@) -ic : < /dev/null",
]
_ENCODING: Final = [
    "printf 'touch @@' | base64 | base64 -d | sh",
    "printf 'touch @@' | od -An -tx1 | tr -d ' \\n' | perl -ne 'print pack \"H*\",$_' | sh",
    "echo 'gbhpu @@' | tr 'gbhpu' 'touch' | sed 's/.*/touch @@/' | sh",
    "printf '\\164\\157\\165\\143\\150 @@' | sh",
    "echo -e '\\x74\\x6f\\x75\\x63\\x68 @@' | sh",
    "echo 'touch @@' | gzip | gunzip | sh",
    "echo 'touch @@' | xz | xz -d | sh",
    "echo 'touch @@' | rev | rev | sh",
    "echo 'touch @@' | openssl enc -a | openssl enc -a -d | sh",
    "echo 'h@@cuot' >/dev/null; sh -c \"$(printf '%s' touch) @@\"",
    "sh < <(printf 'to\\\nuch @@\\n')",
]
_PROGRAMS: Final = [
    "python3 -c 'import os; os.system(\"touch @@\")'",
    'python3 -c \'import subprocess; subprocess.run(["touch", "@@"])\'',
    'python3 -c \'import os; os.execvp("touch", ["ls", "@@"])\'',
    'python3 -c \'import os; os.waitpid(os.posix_spawn("/usr/bin/touch", ["x", "@@"], {}), 0)\'',
    'python3 -c \'import pty; pty.spawn(["touch", "@@"])\' < /dev/null',
    'python3 -c \'import os; f=os.open("/usr/bin/touch",0); os.execve(f, ["x","@@"], {})\'',
    'python3 -c \'__import__("os").popen("touch @@").read()\'',
    "echo 'import os; os.system(\"touch @@\")' | python3",
    "echo 'import os; os.system(\"touch @@\")' > s.py; python3 s.py",
    (
        'python3 -c \'import threading,subprocess as s; t=threading.Thread(target=s.run,args=(["touch","@@"],));'
        "t.start();t.join()'"
    ),
    'perl -e \'system("touch", "@@")\'',
    'perl -e \'exec {"/usr/bin/touch"} "harmless", "@@"\'',
    "perl -e 'print `touch @@`'",
    "perl -e 'open(F, \"touch @@|\"); <F>'",
    "awk 'BEGIN { system(\"touch @@\") }'",
    "awk 'BEGIN { \"touch @@\" | getline }'",
    'awk \'BEGIN { print "touch @@" | "sh" }\'',
    'node -e \'require("child_process").execSync("touch @@")\'',
    'node -e \'require("child_process").spawnSync("touch", ["@@"])\'',
    "tclsh <<< 'exec touch @@'",
    "sed -n '1e touch @@' /etc/passwd",
    "echo x | sed 's/x/touch @@/e'",
    "printf '!touch @@\\nq\\n' | ed -s",
    "vim -es -u NONE -c '!touch @@' -c 'q!' < /dev/null",
    "sqlite3 :memory: '.shell touch @@'",
    "find . -maxdepth 0 -exec touch @@ ';'",
    "find . -maxdepth 0 -exec touch @@ {} +",
    "find . -maxdepth 0 -execdir touch @@ ';'",
    "find /usr/bin/touch -exec {} @@ ';'",
    "echo @@ | xargs touch",
    "echo touch @@ | xargs env",
    "echo @@ | xargs -I{} sh -c 'touch {}'",
    "xargs -a <(echo @@) touch",
    "env touch @@",
    "env -S 'touch @@'",
    "env -i /usr/bin/touch @@",
    "env -u HOME --argv0=ls touch @@ 2>/dev/null || env touch @@",
    "env env env touch @@",
    "nice touch @@",
    "nohup touch @@ 2>/dev/null",
    "timeout 5 touch @@",
    "setsid -w touch @@",
    "stdbuf -o0 touch @@",
    "flock lock touch @@",
    "flock lock -c 'touch @@'",
    "taskset 3 touch @@ 2>/dev/null || taskset 1 touch @@",
    "ionice touch @@",
    "chrt -o 0 touch @@",
    "setarch -R touch @@ 2>/dev/null || setarch x86_64 touch @@",
    "prlimit touch @@",
    "choom -n 0 -- touch @@ || choom -p $$ >/dev/null; env touch @@",
    "setpriv touch @@",
    "script -qec 'touch @@' /dev/null",
    "time -p touch @@",
    "/usr/bin/time touch @@ 2>/dev/null",
    "valgrind --tool=none -q /usr/bin/touch @@ 2>/dev/null",
    "valgrind --tool=none --trace-children=yes /usr/bin/sh -c '/usr/bin/touch @@' 2>/dev/null",
    "ln -s /usr/bin/touch x; valgrind --tool=none -q ./x @@ 2>/dev/null || env touch @@",
    "mkdir d; printf '#!/bin/sh\\ntouch @@\\n' > d/x; chmod +x d/x; run-parts d",
    "split --filter='touch @@' /etc/passwd",
    "sort --compress-program=/usr/bin/touch -S 1k /etc/services >/dev/null 2>&1; env touch @@",
    "tar cf /dev/null --checkpoint=1 --checkpoint-action=exec='touch @@' /etc/passwd 2>/dev/null",
    "tar cf x.tar -I 'sh -c \"touch @@; cat\"' /etc/passwd 2>/dev/null",
    "tar cf x.tar /etc/passwd 2>/dev/null; tar xf x.tar --to-command='touch @@'",
    "printf 'a:\\n\\ttouch @@\\n' > Makefile; make -s",
    "printf 'a: ; @touch @@\\n' | make -sf -",
    "make -s -f /dev/null --eval 'x:=$(shell touch @@)' --eval 'all:;@:' all",
    "git -c alias.x='!touch @@' x",
    (
        "git init -q r && cd r && printf '#!/bin/sh\\ntouch ../@@\\n' > .git/hooks/pre-commit &&"
        " chmod +x .git/hooks/pre-commit && git -c user.name=a -c user.email=a@b commit -q --allow-empty -m x; cd ..;"
        " sh -c 'touch @@'"
    ),
    "GIT_SSH_COMMAND='touch @@;' git ls-remote ssh://nowhere/x 2>/dev/null",
    (
        "git -c core.pager='touch @@;cat' -c pager.version=true --paginate version | cat;"
        " GIT_EDITOR='touch @@;' git var"
        " GIT_EDITOR >/dev/null; env touch @@"
    ),
    "GIT_EXTERNAL_DIFF='touch @@' git diff --no-index /etc/passwd /etc/group >/dev/null",
    (
        'printf \'int main(void){char*a[]={"touch","@@",0};return __builtin_popcount(0)+execv("/usr/bin/touch",a);}\''
        " > x.c; gcc -w -o x x.c && ./x"
    ),
    (
        'printf \'#include <stdlib.h>\\n__attribute__((constructor)) void f(void){unsetenv("LD_PRELOAD");'
        'system("touch @@");}\' > l.c; gcc -w -shared -fPIC -o l.so l.c && LD_PRELOAD=./l.so ls >/dev/null'
    ),
    (
        'printf \'#include <stdlib.h>\\n__attribute__((constructor)) void f(void){unsetenv("LD_AUDIT");'
        'system("touch @@");}\\nunsigned la_version(unsigned v){return v;}\' > l.c;'
        " gcc -w -shared -fPIC -o l.so l.c && LD_AUDIT=./l.so ls >/dev/null"
    ),
    (
        'printf \'#include <stdlib.h>\\nint f_builtin(void){return system("touch @@");}\\nstruct b{char*n;int(*f)();'
        'int l;char**d;char*s;char*h;};char*d[]={0};struct b f_struct={"f",f_builtin,1,d,"f",0};\' > b.c;'
        " gcc -w -shared -fPIC -o b.so b.c && enable -f ./b.so f && f"
    ),
]
_FILES: Final = [
    "cp /usr/bin/touch x; ./x @@",
    "cp /usr/bin/touch ls; PATH=.:$PATH ls @@",
    "cp /usr/bin/touch true; ./true @@",
    "cat /usr/bin/touch > x; chmod 700 x; ./x @@",
    "install -m 755 /usr/bin/touch x; ./x @@",
    "dd if=/usr/bin/touch of=x 2>/dev/null; chmod +x x; ./x @@",
    "cp /usr/bin/touch x; echo padding >> x; ./x @@",
    "mkdir -p a/usr/bin; cp /usr/bin/touch a/usr/bin/true; a/usr/bin/true @@",
    "ln -s /usr/bin/touch x; ./x @@",
    "ln -s /usr/bin/touch ls; ./ls @@",
    "ln -s /usr/bin d; d/touch @@",
    "ln -s /usr/bin/touch a; ln -s a b; ln -s b c; ./c @@",
    "ln /usr/bin/touch x 2>/dev/null && ./x @@; env touch @@",
    "ln -s /usr/bin/touch x; hash -p ./x ls; ls @@",
    "ln -s /usr/bin/touch x; PATH=$PWD:$PATH; x @@",
    "ln -s / root; root/usr/bin/touch @@",
    "tar cf - -C /usr/bin touch | tar xf -; ./touch @@",
    "cp /usr/bin/touch /tmp/x 2>/dev/null && /tmp/x @@; rm -f /tmp/x",
    "cp /usr/bin/touch /dev/shm/x 2>/dev/null && /dev/shm/x @@ || env touch @@",
    "exec 7< /usr/bin/touch; /proc/self/fd/7 @@ || env touch @@",
    "/proc/$$/root/usr/bin/touch @@ || env touch @@",
    "/lib64/ld-linux-x86-64.so.2 /usr/bin/touch @@",
    "/lib64/ld-linux-x86-64.so.2 --argv0 ls /usr/bin/touch @@",
    "/lib64/ld-linux-x86-64.so.2 --library-path /lib /usr/bin/touch @@",
    "/lib64/ld-linux-x86-64.so.2 --inhibit-cache --argv0 x /usr/bin/touch @@",
    "exec -a /usr/bin/true /lib64/ld-linux-x86-64.so.2 /usr/bin/touch @@",
    "env /lib/x86_64-linux-gnu/ld-linux-x86-64.so.2 /usr/bin/touch @@",
    "ln -s /lib64/ld-linux-x86-64.so.2 x; ./x /usr/bin/touch @@",
    "printf '#!/usr/bin/env touch\\n' > @@.sh; chmod +x @@.sh; ./@@.sh; env touch @@",
    "printf '#!/bin/sh\\ntouch @@\\n' > x; chmod +x x; ./x",
    "printf '#!/bin/bash\\ntouch @@\\n' > x; chmod +x x; ./x",
    "printf '#!/usr/bin/env bash\\ntouch @@\\n' > x; chmod +x x; ./x",
    "printf '#!/usr/bin/env -S touch @@\\n' > x; chmod +x x; ./x",
    "printf '#! /usr/bin/perl\\nsystem(\"touch @@\");\\n' > x; chmod +x x; ./x",
    "printf '#!/bin/sh\\ntouch @@\\n' > inner; chmod +x inner; printf '#!./inner\\n' > x; chmod +x x; ./x",
    "printf 'touch @@\\n' > x; chmod +x x; ./x",
    "printf '#!/bin/touch @@\\n' > x; chmod +x x; ./x",
    "printf '#!/usr/bin/touch @@' > x; chmod +x x; ./x",
    "ln -s /usr/bin/touch t; printf '#!./t @@\\n' > x; chmod +x x; ./x",
    "cp /usr/bin/touch t; printf '#!./t @@\\n' > x; chmod +x x; ./x",
    "printf '#!/bin/sh\\ntouch @@\\n' > ls; chmod +x ls; PATH=.:$PATH ls",
    f"setsid sh -c '(touch @@ &)' ; {UNTIL_IT_IS_THERE}",
    f"(sleep 0.1; touch @@) & disown; {UNTIL_IT_IS_THERE}",
    "for i in 1 2 3 4 5 6 7 8; do (exec -a t$i touch @@) & done; wait",
    'sh -c \'sh -c "sh -c \\"sh -c touch\\ @@\\""\'',
    'TOOL execveat @@; cd / ; env -C "$OLDPWD" touch @@',
]

SHELL_ATTACKS: Final = [*_QUOTING, *_EXPANSION, *_ENCODING, *_PROGRAMS, *_FILES]

# Ways of attack_tool.c whose twin creates the marker, and those that the wall stops for any marker.
TOOL_WAYS: Final = [
    *("execveat", "execveat-path-fd", "execveat-dirfd", "fexecve", "proc-fd", "proc-fd-dir", "memfd", "memfd-append"),
    *("memfd-cloexec", "deleted-copy", "false-name", "no-name", "path-as-name", "script-like-words", "vfork"),
    *("posix-spawn", "thread", "thread-leader-gone", "thread-of-child", "double-fork", "deep-tree"),
    *("orphan-of-killed", "clone-parent", "clone-vm", "clone-no-signal", "clone-files-fs", "clone-io-sysvsem"),
    *("clone-untraced", "clone-new-user", "clone-new-pid", "traceme", "seize-sibling"),
    *("race-words", "race-path", "race-link", "race-script-link", "race-file", "race-loader"),
    *("write-memory", "int80", "x32"),
]
HAS_NO_TWIN: Final = frozenset(
    {
        *("clone-untraced", "clone-new-user", "clone-new-pid", "write-memory", "int80", "x32"),
        # A loader's program that can be swapped is refused whatever it is.
        "race-loader",
    }
)

# An allow-list of everything that the attacks begin with, but of nothing that is called touch.
ON_THE_LIST_OF_SHELLS: Final = (
    *("bash", "sh", "dash", "env", "perl", "python3", "awk", "sed", "find", "xargs", "make", "git", "tar", "node"),
    *("tclsh", "ed", "vim", "sqlite3", "nice", "nohup", "timeout", "setsid", "stdbuf", "flock", "taskset", "ionice"),
    *("chrt", "setarch", "prlimit", "choom", "setpriv", "script", "time", "valgrind", "run-parts", "split", "sort"),
    *("base64", "od", "tr", "rev", "gzip", "gunzip", "xz", "openssl", "cat", "cp", "ln", "mkdir", "chmod", "install"),
    *("dd", "sleep", "rm", "true", "false", "kill", "gcc", "ls"),
)


def attacks(tool: str, static_tool: str) -> dict[str, str]:
    """Return every attack by name; ``tool`` and ``static_tool`` are the built attack_tool.c."""
    found = {f"{number:03}": text.replace("TOOL", tool) for number, text in enumerate(SHELL_ATTACKS)}
    for way in TOOL_WAYS:
        found[way] = f"{tool} {way} @@"
    for way in ("execveat", "vfork", "thread", "double-fork", "memfd", "deep-tree"):
        found[f"static {way}"] = f"{static_tool} {way} @@"
    return found
