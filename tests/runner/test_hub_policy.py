"""A policy from the hub: taken when it narrows, kept, withdrawn; refused with a reason, and then nothing changes."""

import json
from pathlib import Path

import pytest

from guardhouse.errors import SetupError
from guardhouse.policy import Policy, decide, dump_policy, load_policy
from guardhouse.policy.shell import read_command
from guardhouse.runner.hub_policy import HubPolicy, NarrowingProofs
from guardhouse.runner.hub_policy_files import hold_stored
from guardhouse.runner.rules import load_rules, make_judge
from guardhouse.values import Verdict
from guardhouse.wire.messages_v1 import HubPolicyHeld, PolicyAnswer, PolicyLayer, PolicySet

LOCAL = load_policy('permission: {bash: {"ls *": allow, "id": allow}}', name="local.yaml")
NARROW = load_policy('permission: {bash: {"ls *": allow}}', name="hub policy")


def message(
    policy: Policy | None,
    *,
    policy_id: str = "pol_1",
    layer: PolicyLayer = PolicyLayer.ENVIRONMENT,
    **changes: object,
) -> PolicySet:
    if policy is None:
        return PolicySet(policy_id=policy_id, layer=layer)
    data = {**dump_policy(policy), **changes}
    return PolicySet(policy_id=policy_id, policy=json.dumps(data), digest=policy.digest, layer=layer)


class Host:
    """A runner's parts around `HubPolicy`: what is in force is what the files say after each reload."""

    def __init__(self, directory: Path, *, profile: str = "observe") -> None:
        self.directory = directory
        self.profile = profile
        self.fails = False
        self.answers: list[PolicyAnswer] = []
        self.local = LOCAL
        self.in_force = LOCAL
        self.proofs = NarrowingProofs(directory, profile=profile)
        self.hub_policy = HubPolicy(
            directory,
            profile=profile,
            proofs=self.proofs,
            local=lambda: self.in_force,
            reload=self.reload,
            answer=self.answers.append,
        )

    async def reload(self) -> None:
        if self.fails:
            raise SetupError("no launcher can be had")
        self.in_force = hold_stored(self.local, self.directory, profile=self.profile)

    async def take(self, sent: PolicySet) -> PolicyAnswer:
        await self.hub_policy.take(sent)
        return self.answers[-1]

    def verdict(self, text: str) -> Verdict:
        return decide(self.in_force, text).verdict


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


async def test_taken_kept_and_withdrawn(host: Host) -> None:
    """What narrows is in force at once and after a restart; withdrawn, the local policy is alone again."""
    assert await host.take(message(NARROW)) == PolicyAnswer(policy_id="pol_1", accepted=True)
    assert (host.verdict("id"), host.verdict("ls")) == (Verdict.DENY, Verdict.ALLOW)
    restarted = hold_stored(LOCAL, host.directory, profile="observe")
    assert restarted.narrowing is not None
    assert (restarted.narrowing.name, restarted.narrowing.digest) == ("pol_1", NARROW.digest)
    assert (await host.take(message(None))).accepted
    assert host.verdict("id") is Verdict.ALLOW
    assert list(host.directory.iterdir()) == []


async def test_one_takes_the_place_of_another(host: Host) -> None:
    """A second policy is compared with the local one, not with the first, and replaces it."""
    assert (await host.take(message(NARROW))).accepted
    other = load_policy("permission: {bash: {id: allow}}", name="hub policy")
    assert (await host.take(message(other, policy_id="pol_2"))).accepted
    assert (host.verdict("id"), host.verdict("ls")) == (Verdict.ALLOW, Verdict.DENY)


async def test_layers_hold_together(host: Host) -> None:
    """A policy for the account, one for the team and one for the environment: what is allowed, all must allow."""
    host.local = host.in_force = load_policy('permission: {bash: {"*": allow}}', name="local.yaml")
    texts = {
        PolicyLayer.ENVIRONMENT: '{"*": allow, "id": deny}',
        PolicyLayer.ACCOUNT: '{"*": allow, "ls": ask}',
        PolicyLayer.TEAM: '{"*": allow, "ls": deny, "pwd": ask}',
    }
    for layer, rules in texts.items():
        sent = load_policy(f"permission: {{bash: {rules}}}", name=f"{layer} policy")
        answer = await host.take(message(sent, policy_id=f"pol_{layer}", layer=layer))
        assert answer == PolicyAnswer(policy_id=f"pol_{layer}", accepted=True, layer=layer)
    assert [host.verdict(text) for text in ("id", "ls", "pwd")] == [Verdict.DENY, Verdict.DENY, Verdict.ASK]
    assert [layer.name for layer in host.in_force.layers[1:]] == ["pol_account", "pol_team", "pol_environment"]
    assert [held.layer for held in host.proofs.held(host.in_force)] == list(PolicyLayer)
    said = decide(host.in_force, "id").as_json()["narrowing"]
    assert said["name"] == "pol_account+pol_team+pol_environment"
    assert [one["digest"] for one in said["policies"]] == [one.digest for one in host.in_force.layers[1:]]
    assert (await host.take(message(None, layer=PolicyLayer.TEAM))).accepted
    assert [host.verdict(text) for text in ("id", "ls")] == [Verdict.DENY, Verdict.ASK]


async def test_proved_anew_after_a_reload(host: Host) -> None:
    """A local policy that permits less makes the hub's unproved: it still holds, and the report says why."""
    assert (await host.take(message(NARROW))).accepted
    assert host.proofs.held(host.in_force) == (
        HubPolicyHeld(layer=PolicyLayer.ENVIRONMENT, policy_id="pol_1", digest=NARROW.digest),
    )
    host.local = load_policy('permission: {bash: {"ls": allow, "id": allow}}', name="local.yaml")
    await host.reload()
    (held,) = host.proofs.held(host.in_force)
    assert "permits more than this host's own policy" in held.unproved
    # Dropped, it would give back what the hub has taken away; kept, it can give nothing.
    assert [host.verdict(text) for text in ("id", "ls", "ls -l")] == [Verdict.DENY, Verdict.ALLOW, Verdict.DENY]
    host.local = LOCAL
    await host.reload()
    assert host.proofs.held(host.in_force)[0].unproved == ""


async def test_what_widens_is_refused(host: Host) -> None:
    """The answer names a command that would be permitted, and what was in force stays."""
    await host.take(message(NARROW))
    wide = load_policy('permission: {bash: {"rm *": allow}}', name="hub policy")
    answer = await host.take(message(wide, policy_id="pol_2"))
    assert not answer.accepted
    assert "for example: rm" in answer.error
    assert host.verdict("id") is Verdict.DENY
    assert host.in_force.narrowing is not None
    assert host.in_force.narrowing.name == "pol_1"


@pytest.mark.parametrize("profile", ["operate", "mine"])
async def test_no_wider_wall(host: Host, profile: str) -> None:
    """A rule that asks for a wider wall than the runner's, or an own one, is refused; its twin is not."""

    def asking(name: str) -> Policy:
        text = f'permission: {{bash: [{{match: "ls *", then: allow, profile: "{name}"}}]}}'
        return load_policy(text, name="hub policy")

    answer = await host.take(message(asking(profile)))
    assert not answer.accepted
    assert "none that a hub may ask for here (isolate, observe)" in answer.error
    assert (await host.take(message(asking("isolate")))).accepted


async def test_a_failed_reload_changes_nothing(host: Host) -> None:
    """Where no launcher can be started the file is put back as it was, so that a restart changes nothing either."""
    await host.take(message(NARROW))
    kept = {path.name: path.read_bytes() for path in host.directory.iterdir()}
    host.fails = True
    answer = await host.take(message(load_policy("permission: {bash: {}}", name="hub policy"), policy_id="pol_2"))
    assert (answer.accepted, answer.error) == (False, "no launcher can be had")
    assert not (await host.take(message(None))).accepted
    assert {path.name: path.read_bytes() for path in host.directory.iterdir()} == kept


@pytest.mark.parametrize(
    "sent",
    [
        PolicySet(policy_id="p", policy="{", digest=NARROW.digest),
        PolicySet(policy_id="p", policy="[]", digest=NARROW.digest),
        PolicySet(policy_id="p", policy="[" * 100_000, digest=NARROW.digest),
        PolicySet(policy_id="p", policy=json.dumps(dump_policy(NARROW)), digest="00"),
        message(NARROW, narrowing=dump_policy(NARROW)),
        message(NARROW, shadow=dump_policy(NARROW)),
        message(NARROW, path=["/opt/bin"]),
        message(NARROW, permission=7),
    ],
    ids=["no JSON", "a list", "deep", "digest", "nested", "shadow", "path", "form"],
)
async def test_malformed(host: Host, sent: PolicySet) -> None:
    """Whatever else the hub sends is refused with a reason and leaves no file."""
    answer = await host.take(sent)
    assert not answer.accepted
    assert answer.error
    assert list(host.directory.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"{}", b'{"policy_id": "p", "digest": "", "policy": "{}"}', b"\xff"])
def test_a_damaged_file_refuses_the_start(tmp_path: Path, content: bytes) -> None:
    """Starting without it would permit what the hub has taken away; the message says what to do."""
    (tmp_path / "hub_policy.json").write_bytes(content)
    with pytest.raises(SetupError, match="remove the file"):
        hold_stored(LOCAL, tmp_path, profile="observe")


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    """Root reads this file in a directory of the commands' account."""
    (tmp_path / "hub_policy.json").symlink_to("/etc/shadow")
    with pytest.raises(SetupError, match="cannot be read"):
        hold_stored(LOCAL, tmp_path, profile="observe")
    assert hold_stored(LOCAL, tmp_path / "other", profile="observe") is LOCAL


def test_a_shadow_is_loaded_beside_the_policy(tmp_path: Path) -> None:
    """What ``--shadow-policy`` names is judged and recorded; a file that cannot be taken refuses the start."""
    (tmp_path / "now.yaml").write_text('permission: {bash: {"ls *": allow}}')
    (tmp_path / "next.yaml").write_text("permission: {bash: {}}")
    policy = load_rules(str(tmp_path / "now.yaml"), shadow=str(tmp_path / "next.yaml"))
    decision = make_judge(policy, reader=read_command)("ls")
    assert decision.verdict is Verdict.ALLOW
    assert decision.as_json()["shadow"]["differs"]
    with pytest.raises(SetupError):
        load_rules(str(tmp_path / "now.yaml"), shadow=str(tmp_path / "none.yaml"))
