"""More evasions of the rule that denies `touch PWNED*`, by what `attacks.py` has not: features of shells, tools, files.

Written as those are: `@@` is the marker, with another one (the twin) the text must create it. By subject; a text that
needs a program which is not installed is left out by name.
"""

# ruff: noqa: E501 - an attack stays in one line as it would be typed
from typing import Final

from tests.gate.attacks import UNTIL_IT_IS_THERE

__all__ = ["EVASIONS"]

_SCRIPT: Final = 'printf \'#!/bin/sh\\ntouch "%s"/@@\\ncat\\n\' "$PWD" > s; chmod +x s'
_REPOSITORY: Final = (
    "git init -q r; cd r; git config user.name a; git config user.email a@b; echo 1 > f; git add f;"
    " git commit -qm one; echo 2 >> f; git commit -qam two"
)

_BASH: Final = [
    "BASH_CMDS[ls]=/usr/bin/touch; ls @@",
    "shopt -s expand_aliases; BASH_ALIASES[x]='touch @@'; eval x",
    "x='\\x74ouch'; ${x@E} @@",
    "x=TOUCH; ${x@L} @@",
    "declare -l x=TOUCH; $x @@",
    "[[ xtouchx =~ t.*h ]]; $BASH_REMATCH @@",
    "x=y; y=touch; ${!x} @@",
    "$'\\u0074ouch' @@",
    "printf 'touch @@' > s; bash /proc/self/fd/0 < s",
    "bash /dev/stdin <<< 'touch @@'",
    "exec bash <<< 'touch @@'",
    "SHELLOPTS=xtrace PS4='$(touch @@)' bash -c ':' 2>/dev/null; env SHELLOPTS=xtrace PS4='$(touch @@)' bash -c : 2>/dev/null",
    "PROMPT_COMMAND='touch @@' bash --norc -i < /dev/null 2>/dev/null",
    "PS1='$(touch @@)' bash --norc -i < /dev/null 2>/dev/null",
    "PS0='$(touch @@)' bash --norc -i <<< : 2>/dev/null",
    "printf 'touch @@' > e; ENV=$PWD/e dash -i < /dev/null 2>/dev/null",
    "f() { exec touch \"$1\"; }; declare -xf f; echo @@ | xargs -I% bash -c 'f %'",
    "exec 0<<< 'touch @@'; . /proc/self/fd/0",
    "cd /proc/self/root/usr/bin && ./touch ~-/@@",
    "/proc/thread-self/root/usr/bin/touch @@",
    "zsh -c 'zmodload zsh/zpty; zpty x touch @@; sleep 0.2; zpty -r x' >/dev/null; zsh -c '() { $* } touch @@'",
    "printf 'touch %s' $PWD/@@ > .zshenv; ZDOTDIR=$PWD zsh -c :",
    "zsh -c 'autoload -U zargs; zargs @@ -- touch'",
    "ksh -c 'x=${ touch @@; }'",
]
_TOOLS: Final = [
    "printf '.\\0' | find -files0-from - -maxdepth 0 -exec touch @@ ';'",
    "echo @@ > f; xargs -a f -d '\\n' -n1 --process-slot-var=N touch",
    f"{_SCRIPT}; seq 100000 > big; sort -S 400k --compress-program=./s big > /dev/null 2>&1",
    f"{_SCRIPT}; cp /usr/bin/true t; install -s --strip-program=./s t u 2>/dev/null < /dev/null",
    f"{_SCRIPT}; head -c 300000 /dev/zero > big; tar -cML 100 -F ./s -f v.tar big < /dev/null 2>/dev/null",
    f"{_SCRIPT}; ssh-keygen -q -N 'a long one' -t ed25519 -f k; SSH_ASKPASS=$PWD/s SSH_ASKPASS_REQUIRE=force ssh-keygen -y -f k < /dev/null 2>/dev/null",
    "printf 'Match exec \"touch %s\"\\n' $PWD/@@ > c; ssh -F c -o ConnectTimeout=1 nowhere 2>/dev/null",
    "RSYNC_CONNECT_PROG='touch @@' rsync rsync://x/y 2>/dev/null",
    "RSYNC_RSH=\"sh -c 'touch @@'\" rsync x:y . 2>/dev/null",
    "sqlite3 :memory: 'create table t(a)' '.import \"|touch @@\" t' 2>/dev/null",
    "sqlite3 :memory: \"select edit('', 'touch @@;')\" 2>/dev/null",
    "printf '.shell touch @@\\n' > i; sqlite3 -init i :memory: .quit 2>/dev/null",
    "vim -es -u NONE -c 'set makeprg=touch\\ @@' -c make -c q! < /dev/null",
    "vim -es -u NONE -c 'call job_start(\"touch @@\")' -c 'sleep 300m' -c q! < /dev/null",
    "echo x > f; vim -es -u NONE -c '%!touch @@' -c q! f < /dev/null",
    "vim -es -u NONE --cmd 'let x = systemlist(\"touch @@\")' -c q! < /dev/null",
    "ex -s -u NONE -c '!touch @@' -c q! < /dev/null",
    "gdb -nx -batch -ex 'target remote | touch @@' 2>/dev/null",
    "printf 'shell touch @@\\n' > c; gdb -nx -batch -x c",
    "BROWSER=\"sh -c 'touch @@' %s\" python3 -m webbrowser x > /dev/null",
    "printf 'import os\\nos.system(\"touch @@\")' > s.py; python3 -m cProfile -o /dev/null s.py",
    'printf \'import os\\ndef test(): os.system("touch @@")\\n__test__={"a": ">>> import os; _ = os.system(\\\\"touch @@\\\\")"}\' > s.py; python3 -m doctest s.py',
    'python3 -c \'import os; os.spawnve(os.P_WAIT, "/usr/bin/touch", ["/bin/ls", "@@"], {})\'',
    'python3 -c \'import os; os.execve("/" + "./" * 2030 + "usr/bin/touch", ["x", "@@"], {})\'',
    "PERL5DB='BEGIN{system(\"touch @@\")}' perl -d -e 1 < /dev/null 2>/dev/null",
    'perl -e \'open F,"<","/usr/bin/touch"; use Fcntl; fcntl F,F_SETFD,0; exec {"/proc/self/fd/".fileno F} "ls","@@"\'',
    'perl -e \'$SIG{__DIE__}=sub{system "touch","@@"}; die\' 2>/dev/null',
    "ruby -rpty -e 'PTY.spawn(\"touch @@\"){|r,w,p| Process.wait p}'",
    'ruby -rfiddle -e \'Fiddle::Function.new(Fiddle.dlopen(nil)["system"],[Fiddle::TYPE_VOIDP],Fiddle::TYPE_INT).call("touch @@")\'',
    'php -r \'pcntl_exec("/usr/bin/touch",["@@"]);\'',
    'php -d sendmail_path=\'touch @@;\' -r \'mail("a","b","c");\' 2>/dev/null',
    "printf '<?php shell_exec(\"touch @@\");' > p.php; echo > q.php; php -d auto_prepend_file=p.php q.php",
    'echo \'require("child_process").execSync("touch @@")\' > w.js; node -e \'require("child_process").fork("./w.js")\'',
    'node --input-type=module -e \'import {execFileSync as e} from "child_process"; e("touch",["@@"])\'',
    'printf \'{"scripts":{"x":"touch @@"}}\' > package.json; npm_config_cache=$PWD/c npm run -s x 2>/dev/null',
    "npm_config_cache=$PWD/c npm exec -c 'touch @@' 2>/dev/null",
    "printf 'execute_process(COMMAND touch @@)' > x.cmake; cmake -P x.cmake",
    "cmake -E env touch @@",
    "printf 'rule t\\n command = touch @@\\nbuild x: t\\n' > build.ninja; ninja > /dev/null",
    "fakeroot touch @@",
    f"tmux -S $PWD/t -f /dev/null new-session -d 'touch $PWD/@@' 2>/dev/null; {UNTIL_IT_IS_THERE}",
    "printf '<delegatemap><delegate decode=\"zzz\" command=\"touch @@\"/></delegatemap>' > delegates.xml; echo > x.zzz; MAGICK_CONFIGURE_PATH=$PWD convert x.zzz y.png 2>/dev/null; sh -c 'touch @@'",
    "uclampset -m 0 touch @@ 2>/dev/null || env touch @@",
    "capsh -- -c 'touch @@' 2>/dev/null || sh -c 'touch @@'",
    "DEBIAN_FRONTEND=noninteractive debconf touch @@ 2>/dev/null; env touch @@",
]
_GIT: Final = [
    f"{_REPOSITORY}; git bisect start -q HEAD HEAD~1 > /dev/null; git bisect run touch ../@@ > /dev/null 2>&1; git rebase -q --exec 'touch ../@@' HEAD~1 2>/dev/null",
    f"{_REPOSITORY}; git rebase --exec 'touch ../@@' HEAD~1 > /dev/null 2>&1",
    f"{_REPOSITORY}; git difftool -y -x 'touch ../@@;:' HEAD~1 > /dev/null 2>&1",
    f"{_REPOSITORY}; git -c tar.x.command='touch ../@@;cat' archive --format=x HEAD > /dev/null",
    f"{_REPOSITORY}; echo 'f diff=x' > .gitattributes; git -c diff.x.textconv='touch ../@@;cat' diff HEAD~1 > /dev/null",
    f"{_REPOSITORY}; echo 'f merge=x' > .gitattributes; git checkout -q -b o HEAD~1; echo 3 >> f; git commit -qam t; git -c merge.x.driver='touch ../@@; true' merge -q --no-edit - > /dev/null 2>&1",
    f"{_REPOSITORY}; echo m | git -c trailer.x.command='touch ../@@' interpret-trailers --trailer x=1 > /dev/null",
    f"{_REPOSITORY}; GIT_EDITOR='touch ../@@;:' git config --local --edit",
    f"{_REPOSITORY}; GIT_SEQUENCE_EDITOR='touch ../@@;:' git rebase -q -i HEAD~1 > /dev/null 2>&1",
    f"{_REPOSITORY}; git clone -q -u 'touch @@;git-upload-pack' . ../q 2>/dev/null; cd ..; git clone -q -u 'touch @@;git-upload-pack' r q2",
    f"{_REPOSITORY}; printf '#!/bin/sh\\ntouch ../@@' > git-remote-x; chmod +x git-remote-x; PATH=.:$PATH git -c remote.o.vcs=x fetch o 2>/dev/null; PATH=.:$PATH git ls-remote x://y 2>/dev/null",
    f"{_REPOSITORY}; mkdir h; printf '#!/bin/sh\\ntouch ../@@' > h/x; chmod +x h/x; git -c core.hooksPath=h hook run x",
    f"{_REPOSITORY}; mkdir e; printf '#!/bin/sh\\ntouch ../@@' > e/git-x; chmod +x e/git-x; git --exec-path=$PWD/e x; GIT_EXEC_PATH=$PWD/e git x",
]
_FILES: Final = [
    "exec 9< /usr/bin/touch; printf '#!/proc/self/fd/9\\n' > x; chmod +x x; ./x @@",
    "printf '#!/bin/busybox touch\\n' > x; chmod +x x; ./x @@; busybox sh -c '/usr/bin/touch @@'",
    "printf '#!/lib64/ld-linux-x86-64.so.2 /usr/bin/touch\\n' > x; chmod +x x; ./x @@",
    "printf '#!/usr/bin/touch\\n' > a; for i in b c d; do printf '#!%s/%s\\n' $PWD $p${p:-a} > $i; p=; done; chmod +x a b c d; ./b @@; ./d @@",
    "printf '#!/usr/bin/env -S -i touch @@\\n' > x; chmod +x x; ./x",
    "printf '#!/bin/env\\ttouch\\n' > @@.x; printf '#!\\t /usr/bin/touch\\t@@' > x; chmod +x x; ./x",
    "cp /usr/bin/touch x; strip x 2>/dev/null; ./x @@",
    "objcopy /usr/bin/touch x && ./x @@",
    "ln -s /usr/bin d; ln -s d/touch e; (exec -a sh ./e @@)",
    "cp /lib64/ld-linux-x86-64.so.2 l; printf '#!%s/l /usr/bin/touch\\n' $PWD > x; chmod +x x; ./x @@; env touch @@",
    "mkdir -p p; cp /usr/bin/touch p/cat; GIT_PAGER=p/cat; PATH=$PWD/p cat @@",
    "exec 8< /usr/bin/; /proc/self/fd/8/touch @@",
    "cp /usr/bin/touch x; exec 5< x; mv x y; cp /usr/bin/true x; /proc/self/fd/5 @@",
]

EVASIONS: Final = [*_BASH, *_TOOLS, *_GIT, *_FILES]
