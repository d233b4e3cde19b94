"""--policy-key: with a pinned key only what that key has signed is a policy, at the start and at a reload."""

import signal
from pathlib import Path

import pytest
from tests.support.platform_stub import open_stub
from tests.support.runner_process import make_directory, remove_directory, start_runner

from guardhouse.cli.exit_codes import ExitCode
from guardhouse.errors import SetupError
from guardhouse.policy import PolicyError
from guardhouse.policy.signing import generate_keys, sign_policy
from guardhouse.runner.rules import load_policy_keys, load_rules

TOKEN = "wnt_canary_31be"
POLICY = 'permission:\n  bash:\n    "*": deny\n    "echo *": allow\n'


class Signer:
    """A policy file, a key pair, and signatures beside the file."""

    def __init__(self, directory: Path) -> None:
        self.policy = directory / "policy.yaml"
        self.policy.write_text(POLICY)
        self._private, public = generate_keys()
        self.key = directory / "release.key.pub"
        self.key.write_text(public)
        self.signature = directory / "policy.yaml.sig"

    def sign(self, private: str | None = None) -> None:
        signature = sign_policy(load_rules(str(self.policy)), private or self._private, name="key")
        self.signature.write_text(signature)

    def load(self):
        return load_rules(str(self.policy), keys=load_policy_keys((self.key,)))


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return Signer(tmp_path)


def test_a_signed_policy_is_taken(signer) -> None:
    """The twin of everything below."""
    signer.sign()
    assert signer.load().rules()


def test_one_key_of_several_is_enough(signer, tmp_path) -> None:
    """Keys are rotated by pinning the old and the new one for a while."""
    other = tmp_path / "other.pub"
    other.write_text(generate_keys()[1])
    signer.sign()
    assert load_rules(str(signer.policy), keys=load_policy_keys((other, signer.key))).rules()


def test_an_unsigned_policy_is_refused(signer) -> None:
    """No signature is no policy; the message says which file is missing."""
    with pytest.raises(SetupError, match=r"is not signed.*policy\.yaml\.sig"):
        signer.load()


def test_a_shipped_policy_is_refused_where_keys_are_pinned(signer) -> None:
    """Shipped policies carry no signature of the operator's."""
    with pytest.raises(SetupError, match="is not signed"):
        load_rules("read_only", keys=load_policy_keys((signer.key,)))


def test_a_policy_that_changed_after_it_was_signed_is_refused(signer) -> None:
    """One changed word is another policy."""
    signer.sign()
    signer.policy.write_text(POLICY.replace('"*": deny', '"*": allow'))
    with pytest.raises(PolicyError, match="of another policy"):
        signer.load()


def test_a_change_in_an_included_file_breaks_the_signature(signer, tmp_path) -> None:
    """The signature covers what the policy says, includes and all."""
    (tmp_path / "base.yaml").write_text('permission:\n  bash:\n    "ls *": allow\n')
    signer.policy.write_text("include: [base.yaml]\n" + POLICY)
    signer.sign()
    signer.load()
    (tmp_path / "base.yaml").write_text('permission:\n  bash:\n    "rm *": allow\n')
    with pytest.raises(PolicyError, match="of another policy"):
        signer.load()


def test_another_key_is_refused(signer) -> None:
    """A signature by a key that nobody pinned counts for nothing, and names the key that made it."""
    signer.sign(generate_keys()[0])
    with pytest.raises(PolicyError, match=r"signed by the key .*which is none of"):
        signer.load()


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", "not json", '{"algorithm": "none"}', "x" * 10_000])
def test_a_malformed_signature_is_refused(signer, text) -> None:
    """Whatever is no signature file of ours refuses the policy."""
    signer.signature.write_text(text)
    with pytest.raises(PolicyError):
        signer.load()


def test_a_key_file_that_everybody_may_write_to_is_refused(signer) -> None:
    """Whoever can put his own key there could sign anything."""
    signer.key.chmod(0o666)
    with pytest.raises(SetupError, match="everybody may write to"):
        signer.load()


def test_a_file_that_is_no_key_is_refused(signer) -> None:
    """A private key, a certificate or the policy itself is not taken for a key."""
    signer.key.write_text(POLICY)
    with pytest.raises(PolicyError, match="no public key"):
        signer.load()
    signer.key.unlink()
    with pytest.raises(SetupError, match="--policy-key: cannot read"):
        signer.load()


async def test_the_runner_starts_and_reloads_with_signed_policies_only() -> None:
    """Unsigned: status 125 and words. Signed: it runs. An unsigned change leaves the signed policy in force."""
    directory = make_directory()
    try:
        signer = Signer(directory)
        arguments = ("--policy-key", str(signer.key))
        async with open_stub(TOKEN) as stub:
            async with start_runner(stub.url, token=TOKEN, directory=directory, arguments=arguments) as runner:
                assert await runner.ended() == ExitCode.SETUP
                assert "is not signed" in runner.text
            signer.sign()
            async with start_runner(stub.url, token=TOKEN, directory=directory, arguments=arguments) as runner:
                peer = await stub.peer()
                assert (await peer.run("echo fine"))["success"]
                signer.policy.write_text(POLICY.replace('"*": deny', '"*": allow'))
                runner.process.send_signal(signal.SIGHUP)
                await runner.logged("policy not reloaded")
                await runner.logged("of another policy")
                assert not (await peer.run("uname"))["success"]
                signer.sign()
                runner.process.send_signal(signal.SIGHUP)
                await runner.logged("policy reloaded")
                assert (await peer.run("uname"))["success"]
    finally:
        remove_directory(directory)
