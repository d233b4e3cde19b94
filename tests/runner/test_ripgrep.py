"""Ripgrep as a hint: on random trees the answer is the same with it and without it."""

import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from guardhouse.errors import Refusal
from guardhouse.runner.ripgrep import Ripgrep, command_text
from guardhouse.wire.operations import GrepArgs
from guardhouse.workspace import Searched, open_workspace, search_files

needs_ripgrep = pytest.mark.skipif(shutil.which("rg") is None, reason="ripgrep is not installed")
WORDS = [
    b"needle",
    b"Needle",
    b"NEEDLE",
    b"need",
    b"le\n",
    b"\n",
    b"\r\n",
    b"x y",
    b"\xff\xfe",
    b"\0",
    "ſüK".encode(),
    b"a" * 3000,
]
NAMES = [b"a.txt", b".hidden", b"b.LOG", b"n\xffl", b"new\nline", b"-e", b".gitignore", b"c.gz", b"sp ace"]
PATTERNS = [
    *("needle", "Needle", "x y", "k", "ss", "le", "zz", "-e", "'; ls"),
    *("n.*e$", "^le", "[k-s]+$", "(need|x)le?", "\\wy", "x\\sy", ".", "^$", "$", "a\\.b|K", "\\d*"),
]


def make_tree(root: Path, generator: random.Random) -> None:
    directories = [os.fsencode(root)]
    for _ in range(generator.randint(1, 12)):
        directory = generator.choice(directories)
        name = generator.choice(NAMES)
        path = directory + b"/" + name
        if os.path.lexists(path):
            continue
        kind = generator.random()
        if kind < 0.25:
            os.mkdir(path)
            directories.append(path)
        elif kind < 0.35:
            os.symlink(generator.choice([b"a.txt", b"..", b"/etc"]), path)
        else:
            with open(path, "wb") as file:
                file.write(
                    b"*\n" if name == b".gitignore" else b"".join(generator.choices(WORDS, k=generator.randint(0, 9)))
                )


def listed(root: Path, args: GrepArgs) -> bytes:
    text = command_text(args)
    assert text is not None
    done = subprocess.run(["bash", "-c", text], cwd=root / args.path, capture_output=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    assert done.stderr == b""
    return done.stdout


def told(searched: Searched) -> tuple:
    return searched.hits, searched.left_out, searched.files, searched.binary_skipped, searched.problems


@needs_ripgrep
def test_the_answer_is_the_same(tmp_path: Path) -> None:
    """Matches, counts of binary and of left-out lines, order and numbers do not depend on the hint."""
    generator = random.Random(11)
    spared = 0
    for number in range(60):
        root = tmp_path / str(number)
        root.mkdir()
        make_tree(root, generator)
        fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        workspace = open_workspace(fd)
        for pattern in generator.sample(PATTERNS, 3):
            case = generator.choice(["smart", "smart", "sensitive", "insensitive"])
            more = {
                "case": case,
                "include": generator.choice([(), (), ("*.txt",), ("**/*.{txt,LOG}",)]),
                "context": generator.choice([0, 0, 2]),
                "max_matches": generator.choice([1, 3, 100]),
            }
            found = listed(root, GrepArgs(pattern=pattern, case=case)).split(b"\0")
            only = frozenset(name.removeprefix(b"./") for name in found if name)
            own = search_files(workspace, pattern, **more)
            assert told(search_files(workspace, pattern, only=only, **more)) == told(own)
            spared += own.files - len(only)
        os.close(fd)
    assert spared > 50, "ripgrep named every file, so the hint was none"


@pytest.mark.parametrize(
    "pattern",
    [
        "a\\b",
        "[^a]",
        "\\W",
        "\\Aa",
        "a\\z",
        "(?-m)^a",
        "a{2}",
        "é",
        "a\nb",
        "`id`",
        "[[:alpha:]]",
        "[a\\d]",
        "\\pL",
        "*a",
        "a**",
    ],
)
def test_only_what_both_read_alike(pattern: str) -> None:
    """What ripgrep might read more narrowly than RE2 is searched without a hint."""
    assert command_text(GrepArgs(pattern=pattern)) is None


class Denying:
    """A policy that does not let rg run."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def admit(self, request) -> None:
        self.asked.append(request.text)
        raise Refusal("command denied")


async def test_a_policy_that_denies_rg() -> None:
    """There is no hint, and it is not asked again for every search; nor is it asked before any search was slow."""
    commands = Denying()
    ripgrep = Ripgrep(commands)
    args = GrepArgs(pattern="needle")
    assert await ripgrep.candidates(args) is None
    assert commands.asked == []
    ripgrep.took(3.0, hinted=False)
    assert await ripgrep.candidates(args) is None
    assert await ripgrep.candidates(args) is None
    assert len(commands.asked) == 1


async def test_a_hint_that_does_not_help_is_given_up() -> None:
    """After a search that was no quicker with a hint, ripgrep is left alone although searches stay slow."""
    commands = Denying()
    ripgrep = Ripgrep(commands)
    args = GrepArgs(pattern="needle")
    ripgrep.took(3.0, hinted=False)
    ripgrep.took(1.0, hinted=True)
    assert await ripgrep.candidates(args) is None
    assert len(commands.asked) == 1, "a hint that helped is asked for again"
    ripgrep.took(3.0, hinted=False)
    ripgrep.took(2.9, hinted=True)
    ripgrep.took(3.0, hinted=False)
    assert await ripgrep.candidates(args) is None
    assert len(commands.asked) == 1
