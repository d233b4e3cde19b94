"""A second reader's objections, and what they cannot do."""

from guardhouse.policy.shell import ShellReading, compare_with, read_command
from guardhouse.policy.shell.bashlex_reader import command_starts as bashlex_starts
from guardhouse.policy.shell.second_reader import CommandStarts, join_readers
from guardhouse.policy.shell.tree_sitter_reader import command_starts as tree_sitter_starts


def says(starts: CommandStarts, *, must_read: bool = True) -> ShellReading:
    return read_command("ls 'a'; id", second=compare_with(lambda _: starts, name="other", must_read=must_read))


def test_agreement_changes_nothing() -> None:
    """The same starts, or fewer, leave the text understood."""
    assert says(frozenset({0, 8})).is_understood
    assert says(frozenset({0})).is_understood


def test_one_more_command_is_undecided() -> None:
    """A command that only the other reader sees makes the text undecided, at its place."""
    (undecided,) = says(frozenset({0, 4, 8})).undecided
    assert undecided.span == (4, 5)
    assert "other" in undecided.because


def test_what_it_cannot_read() -> None:
    """No answer is undecided where it must read, and no opinion where it need not."""
    assert says(None).undecided
    assert says(None, must_read=False).is_understood


def test_not_asked_about_plain_words() -> None:
    """Plain words never reach a second reader."""
    asked: list[str] = []
    read_command("ls -l", second=compare_with(lambda text: asked.append(text), name="other", must_read=True))
    assert asked == []


def test_join() -> None:
    """Joined readers object as each of them does."""
    one = compare_with(lambda _: frozenset({1}), name="one", must_read=True)
    two = compare_with(lambda _: None, name="two", must_read=True)
    assert len(read_command("ls; id 'a'", second=join_readers(one, two)).undecided) == 2


def test_tree_sitter_starts() -> None:
    """Starts are characters, not bytes, and ``time`` is no program to either reader."""
    assert tree_sitter_starts("é; time ls | (id)") == frozenset({0, 8, 14})
    assert tree_sitter_starts("export x=$(id)") == frozenset({0, 11})
    assert tree_sitter_starts("[ a ]; [[ b ]]; unset x") == frozenset({0, 16})
    assert tree_sitter_starts("echo $(") is None


def test_bashlex_starts() -> None:
    """Bashlex answers with starts, and with None where it raises one of its errors."""
    assert bashlex_starts("ls | id $(pwd)") == frozenset({0, 5, 10})
    assert all(bashlex_starts(text) is None for text in ("", "# a", "[[ a ]]", "case a in a) b;; esac", "echo $("))
