"""Any text is a profile, a group of system calls, a group of masks, a bundle, or one clear refusal.

A profile that loads also renders, twice to the same text. Starting inputs are the shipped files.
"""

import contextlib

from driver import main
from guardhouse.data_files import shipped_directory
from guardhouse.errors import SetupError
from guardhouse.sandbox.bundle import Bundle
from guardhouse.sandbox.documents import read_document
from guardhouse.sandbox.fold import fold_drafts
from guardhouse.sandbox.load import read_library
from guardhouse.sandbox.load_groups import parse_mask_group, parse_syscall_group
from guardhouse.sandbox.parse_profile import parse_draft
from guardhouse.sandbox.rules import render_rules, resolve_rules

DIRECTORY = shipped_directory("sandbox")
LIBRARY = read_library(DIRECTORY)
BASE = parse_draft(read_document((DIRECTORY / "profiles" / "base.yaml").read_text("utf-8"), name="base.yaml"))


def fuzz_one(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    readers = (
        _profile,
        lambda given: parse_syscall_group(given, name="f"),
        lambda given: parse_mask_group(given, name="f"),
        Bundle.from_json,
    )
    for read in readers:
        with contextlib.suppress(SetupError):
            read(text)


def _profile(text: str) -> None:
    draft = parse_draft(read_document(text, name="f"))
    drafts = [draft] if draft.extends is None else [BASE, draft]
    profile = fold_drafts(drafts, groups=LIBRARY.groups, masks=LIBRARY.masks)
    first, second = (render_rules(resolve_rules(profile, architecture="x86_64")) for _ in range(2))
    assert first == second, "one profile, two filters"


TARGET = fuzz_one

if __name__ == "__main__":
    main(fuzz_one, __file__)
