"""The bundle travels as JSON and comes back the same, or is refused."""

import json

import pytest

from guardhouse.errors import SetupError
from guardhouse.sandbox.bundle import Bundle
from guardhouse.sandbox.compile import compile_bundle
from guardhouse.sandbox.load import load_profile

from .conftest import DIRECTORY, IDENTITY, SHIPPED, Host


@pytest.fixture(scope="module")
def bundle():
    return compile_bundle(
        [load_profile(name, directory=DIRECTORY) for name in SHIPPED],
        identity=IDENTITY,
        workspace="/srv/work",
        features=Host(),
        trusted_path="/usr/bin:/bin",
    )


def test_json_gives_the_same_bundle(bundle):
    """parse(render(bundle)) is the bundle, and the digest with it."""
    again = Bundle.from_json(bundle.to_json())
    assert again == bundle
    assert again.digest == bundle.digest


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda raw: raw.pop("workspace"), id="missing key"),
        pytest.param(lambda raw: raw.update(extra=1), id="unknown key"),
        pytest.param(lambda raw: raw.update(version=1), id="other version"),
        pytest.param(lambda raw: raw.update(version=True), id="a flag is no number"),
        pytest.param(lambda raw: raw["identity"].update(uid="0"), id="text is no number"),
        pytest.param(lambda raw: raw["profiles"]["isolate"].update(network="all"), id="unknown mode"),
        pytest.param(lambda raw: raw["profiles"]["isolate"].update(namespaces=["pid", "pid"]), id="doubled member"),
        pytest.param(lambda raw: raw["profiles"]["isolate"]["mounts"][0].update(kind="umount"), id="unknown step"),
        pytest.param(lambda raw: raw["profiles"]["isolate"]["rlimits"].update(nofile=[1]), id="half a limit"),
    ],
)
def test_anything_else_is_refused(bundle, spoil):
    """A bundle that differs in shape from what this launcher knows is a SetupError."""
    raw = json.loads(bundle.to_json())
    spoil(raw)
    with pytest.raises(SetupError, match="bundle"):
        Bundle.from_json(json.dumps(raw))


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a":1,"a":2}', "NaN", "[" * 100_000])
def test_what_is_no_bundle_is_refused(text):
    """Bytes that are no JSON object of ours are a SetupError, never another exception."""
    with pytest.raises(SetupError):
        Bundle.from_json(text)
