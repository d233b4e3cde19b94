"""`guardhouse try` on this host: each shipped profile that doctor says can run does run, as root and as an account.

And does what it is for: the workspace can be written, nothing else can.
"""

import json
import os
import pwd
import subprocess

from checks import GUARDHOUSE, Checks

TEXT = "echo kept > file && cat file; touch /etc/x /usr/x /var/lib/x; cat /etc/shadow; echo end"


def guardhouse(user: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the command as ``user``."""
    entry = pwd.getpwnam(user)
    return subprocess.run(
        [GUARDHOUSE, *words],
        capture_output=True,
        text=True,
        check=False,
        user=entry.pw_uid,
        group=entry.pw_gid,
        extra_groups=[],
        env={**os.environ, "HOME": entry.pw_dir},
        cwd="/",
    )


def main() -> int:
    """Try both accounts and both profiles."""
    checks = Checks()
    for user in ("root", "person"):
        found = json.loads(guardhouse(user, "doctor", "--json").stdout)
        checks.fact(f"{user}: Landlock ABI, cgroup version", (found["landlock_abi"], found["cgroup_version"]))
        for profile in ("isolate", "observe"):
            line = ("try", "--policy", "trusted_machine", "--profile", profile, "--json", "--", TEXT)
            done = guardhouse(user, *line)
            if not found["profiles"][profile]["runs"]:
                checks.equal(f"{user}: {profile} refuses, as doctor says", done.returncode, 125)
                continue
            answer = json.loads(done.stdout or "{}")
            out, err = str(answer.get("stdout")), str(answer.get("stderr"))
            checks.that(f"{user}: {profile} runs, as doctor says", out == "kept\nend\n", (answer, done.stderr))
            held = all(f"touch: cannot touch '{path}'" in err for path in ("/etc/x", "/usr/x", "/var/lib/x"))
            checks.that(f"{user}: {profile} keeps the host unwritten", held, err)
            checks.that(f"{user}: {profile} shows no password hashes", "/etc/shadow" in err and "$" not in out, err)
    return checks.finish()


if __name__ == "__main__":
    raise SystemExit(main())
