"""Everyday commands whose programs start others for their own work, and what an attacker would make of that.

`PARENTS` is an allow-list of what is typed; nothing of what those programs start is on it. Each command of `COMMANDS`
must run to the same output as without the gate, each of `ABUSES` must start nothing, and its twin shows that it would.
"""

from typing import Final

__all__ = ["ABUSES", "ABUSES_OF_THE_LIST", "ATTACKERS", "COMMANDS", "EVIL", "PARENTS", "SETUP", "WITHOUT_A_TWIN"]

# Made by the same wall without a gate, in the directory that the commands run in.
SETUP: Final = (
    "printf 'hello\\nworld\\n' > a; cp a b; echo more >> b; gzip -k a b; bzip2 -k a; bzip2 -k b; xz -k a; xz -k b;"
    " (zstd -q a) 2>/dev/null; tar czf t.tgz a b; tar cjf t.tbz a; tar cJf t.txz a;"
    " (tar --zstd -cf t.tzst a) 2>/dev/null;"
    " (zip -q z.zip a b) 2>/dev/null; printf 'int main(void){return 0;}\\n' > m.c;"
    " git init -q r; cd r; git config user.name a; git config user.email a@b; echo 1 > f; git add f;"
    " GIT_COMMITTER_DATE=2020-01-01T00:00Z git commit -q --date=2020-01-01T00:00Z -m one; cd ..; git clone -q r r2;"
    " cd r; echo 2 >> f; GIT_COMMITTER_DATE=2020-01-02T00:00Z git commit -q --date=2020-01-02T00:00Z -am two"
)

PARENTS: Final = (
    *("zcat", "uncompress", "gunzip", "zgrep", "zegrep", "zfgrep", "zless", "zmore", "zdiff", "zcmp", "xzcat"),
    *("xzgrep", "xzless", "xzmore", "xzdiff", "xzcmp", "bzcat", "bzgrep", "bzless", "bzmore", "bzdiff", "bzcmp"),
    *("zstdgrep", "zstdless", "zstdcat", "egrep", "fgrep", "rgrep", "which", "ldd", "tar", "man", "whatis", "git"),
    *("diff3", "sdiff", "dpkg", "dpkg-deb", "apt", "apt-cache", "apt-mark", "apt-config", "debsums", "lsb_release"),
    *("zipgrep", "gcc", "psql", "npm", "dpkg-architecture", "systemctl", "journalctl", "apropos", "less"),
)

# The first word of each says what has to be installed.
COMMANDS: Final = (
    "zcat a.gz b.gz",
    "uncompress -c a.gz",
    "gunzip -c a.gz",
    "gunzip -f b.gz && echo done",
    "zgrep -n hello a.gz b.gz",
    "zgrep -c 'o' a.gz",
    "zgrep -e hello -e more b.gz; zgrep -h more a.gz b.gz",
    "zegrep 'h|m' b.gz",
    "zfgrep hello a.gz",
    "zless a.gz",
    "zless a.gz b.gz | cat >/dev/null; zless a.gz",
    "zmore a.gz",
    "zdiff a.gz b.gz",
    "zdiff a.gz a; echo $?",
    "zcmp a.gz b.gz",
    "xzcat a.xz",
    "xzgrep hello a.xz b.xz",
    "xzgrep -c o a.xz",
    "xzless a.xz",
    "xzdiff a.xz b.xz",
    "xzcmp a.xz b.xz",
    "bzcat a.bz2",
    "bzgrep hello a.bz2 b.bz2",
    "bzdiff a.bz2 b.bz2",
    "bzcmp a.bz2 a.bz2; echo $?",
    "zstdgrep hello a.zst",
    "zstdless a.zst",
    "zstdcat a.zst",
    "egrep 'h|w' a",
    "fgrep h a",
    "rgrep hello r",
    "which ls bash nosuch; echo $?",
    "which -a which",
    "ldd /bin/ls",
    "ldd /bin/ls /bin/cat; ldd /nosuch; ldd a; echo $?",
    "tar czf n.tgz a b && tar tzf n.tgz",
    "tar cjf n.tbz a && tar tjvf t.tbz",
    "tar cJf n.txz a && tar tf t.txz",
    "tar --zstd -cf n.tzst a && tar tf t.tzst",
    "tar caf n.tar.xz a && tar xaf n.tar.xz && tar df n.tar.xz",
    "tar cf n.tar --use-compress-program=gzip a && tar tf n.tar",
    "tar xzf t.tgz && tar xf t.tgz -O",
    "tar xf t.txz --to-stdout a",
    "man ls",
    "man -w ls",
    "man -k nosuchthing; echo $?",
    "whatis ls",
    "git -C r log --format=%s",
    "git -C r diff HEAD~1",
    "git -C r status --short",
    "git -C r show --format=%s",
    "git -C r blame -s f",
    "git -C r archive HEAD | tar t",
    "git -C r archive --format=tar.gz HEAD > n.tgz; echo $?",
    "git ls-remote r | head -c 0; echo $?",
    "git clone -q r r3; echo $?; git -C r3 log --format=%s",
    "git -C r2 fetch -q; echo $?",
    "git -C r2 pull -q; echo $?; git -C r2 log --format=%s",
    "git -C r gc -q; echo $?",
    "git -C r fsck 2>/dev/null; echo $?",
    "git -C r submodule status; echo $?",
    "git -C r commit -q --allow-empty -m three; echo $?",
    "git -C r stash list; git -C r branch -a",
    "git --paginate -C r log --format=%s",
    "git help log | tail -n +3",
    "git bundle create n.bundle HEAD; cd r && git bundle create -q n.bundle HEAD; echo $?",
    "git clone -q file://$PWD/r r4; echo $?",
    "git ls-remote https://127.0.0.1:1/x 2>&1 | head -c 60",
    "diff3 a b a",
    "sdiff a b",
    "dpkg -l bash",
    "dpkg -L bash | wc -l",
    "dpkg -S /bin/bash",
    "dpkg -s bash",
    "apt list bash 2>/dev/null",
    "apt-cache policy bash",
    "apt-cache show bash",
    "apt-mark showhold",
    "apt-config dump | wc -l",
    "debsums -s debianutils; echo $?",
    "lsb_release -a 2>/dev/null",
    "zipgrep hello z.zip",
    "gcc -o n m.c; echo $?",
    "gcc -c m.c; gcc -E m.c | wc -l; gcc --version",
    "gcc -O1 -flto -o n m.c; echo $?",
    "psql --version",
    "npm --version",
    "dpkg-architecture -qDEB_HOST_ARCH",
    "systemctl --version | head -1",
    "less a",
)

# Made beside SETUP: programs and libraries of the attacker's, each of which makes the marker that `@@` stands for.
EVIL: Final = (
    "printf '#!/bin/sh\\ntouch @@\\n' > evil; chmod +x evil; echo 'touch @@' > loads;"
    ' echo \'require("child_process").execSync("touch @@")\' > evil.js;'
    " echo 'package evil; system(\"touch @@\"); 1;' > evil.pm; printf '.TH X 1\\n.sy touch @@\\n' > bad.1;"
    " for x in gzip grep sed diff mktemp tbl nroff preconv less pager more cut tr xz bzip2 node env as cc1 ld collect2"
    " file cat man sh git-remote-https getopt locale groff; do cp evil $x; done"
)

# What the abuses need around them; under the allow-list it may run.
ATTACKERS: Final = ("cp", "ln", "mkdir", "chmod", "env", "script", "cat", "head", "tail", "wc", "mv", "sh", "bash")


def _preloaded(parent: str, *words: str) -> str:
    """Return a text that makes ``parent`` start a program with these words, by a library that it loads."""
    quoted = ",".join(f'"{word}"' for word in words)
    program = (
        "#include <stdlib.h>\n#include <unistd.h>\n__attribute__((constructor)) static void f(void){"
        f'unsetenv("LD_PRELOAD");execlp("{words[0]}",{quoted},(char*)0);}}'
    )
    return f"echo '{program}' > l.c; gcc -w -shared -fPIC -o l.so l.c; LD_PRELOAD=$PWD/l.so {parent} < a"


# In these a helper is used with words that are not its own: the marker is made by it, so no rule about touch sees that.
ABUSES_OF_THE_LIST: Final = (
    "DIFF='mkdir @@;' zdiff a.gz b.gz",
    "tar cf n.tar -I 'sh -c \"> @@\"' a; /bin/mkdir @@",
    _preloaded("zgrep x a.gz", "sed", "-n", "1w@@", "a"),
    _preloaded("zgrep x a.gz", "sed", "-i.@@", "s/h/j/", "a"),
    _preloaded("zgrep x a.gz", "sed", "s/h/j/w @@", "a"),
    _preloaded("zgrep x a.gz", "sed", "-e", "s/.*/touch @@/e", "a"),
    _preloaded("zgrep x a.gz", "gzip", "-S", ".@@", "a"),
    _preloaded("zcat a.gz", "gzip", "-S", ".@@", "a"),
    _preloaded("zcat a.gz", "mkdir", "@@"),
    _preloaded("bzdiff a.bz2 b.bz2", "mv", "a", "@@"),
    _preloaded("tar tzf t.tgz", "sh", "-c", "touch @@"),
    _preloaded("tar tzf t.tgz", "sh", "-c", "gzip>@@"),
    _preloaded("tar tzf t.tgz", "gzip", "-S.@@", "a"),
    _preloaded("git -C r status", "sh", "-c", "git-upload-pack 'r';mkdir @@", "x"),
    _preloaded("ldd /bin/ls", "/lib64/ld-linux-x86-64.so.2", "/bin/mkdir", "@@"),
    _preloaded("less a", "sh", "-c", "gzip -cdfq -- a;mkdir @@"),
    _preloaded("less a", "sh", "-c", "gzip -cdfq -- `mkdir @@`"),
)

# The last word of some shows only that the marker can be made, where the version installed here closes the way itself.
ABUSES: Final = (
    "GREP='touch @@;' zgrep x a.gz",
    "GREP=./evil zgrep hello a.gz",
    "CMP='touch @@' DIFF='touch @@;' zdiff a.gz b.gz",
    "PATH=.:$PATH zcat a.gz",
    "PATH=.:$PATH zgrep hello a.gz",
    "PATH=.:$PATH xzdiff a.xz b.xz",
    "PATH=.:$PATH tar xzf t.tgz",
    "PATH=.:$PATH tar czf n.tgz a",
    "PATH=.:$PATH man ls",
    "PATH=$PWD:$PATH npm --version",
    "PATH=.:$PATH lsb_release -a",
    "PATH=.:$PATH sdiff a b",
    "PATH=.:$PATH zless a.gz",
    "tar cf n.tar -I ./evil a",
    "tar cf n.tar --use-compress-program=./evil a",
    "tar cf n.tar --use-compress-program='touch @@' a",
    "tar cf n.tar -I 'sh -c \"touch @@\"' a",
    "tar xf t.tgz -I ./evil",
    "tar cf n.tar -I 'gzip; touch @@' a",
    "tar xf t.tgz --to-command=./evil",
    "tar cf /dev/null --checkpoint=1 --checkpoint-action=exec=./evil a",
    "TAR_OPTIONS='--use-compress-program=./evil' tar cf n.tar a",
    "TAR_OPTIONS='--checkpoint=1 --checkpoint-action=exec=./evil' tar cf n.tar a",
    "TAR_OPTIONS=--to-command=./evil tar xf t.tgz",
    "LESSOPEN='|touch @@ %s' less a | cat",
    "LESSOPEN='|./evil %s' less a | cat",
    "LESSOPEN='|gzip -cdfq -- %s; touch @@' less a | cat",
    "LESSCLOSE='touch @@' LESSOPEN='|cat %s' less a | cat",
    "SHELL=./evil zless a.gz | cat",
    "script -qec 'man -P ./evil ls' /dev/null",
    "MANPAGER='touch @@' script -qec 'man ls' /dev/null",
    "script -qec 'man -P \"touch @@\" ls' /dev/null",
    "MANOPT=-P./evil script -qec 'man ls' /dev/null",
    "MANROFFOPT='-U' man ./bad.1",
    "BASH_ENV=./evil ldd /bin/ls",
    "BASH_ENV=./loads ldd /bin/ls",
    "ENV=./evil zcat a.gz; BASH_ENV=./evil zcat a.gz; sh ./evil",
    "LD_TRACE_LOADED_OBJECTS= ldd ./evil; sh ./evil",
    "cp /lib64/ld-linux-x86-64.so.2 l; ./l /usr/bin/touch @@",
    "script -qec 'git -c core.pager=./evil log --no-index; git -c core.pager=../evil -C r log' /dev/null",
    "cd r; GIT_PAGER='touch ../@@' script -qec 'git log' /dev/null",
    "git -c alias.x='!touch @@' x",
    "git -C r -c alias.x='!sh ../evil' x",
    (
        "cd r; printf '#!/bin/sh\\ntouch ../@@\\n' > .git/hooks/post-commit; chmod +x .git/hooks/post-commit;"
        " git commit -q --allow-empty -m x"
    ),
    (
        "cd r; printf '#!/bin/sh\\ntouch ../@@\\n' > .git/hooks/pre-auto-gc; chmod +x .git/hooks/pre-auto-gc;"
        " git -c gc.auto=1 -c gc.autoDetach=false gc --auto; for i in 1 2 3; do"
        " git -c gc.auto=1 -c gc.autoDetach=false commit -q --allow-empty -m $i; done; sh .git/hooks/pre-auto-gc"
    ),
    "git ls-remote ext::'touch @@' ; GIT_ALLOW_PROTOCOL=ext git ls-remote 'ext::touch @@'",
    "git ls-remote --upload-pack='touch @@;git-upload-pack' r",
    "git -c protocol.ext.allow=always ls-remote 'ext::sh -c touch% @@'",
    "git clone -q -u 'touch @@;' r r5",
    "git -C r -c core.fsmonitor='touch ../@@' status",
    "git -C r -c diff.external='touch ../@@;' diff HEAD~1",
    "GIT_EXTERNAL_DIFF=../evil git -C r diff HEAD~1; GIT_EXTERNAL_DIFF='touch @@;' git diff --no-index a b",
    "git -C r -c core.editor='touch ../@@;' commit --allow-empty",
    "git -C r -c core.sshCommand='touch ../@@;' ls-remote ssh://x/y",
    "GIT_SSH_COMMAND='touch @@;' git ls-remote ssh://x/y",
    "GIT_SSH=./evil git ls-remote ssh://x/y",
    "GIT_PROXY_COMMAND=./evil git ls-remote git://x/y",
    "GIT_ASKPASS=./evil git credential fill <<< protocol=https$'\\n'host=x",
    "git -c credential.helper='!touch @@;' credential fill <<< protocol=https$'\\n'host=x",
    "mkdir e; ln -s ../evil e/git-evil; PATH=$PWD/e:$PATH git evil",
    (
        "mkdir e; cp /usr/lib/git-core/git-submodule e/; cp evil e/git; GIT_EXEC_PATH=$PWD/e git -C r submodule status;"
        " sh evil"
    ),
    "GIT_EXEC_PATH=$PWD git ls-remote https://127.0.0.1:1/x; sh evil",
    "git -C r submodule foreach 'touch @@'; git -C r -c alias.y='!touch ../@@' y",
    "git -C r bisect start HEAD HEAD~1; git -C r bisect run sh -c 'touch ../@@'; sh evil",
    "echo '* filter=x' > r/.gitattributes; git -C r -c filter.x.clean='touch ../@@' add .",
    "gcc -wrapper ./evil -c m.c",
    "gcc -wrapper touch,@@,-- -c m.c",
    "gcc -B . -o n m.c",
    "COMPILER_PATH=. gcc -o n m.c",
    "GCC_EXEC_PREFIX=./ gcc -c m.c; sh evil",
    "PERL5OPT='-Mevil' PERL5LIB=. debsums -s bash",
    "PERL5OPT=-Mevil PERL5LIB=. psql --version",
    "PERL5OPT=-Mevil PERL5LIB=. dpkg-architecture",
    "NODE_OPTIONS='--require ./evil.js' npm --version",
    "npm_config_script_shell=./evil npm exec -c 'touch @@'",
    "cp /bin/zcat z; echo 'touch @@' >> z; cp evil zcat; PATH=.:$PATH zcat a.gz",
    "cp /bin/zgrep grep; printf '#!/bin/sh\\ntouch @@\\n' > egrep; chmod +x egrep; PATH=.:$PATH egrep x a",
    "cd /; exec -a zgrep touch ~-/@@ || :; cd ~-; (exec -a tar ./evil)",
)

# Tried like the others; the versions of Debian 12 close these ways themselves, so that no twin can show them.
WITHOUT_A_TWIN: Final = (
    "PATH=$PWD:$PATH script -qec 'git -C r log' /dev/null",
    "GREP=\"sed -n '1e touch @@' a;\" zgrep x a.gz",
    "GREP='gzip -c a >/dev/null; touch @@;' zgrep x a.gz",
    "PATH=.:$PATH bzgrep hello a.bz2",
    "PATH=.:$PATH ldd /bin/ls",
    "tar xf t.tgz -I 'gzip -d; touch @@'",
    "tar cMf n1 -L 1 --info-script=./evil a /bin/bash",
    "tar xf t.tgz --rmt-command=./evil --rsh-command=./evil -f host:x",
    "LESSOPEN='|gzip -cdfq -- $(touch @@)' less a | cat",
    "man -H'touch @@' ls",
    "BROWSER='touch @@' man -H ls",
    "env 'BASH_FUNC_cat%%=() { touch @@; }' ldd /bin/ls",
)
