"""The onboarding guide of an environment: install, start by hand, upgrade, uninstall, purge, as steps and as Markdown.

The steps are those of docs/install.md with this hub's addresses and this environment's id filled in. No secret stands
in them: the token's own route answers it, and is audited. Pure. Runs in the hub.
"""

import shlex
from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["TOKEN_FILE", "GuideText", "Section", "Step", "write_guide"]

TOKEN_FILE: Final = "/etc/guardhouse/runner.token"  # noqa: S105 - a path
_UNIT: Final = "guardhouse-runner.service"
_ACCOUNT: Final = (
    "id guardhouse || useradd --system --home-dir /var/lib/guardhouse --shell /usr/sbin/nologin guardhouse",
    "guardhouse doctor",
)
_PACKAGES: Final = (
    "apt-get install -y --no-install-recommends python3 python3-venv python3-seccomp curl ca-certificates",
)

SectionId = Literal["install", "manual", "upgrade", "uninstall", "purge"]


@dataclass(frozen=True)
class Step:
    """A sentence, and lines for a shell."""

    text: str
    commands: tuple[str, ...] = ()


@dataclass(frozen=True)
class Section:
    """The steps of one purpose."""

    id: SectionId
    title: str
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class GuideText:
    """The guide in both forms."""

    sections: tuple[Section, ...]
    markdown: str


def write_guide(
    *, environment_id: str, name: str, public_url: str, connect_url: str, version: str, install_url: str | None
) -> GuideText:
    """Return the guide.

    Args:
        public_url, connect_url: where people and runners reach this hub, by its configuration.
        version: which runner to install.
        install_url: a directory with the release's wheel and source archive; None where people copy them by hand.
    """
    dial = shlex.quote(connect_url)
    start_service = ("systemctl daemon-reload", "systemctl enable --now guardhouse-runner")
    fetch = _fetch(version, install_url)
    token = Step(
        f"Put this environment's token into {TOKEN_FILE}. An administrator's terminal shows it (the hub writes down who"
        " looked); paste it on the host, then press Enter and Ctrl-D.",
        (
            f"guardhouse env token {environment_id} --hub {shlex.quote(public_url)}    # where the API is used",
            f"install -d -m 755 /etc/guardhouse && (umask 077; cat >{TOKEN_FILE})    # on the host",
        ),
    )
    sections = (
        Section(
            "install",
            "Install as a service (Linux with systemd)",
            (
                Step("On the host, as root: what it needs, and the release.", (*_PACKAGES, *fetch)),
                Step("Install it; it skips what is there already.", _install(version)),
                Step("An account that nothing else uses; then see what this host gives and lacks.", _ACCOUNT),
                token,
                Step(
                    "Say which hub to dial, and start.",
                    (f"printf '%s\\n' GUARDHOUSE_URL={dial} >/etc/guardhouse/runner.env", *start_service),
                ),
                Step(
                    "Look: the status becomes online within seconds. If not, the runner's log says why.",
                    ("journalctl -u guardhouse-runner -n 20 --no-pager", f"guardhouse env show {environment_id}"),
                ),
            ),
        ),
        Section(
            "manual",
            "Start by hand (no service)",
            (
                Step("Install the programs as above, put the token into a file that only you can read, and run:"),
                Step(
                    "It ends with the terminal.",
                    (f"guardhouse run --url {dial} --token-file ./runner.token",),
                ),
            ),
        ),
        Section(
            "upgrade",
            "Upgrade",
            (
                Step(
                    "Take the environment out of use, and wait until nothing runs.",
                    (f"guardhouse env drain {environment_id} --wait",),
                ),
                Step("On the host, as root: the same steps as for a fresh install.", (*fetch, *_install(version))),
                Step(
                    "Restart, and put it to use again.",
                    ("systemctl restart guardhouse-runner", f"guardhouse env undrain {environment_id}"),
                ),
            ),
        ),
        Section(
            "uninstall",
            "Uninstall, keeping settings and data",
            (
                Step(
                    "On the host, as root.",
                    (
                        "systemctl disable --now guardhouse-runner",
                        f"rm -f /etc/systemd/system/{_UNIT} /usr/local/bin/guardhouse && systemctl daemon-reload",
                        "rm -rf /opt/guardhouse",
                    ),
                ),
            ),
        ),
        Section(
            "purge",
            "Purge everything",
            (
                Step("Uninstall as above. Then, on the host, as root: settings, token, journal, workspace, account."),
                Step(
                    "This deletes the workspace under /var/lib/guardhouse for good.",
                    ("rm -rf /etc/guardhouse /var/lib/guardhouse", "userdel guardhouse"),
                ),
                Step(
                    "Delete the record: its token is worthless from then on.",
                    (f"guardhouse env delete {environment_id}",),
                ),
            ),
        ),
    )
    return GuideText(sections, _markdown(name, version, sections))


def _fetch(version: str, install_url: str | None) -> tuple[str, ...]:
    files = (f"guardhouse-{version}.tar.gz", f"guardhouse-{version}-py3-none-any.whl")
    unpack = f"tar -xzf {files[0]}"
    if install_url is None:
        return (f"# copy {files[0]} and {files[1]} here, from where the hub was installed", unpack)
    base = install_url.rstrip("/")
    return (*(f"curl -fsSL --proto '=https' -O {base}/{name}" for name in files), unpack)


def _install(version: str) -> tuple[str, ...]:
    source = f"guardhouse-{version}"
    return (
        "python3 -m venv /opt/guardhouse",
        f"/opt/guardhouse/bin/pip install --require-hashes -r {source}/requirements/runtime.txt",
        f"/opt/guardhouse/bin/pip install --no-deps --force-reinstall guardhouse-{version}-py3-none-any.whl",
        f"/opt/guardhouse/bin/python {source}/packaging/install_seccomp.py",
        "ln -sf /opt/guardhouse/bin/guardhouse /usr/local/bin/guardhouse",
        f"install -m 644 {source}/packaging/systemd/{_UNIT} /etc/systemd/system/",
    )


def _markdown(name: str, version: str, sections: tuple[Section, ...]) -> str:
    shown = name.replace("`", "'")
    lines = [f"# Runner of `{shown}`", "", f"Guardhouse {version}.", ""]
    for section in sections:
        lines += [f"## {section.title}", ""]
        for number, step in enumerate(section.steps, 1):
            lines += [f"{number}. {step.text}", ""]
            if step.commands:
                lines += ["   ```", *(f"   {line}" for line in step.commands), "   ```", ""]
    return "\n".join(lines).rstrip() + "\n"
