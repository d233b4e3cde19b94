"""Everyday commands of people who look after machines, each under an allow-list as they would write it.

As a stranger's set of such commands would be: loops, pipes, substitutions, globs, quoting, here-documents, and programs
with helpers of their own. `SETUP` makes the files that they look at.
"""

from typing import Final

__all__ = ["BUILTINS", "EVERYDAY", "SETUP"]

# What every list has beside its programs: what the shell does itself.
BUILTINS: Final = "echo printf read [ [[ test true false cd pwd set local ulimit wait exit f"

SETUP: Final = (
    "mkdir -p logs etc src; printf '%s\\n' 'INFO start' 'ERROR disk full' 'WARN slow' 'ERROR timeout 504' >"
    " logs/app.log;"
    " printf '%s\\n' '10.0.0.1 - - [01/Jan/2024] \"GET /a HTTP/1.1\" 200 12' '10.0.0.2 - - [01/Jan/2024] \"GET /b"
    " HTTP/1.1\" 502 9' '10.0.0.1 - - [02/Jan/2024] \"POST /a HTTP/1.1\" 500 7' > logs/access.log;"
    " cp logs/app.log logs/app.log.1; gzip logs/app.log.1; printf 'name=web\\nport=8080\\n' > etc/app.conf;"
    ' printf \'{"items":[{"metadata":{"name":"a"},"status":{"phase":"Running"}},{"metadata":{"name":"b"},"status":'
    "{\"phase\":\"Failed\"}}]}' > pods.json; printf 'a,1\\nb,2\\nc,3\\n' > data.csv; printf 'print(1)\\n' > src/m.py;"
    " printf '%s\\n' '[section]' 'key = value' > etc/x.ini; tar czf backup.tgz logs etc; touch 'a file';"
    " echo x > x; echo y > y; cp data.csv in.txt"
)

_TEXT: Final = (
    "cat head tail grep egrep zgrep zcat awk sed sort uniq wc cut tr paste join column nl tac rev fold jq comm"
)
_FILES: Final = (
    f"{_TEXT} ls stat file find xargs du basename dirname realpath readlink md5sum sha256sum diff cmp tar od"
)
_SYSTEM: Final = (
    f"{_TEXT} ps free uptime uname hostname id whoami date df du ss ip lscpu lsblk findmnt env printenv getent nproc"
    " vmstat top systemctl journalctl dpkg dpkg-query apt-cache apt which ldd locale stat ls lsof ulimit sleep timeout"
)
_GIT: Final = "git head tail wc sort cat"

EVERYDAY: Final = {
    _TEXT: (
        "grep -c ERROR logs/app.log",
        "grep -E 'ERROR|WARN' logs/app.log | sort | uniq -c | sort -rn",
        "awk '{print $1}' logs/access.log | sort | uniq -c | sort -rn | head -5",
        "awk '$(NF-1) >= 500 {n++} END {print n+0 \" errors\"}' logs/access.log",
        "awk -F, '{s+=$2} END {print s}' data.csv",
        "sed -n '2,3p' logs/app.log",
        "sed 's/ERROR/E/g' logs/app.log | head -n 2",
        "sed -e '/^INFO/d' -e 's/ .*//' logs/app.log",
        "cut -d' ' -f1 logs/access.log | sort -u",
        "tail -n 2 logs/app.log | tac",
        "cat logs/app.log | tr a-z A-Z | rev",
        "zcat logs/app.log.1.gz | grep -c ERROR",
        "zgrep -h ERROR logs/app.log.1.gz logs/app.log",
        "zgrep -l ERROR logs/*.gz",
        "egrep -o '[0-9]{3} [0-9]+$' logs/access.log",
        "jq -r '.items[] | select(.status.phase != \"Running\") | .metadata.name' pods.json",
        "jq '.items | length' < pods.json",
        "cat pods.json | jq -c '[.items[].metadata.name]'",
        "paste -d: data.csv data.csv | column -t -s:",
        "sort -t, -k2 -nr data.csv | head -1",
        "join -t, data.csv data.csv | wc -l",
        "nl -ba etc/app.conf; fold -w 4 etc/app.conf",
        "comm -12 <(sort data.csv) <(sort data.csv)",
        'while read -r line; do echo "> $line"; done < etc/app.conf',
        'while IFS=, read -r k v; do echo "$k=$v"; done < data.csv | sort -r',
        'for f in logs/*.log; do echo "$f: $(grep -c . "$f")"; done',
        'n=$(wc -l < logs/app.log); echo "lines: $n"; [ "$n" -gt 3 ] && echo many',
        "if grep -q ERROR logs/app.log; then echo found; else echo none; fi",
        "grep -q NOTHING logs/app.log || echo 'no match'; echo \"status $?\"",
        "case $(head -1 etc/app.conf) in name=*) echo named;; *) echo other;; esac",
        "port=$(sed -n 's/^port=//p' etc/app.conf); echo \"port is ${port:-unset}\"",
        "cat <<EOF | sort\nb $(wc -l < data.csv)\na `head -1 data.csv`\nEOF",
        "printf '%s\\n' {1..5} | awk '{s+=$1} END {print s}'",
        "echo \"$((2**10)) ${PWD##*/}\" | cut -d' ' -f1",
        'f() { grep -c "$1" logs/app.log; }; f ERROR; f INFO',
        'arr=(a b c); for i in "${!arr[@]}"; do echo "$i ${arr[$i]}"; done',
        "set -euo pipefail; grep ERROR logs/app.log | head -1",
        "grep NOTHING logs/app.log | cat; echo ${PIPESTATUS[0]}",
        "{ head -1 logs/app.log; tail -1 logs/app.log; } | nl",
        "(cat data.csv; cat data.csv) | sort | uniq -d",
        "diff=$(comm -3 <(sort data.csv) <(sort etc/app.conf) | wc -l); echo $diff",
        "head -c 10 logs/app.log | wc -c; tail -c +5 data.csv | head -1",
        "x='rm -rf /'; grep -F -- \"$x\" logs/app.log || echo absent",
        "grep -rn --include='*.conf' port etc | cut -d: -f1,2",
        "awk 'BEGIN{while((getline l < \"data.csv\")>0) print toupper(l)}'",
    ),
    _FILES: (
        "find . -name '*.log' -type f | sort",
        "find . -name '*.log' -exec grep -l ERROR {} + | sort",
        "find . -name '*.log' -exec wc -l {} \\; | sort",
        "find . -type f -name '*.csv' -print0 | xargs -0 md5sum",
        "find . -maxdepth 1 -type f | xargs -I{} basename {} 2>/dev/null | sort",
        "ls logs | xargs -n1 echo | sort",
        "ls -1 *.csv *.json; ls nosuch 2>/dev/null || echo missing",
        "du -s logs | cut -f2; du --apparent-size -b data.csv",
        "stat -c '%s %F' data.csv logs",
        "file -b data.csv pods.json src/m.py",
        "tar tzf backup.tgz | sort; tar xzf backup.tgz -O etc/app.conf",
        "tar --list -f backup.tgz --wildcards '*.log' | wc -l",
        "sha256sum data.csv | cut -c1-16",
        "diff -u etc/app.conf etc/app.conf && echo same; cmp data.csv pods.json | head -1",
        "diff <(sort data.csv) <(sort -r data.csv); echo $?",
        "realpath --relative-to=. logs/../data.csv; readlink -f data.csv | xargs basename",
        "for f in $(find logs -name '*.log' | sort); do echo $(basename $f .log) $(wc -c < $f); done",
        "od -c data.csv | head -2; ls -A | wc -l",
        "find . -newer data.csv -name nothing | wc -l; find . -empty -type f | wc -l",
        "cat 'a file' | wc -c; ls -- a*",
    ),
    _SYSTEM: (
        "uname -s; uname -m",
        "whoami; id -un; id -u",
        "df -h / | awk 'NR==2 {print $6}'",
        "df -hT -x tmpfs | awk 'NR>1 && +$6 > 101 {print $7, $6}'",
        "free -m | awk '/^Mem/ {print ($2 > 0)}'",
        "ps aux | awk 'NR==1 {print $1, $2}'",
        "ps -eo pid,comm --sort=-pid | head -1",
        "uptime | grep -c load",
        "ss -H -tln | wc -l | awk '{print ($1 >= 0)}'",
        "ip -o -4 addr show lo | awk '{print $4}'",
        "lscpu | grep -c '^CPU(s)'",
        "findmnt -no FSTYPE /proc",
        "getent passwd root | cut -d: -f7",
        "getent hosts localhost | awk '{print $2}' | head -1",
        "env | grep -c '^PATH='; printenv HOME | wc -l",
        "date -u -d @0 +%F; date +%Y | grep -c 20",
        "nproc | grep -cE '^[0-9]+$'",
        "top -bn1 | head -1 | grep -c 'load average'",
        "vmstat 1 1 | wc -l",
        "dpkg -l bash | tail -1 | awk '{print $1, $2}'",
        "dpkg -S /bin/bash; dpkg-query -W -f '${Package}\\n' coreutils",
        "dpkg -L coreutils | grep -c /bin/",
        "apt-cache policy bash | sed -n 2p | tr -s ' '",
        "which bash ls | sort; which nosuch || echo none",
        "ldd $(which ls) | grep -c libc",
        "locale charmap 2>/dev/null; timeout 5 sleep 0; echo $?",
        "timeout 0.1 sleep 5; echo $?",
        "ulimit -n | grep -cE '^[0-9]+|unlimited$'",
        "for s in sshd cron nosuch; do systemctl is-active $s >/dev/null 2>&1 && echo $s; done; echo done",
        "systemctl --version | head -1 | cut -d' ' -f1",
        "journalctl --version | head -1 | cut -d' ' -f1",
        "cat /proc/loadavg | wc -w; head -1 /proc/meminfo | cut -d: -f1",
        "ls -l /proc/self/exe | awk '{print $NF}'",
        "sort -n <(ps -eo pid=) | head -1 | tr -d ' '",
        "lsof -v 2>&1 | grep -c revision",
    ),
    _GIT: (
        "git init -q p && git -C p status --short --branch | head -1",
        "git -C . rev-parse --git-dir 2>/dev/null || echo 'not a repository'",
        "git init -q q; cd q; git -c user.name=a -c user.email=a@b commit -q --allow-empty -m one; git log --format=%s",
        (
            "git init -q s && cd s && git config user.name a && git config user.email a@b && cat ../data.csv > f &&"
            " git add f && git commit -qm one && cat ../data.csv >> f && git diff --stat | tail -1 && git stash -q &&"
            " git status -s | wc -l && git stash pop -q && git diff | head -3 | tail -1 && git branch --list | wc -l"
        ),
        (
            "git init -q t && cd t && git config user.name a && git config user.email a@b && git commit -q"
            " --allow-empty -m x && cd .. && git clone -q t u && cd u && git fetch -q && git pull -q --ff-only;"
            " git log --oneline | wc -l"
        ),
    ),
}
