"""Any text is a policy, and then a stable one, or a PolicyError with a place; nothing else."""

from driver import main
from guardhouse.policy import PolicyError, dump_policy, load_policy, restore_policy
from guardhouse.policy.form import format_policy


def fuzz_one(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    try:
        policy = load_policy(text, name="fuzz.yaml")
    except PolicyError as error:
        refused = error
    else:
        refused = None
    if refused is not None:
        assert refused.place.startswith("fuzz.yaml"), refused
        return
    assert restore_policy(dump_policy(policy)).digest == policy.digest
    formatted = format_policy(text, name="fuzz.yaml")
    assert load_policy(formatted, name="fuzz.yaml", with_examples=False).digest == policy.digest
    assert format_policy(formatted, name="fuzz.yaml") == formatted


if __name__ == "__main__":
    main(fuzz_one, __file__)
