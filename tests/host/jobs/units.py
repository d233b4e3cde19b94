"""The unit files as they ship, started by systemd: a hub and a runner on one host, with the token as a credential.

What is claimed: both units verify and start; a command goes through hub, runner and wall under both identities that
the unit can have; the token is in no environment, argument or file that a command can read; a refused token stops the
runner for good, a crash does not; nothing is left of a stopped or killed runner.
"""

import json
import os
import ssl
import subprocess
import time
import urllib.request
from pathlib import Path

from checks import GUARDHOUSE, Checks

ETC = Path("/etc/guardhouse")
RUNNER = "guardhouse-runner.service"
HUB = "guardhouse-hub.service"
GROUP = Path("/sys/fs/cgroup/system.slice") / RUNNER
DROP_IN = Path("/etc/systemd/system") / f"{RUNNER}.d"
CLIENT = {
    "GUARDHOUSE_HUB_URL": "https://localhost:8443",
    "GUARDHOUSE_CA_FILE": str(ETC / "ca.pem"),
    "GUARDHOUSE_API_TOKEN_FILE": "/var/lib/guardhouse-hub/owner.token",
}
# The wall is tried here, so the policy lets through what the wall must stop.
RUNNER_SETTINGS = """
GUARDHOUSE_URL=wss://localhost:8443
GUARDHOUSE_CA_FILE=/etc/guardhouse/ca.pem
GUARDHOUSE_POLICY=trusted_machine
"""


def sh(*words: str, input_text: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program; the caller looks at its status."""
    return subprocess.run(words, capture_output=True, text=True, check=False, input=input_text, cwd="/")


def guardhouse(*words: str) -> subprocess.CompletedProcess[str]:
    """Run the client against the hub."""
    environment = {**os.environ, **CLIENT, "HOME": "/root"}
    return subprocess.run([GUARDHOUSE, *words], capture_output=True, text=True, check=False, env=environment, cwd="/")


def exec_(text: str) -> subprocess.CompletedProcess[str]:
    """Run a command text in the environment."""
    return guardhouse("exec", "host-1", "--", text)


def show(unit: str, name: str) -> str:
    """Return one property of a unit."""
    return sh("systemctl", "show", "--value", "-p", name, unit).stdout.strip()


def journal(unit: str) -> str:
    """Return what a unit has logged last, for a claim that failed."""
    return sh("journalctl", "--no-pager", "-n", "15", "-o", "cat", "-u", unit).stdout


def wait_until(check: object, *, within_s: float = 120.0) -> bool:
    """Call ``check`` until it is true."""
    deadline_s = time.monotonic() + within_s
    while time.monotonic() < deadline_s:
        if callable(check) and check():
            return True
        time.sleep(0.2)
    return False


def is_online() -> bool:
    """Tell whether the hub sees the runner."""
    done = guardhouse("env", "list", "--status", "online", "--json")
    return done.returncode == 0 and "host-1" in done.stdout


def write_settings(more: str = "") -> None:
    """Write the runner's environment file."""
    (ETC / "runner.env").write_text(RUNNER_SETTINGS + more, encoding="ascii")


def make_certificates() -> None:
    """Make an authority and a certificate for localhost."""
    ETC.mkdir(exist_ok=True)
    name = ("-subj", "/CN=localhost", "-days", "2", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
    extensions = ("-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:true")
    files = ("-keyout", str(ETC / "hub.key"), "-out", str(ETC / "ca.pem"))
    subprocess.run(["openssl", "req", "-x509", *name, *extensions, *files], check=True, capture_output=True)
    sh("chown", "guardhouse-hub:guardhouse-hub", str(ETC / "hub.key"))
    settings = (
        "LISTEN=127.0.0.1:8443",
        f"TLS_CERT={ETC}/ca.pem",
        f"TLS_KEY={ETC}/hub.key",
        "PUBLIC_URL=https://localhost:8443",
    )
    (ETC / "hub.env").write_text("".join(f"GUARDHOUSE_HUB_{line}\n" for line in settings), encoding="ascii")


def try_hub(checks: Checks) -> None:
    """The hub's unit."""
    done = sh("systemd-analyze", "verify", f"/etc/systemd/system/{HUB}", f"/etc/systemd/system/{RUNNER}")
    checks.that("both unit files verify", done.returncode == 0 and "guardhouse" not in done.stderr, done.stderr)
    began_s = time.monotonic()
    done = sh("systemctl", "start", HUB)
    checks.equal("the hub starts and says that it is ready", done.returncode, 0)
    checks.fact("seconds until the hub is ready", round(time.monotonic() - began_s, 1))
    context = ssl.create_default_context(cafile=str(ETC / "ca.pem"))
    try:
        with urllib.request.urlopen("https://localhost:8443/readyz", context=context, timeout=10) as answer:
            status = answer.status
    except OSError as error:
        status = str(error)
    checks.that("it answers", status == 200, (status, journal(HUB)))
    done = sh("systemctl", "reload", HUB)
    checks.equal("it reloads its certificate", (done.returncode, show(HUB, "ActiveState")), (0, "active"))


def enroll(checks: Checks) -> None:
    """An environment, its token in a file that only root can read, and the runner's settings."""
    done = guardhouse("env", "create", "host-1", "--token-out", str(ETC / "runner.token"))
    checks.that("an environment is created", done.returncode == 0, done.stderr)
    checks.equal("its token is root's alone", oct((ETC / "runner.token").stat().st_mode & 0o777), "0o600")
    write_settings()


def try_runner(checks: Checks, who: str, *, profile: str, account: str) -> None:
    """Start the runner's unit and take commands through it."""
    began_s = time.monotonic()
    sh("systemctl", "restart", RUNNER)
    online = wait_until(is_online)
    checks.that(f"{who}: the runner is online", online, journal(RUNNER))
    checks.fact(f"{who}: seconds until it is online", round(time.monotonic() - began_s, 1))
    if not online:
        return
    done = exec_("id -un; echo $((6*7)); exit 3")
    answer = (done.returncode, done.stdout.split())
    checks.that(f"{who}: a command runs", answer == (3, [account, "42"]), (answer, done.stderr, journal(RUNNER)))
    done = exec_("ls -d /proc/[0-9]* | wc -l")
    many = done.stdout.strip().isdecimal() and int(done.stdout) > 8
    whose = "the host's" if profile == "observe" else "its own"
    checks.equal(f"{who}: {profile} shows {whose} processes", many, profile == "observe")
    pid = show(RUNNER, "MainPID")
    token = (ETC / "runner.token").read_text(encoding="ascii").strip()
    for name in ("environ", "cmdline"):
        content = Path(f"/proc/{pid}/{name}").read_bytes()
        checks.that(f"{who}: the token is not in its {name}", token.encode() not in content)
    uid = Path(f"/proc/{pid}").stat().st_uid
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    owner = next(line.split()[1] for line in status.splitlines() if line.startswith("Uid:"))
    checks.that(f"{who}: the runner is no root", owner != "0", (uid, owner))
    done = exec_(
        f"cat /run/credentials/{RUNNER}/token /etc/guardhouse/runner.token; cat /proc/{pid}/environ /proc/{pid}/mem"
    )
    checks.that(f"{who}: a command finds no token", done.returncode != 0 and token not in done.stdout, done.stdout)
    done = exec_("touch /etc/x /opt/guardhouse/x /var/lib/guardhouse/journal/x")
    checks.that(
        f"{who}: nor writes outside", done.returncode != 0 and "cannot touch '/etc/x'" in done.stderr, done.stderr
    )
    done = exec_("echo kept > file && cat file")
    checks.equal(f"{who}: the workspace is its own", (done.returncode, done.stdout), (0, "kept\n"))
    done = sh("systemctl", "reload", RUNNER)
    said = wait_until(lambda: "policy reloaded" in journal(RUNNER).rpartition("event=starting")[2], within_s=20)
    checks.that(f"{who}: it reloads its policy", done.returncode == 0 and said, journal(RUNNER))
    done = exec_("echo after")
    checks.equal(f"{who}: and goes on, in the same process", (done.stdout, show(RUNNER, "MainPID")), ("after\n", pid))


def try_ends(checks: Checks) -> None:
    """How the unit ends, and what is left."""
    task = guardhouse("exec", "host-1", "--detach", "--", "setsid sleep 64 & sleep 64")
    checks.that(
        "a long command is under way", wait_until(lambda: "sleep 64" in sh("ps", "axo", "args").stdout), task.stderr
    )
    pid = show(RUNNER, "MainPID")
    sh("kill", "-9", pid)
    gone = wait_until(lambda: "sleep 64" not in sh("ps", "axo", "args").stdout, within_s=5)
    checks.that("kill -9 of the runner ends it", gone)
    back = wait_until(lambda: show(RUNNER, "MainPID") not in {"0", pid} and is_online(), within_s=40)
    checks.that("systemd starts the runner again", back, journal(RUNNER))
    checks.equal("once", show(RUNNER, "NRestarts"), "1")
    done = exec_("echo again")
    checks.equal("and it works", (done.returncode, done.stdout), (0, "again\n"))
    began_s = time.monotonic()
    sh("systemctl", "stop", RUNNER)
    checks.fact("seconds to stop", round(time.monotonic() - began_s, 1))
    checks.equal("a stop ends in order", (show(RUNNER, "Result"), show(RUNNER, "ExecMainStatus")), ("success", "0"))
    checks.that("nothing is left in its group", not GROUP.exists() or not list(GROUP.rglob("guardhouse.*")))
    left = [line for line in sh("ps", "axo", "args").stdout.splitlines() if "guardhouse-" in line or "launcher" in line]
    checks.equal("and no process of it", left, [])


def try_refused_token(checks: Checks) -> None:
    """A token that the hub refuses needs a person: no restart, and the status says so."""
    token = (ETC / "runner.token").read_text(encoding="ascii")
    (ETC / "runner.token").write_text(token.strip()[:-4] + "AAAA\n", encoding="ascii")
    sh("systemctl", "start", RUNNER)
    wait_until(lambda: show(RUNNER, "ActiveState") == "failed")
    found = (show(RUNNER, "ActiveState"), show(RUNNER, "ExecMainStatus"))
    checks.that("a refused token ends it for good, with status 4", found == ("failed", "4"), (found, journal(RUNNER)))
    time.sleep(6)
    checks.equal("it is not started again", (show(RUNNER, "ActiveState"), show(RUNNER, "NRestarts")), ("failed", "0"))
    checks.that("the log says what to do", "authentication failed" in journal(RUNNER), journal(RUNNER))
    (ETC / "runner.token").write_text(token, encoding="ascii")
    sh("systemctl", "reset-failed", RUNNER)


def try_without_hub(checks: Checks) -> None:
    """`guardhouse try` on the same host: as root and as an ordinary account."""
    for user in ("root", "person"):
        line = [
            "setpriv",
            f"--reuid={user}",
            "--regid=" + user,
            "--clear-groups",
            "env",
            "HOME=/tmp",
            GUARDHOUSE,
            "try",
        ]
        done = sh(*line, "--json", "--", "uname -s; ps aux | head -2")
        answer = json.loads(done.stdout or "{}")
        checks.that(
            f"try as {user}: allowed and run",
            (answer.get("verdict"), answer.get("exit_code")) == ("allow", 0),
            done.stdout + done.stderr,
        )
        done = sh(*line, "--", "rm -rf /tmp/x")
        checks.equal(f"try as {user}: denied by the policy", done.returncode, 126)


def main() -> int:
    """Set up, try, change, try again."""
    checks = Checks()
    # systemd-nspawn covers parts of /proc, and the kernel then refuses a fresh one in a user namespace unless an
    # uncovered one stands somewhere. systemd-nspawn 254 and later leave one below /run/host.
    Path("/run/uncovered-proc").mkdir()
    subprocess.run(["mount", "-t", "proc", "proc", "/run/uncovered-proc"], check=True)
    sh("useradd", "--system", "--home-dir", "/var/lib/guardhouse-hub", "--shell", "/usr/sbin/nologin", "guardhouse-hub")
    make_certificates()
    try_hub(checks)
    enroll(checks)
    for unit in (HUB, RUNNER):
        score = sh("systemd-analyze", "security", "--no-pager", unit).stdout.strip().splitlines()[-1:]
        checks.fact(f"systemd-analyze security {unit}", score)
    try_runner(checks, "as guardhouse", profile="observe", account="guardhouse")
    write_settings("GUARDHOUSE_PROFILE=isolate\n")
    try_runner(checks, "as guardhouse, isolate", profile="isolate", account="guardhouse")
    write_settings()
    DROP_IN.mkdir()
    text = Path("/share/guardhouse-runner-as-root.conf").read_text(encoding="utf-8")
    (DROP_IN / "as-root.conf").write_text(text, encoding="utf-8")
    sh("systemctl", "daemon-reload")
    try_runner(checks, "started as root", profile="observe", account="guardhouse")
    write_settings("GUARDHOUSE_PROFILE=isolate\n")
    try_runner(checks, "started as root, isolate", profile="isolate", account="guardhouse")
    write_settings()
    (DROP_IN / "as-root.conf").unlink()
    sh("systemctl", "daemon-reload")
    sh("systemctl", "restart", RUNNER)
    wait_until(is_online)
    try_ends(checks)
    try_refused_token(checks)
    try_without_hub(checks)
    return checks.finish()


if __name__ == "__main__":
    raise SystemExit(main())
