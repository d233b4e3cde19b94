"""A kernel without Landlock: what requires it refuses and names the layer; what does not runs behind the other layers.

Profile ``observe`` shows the host's processes. As root it needs Landlock for that; for an ordinary account a user
namespace keeps commands from looking into them, so it runs, and the secrets of processes outside stay out of reach.
"""

import json
import os
import pwd
import subprocess
import sys

from checks import GUARDHOUSE, Checks

ORDINARY = "person"


def guardhouse(*words: str, as_person: bool = False) -> subprocess.CompletedProcess[str]:
    """Run the command as root or as an ordinary account."""
    user = ORDINARY if as_person else None
    environment = {**os.environ, "HOME": pwd.getpwnam(ORDINARY).pw_dir} if as_person else None
    return subprocess.run(
        [GUARDHOUSE, *words],
        capture_output=True,
        text=True,
        check=False,
        user=user,
        group=user,
        env=environment,
        cwd="/",
    )


def main() -> int:
    """Try root and an ordinary account."""
    checks = Checks()
    done = guardhouse("doctor", "--json", "--profile", "observe")
    found = json.loads(done.stdout)
    checks.equal("root: doctor says that observe cannot run", (done.returncode, found["runs"]), (1, False))
    checks.that("and that Landlock is why", list(found["profiles"]["observe"]["missing"]) == ["landlock"], found)
    checks.equal("isolate can", found["profiles"]["isolate"]["runs"], True)
    done = guardhouse("try", "--policy", "trusted_machine", "--profile", "observe", "--", "true")
    checks.equal("root: observe refuses", done.returncode, 125)
    checks.that("and names the layer", "requires landlock" in done.stderr, done.stderr)
    done = guardhouse("try", "--policy", "trusted_machine", "--profile", "isolate", "--json", "--", "id -un; ls /")
    answer = json.loads(done.stdout or "{}")
    checks.equal("root: isolate runs", (answer.get("exit_code"), answer.get("verdict")), (0, "allow"))
    checks.that("as the ordinary account", str(answer.get("stdout")).startswith("guardhouse"), answer)

    victim = subprocess.Popen(["sleep", "600"], env={"SECRET": "in-the-environment"}, user=ORDINARY, group=ORDINARY)
    try:
        done = guardhouse("doctor", "--json", "--profile", "observe", as_person=True)
        found = json.loads(done.stdout)
        checks.equal("ordinary account: observe can run", (done.returncode, found["runs"]), (0, True))
        checks.that("without Landlock, which is said", "landlock" in found["profiles"]["observe"]["without"], found)
        text = (
            f"ps -o args= -p {victim.pid}; cat /proc/{victim.pid}/environ; head -c 1 /proc/{victim.pid}/mem;"
            f" kill -9 {victim.pid}; touch /etc/x /home/person/x; echo end"
        )
        line = ("try", "--policy", "trusted_machine", "--profile", "observe", "--json", "--", text)
        done = guardhouse(*line, as_person=True)
        answer = json.loads(done.stdout or "{}")
        out, err = str(answer.get("stdout")), str(answer.get("stderr"))
        checks.that("ordinary account: observe runs", out.endswith("end\n"), (done.returncode, done.stderr, answer))
        checks.that("it sees the host's processes", "sleep 600" in out, answer)
        checks.that("but not the environment of one of the same account", "SECRET" not in out, answer)
        checks.that("nor its memory", f"/proc/{victim.pid}/mem" in err, answer)
        checks.equal("nor kills it", victim.poll(), None)
        checks.that("nor writes outside", "touch: cannot touch '/etc/x'" in err, answer)
        checks.that("not even what is the account's own", not os.path.exists("/home/person/x"), answer)
    finally:
        victim.kill()
        victim.wait()
    sys.stdout.flush()
    return checks.finish()


if __name__ == "__main__":
    raise SystemExit(main())
