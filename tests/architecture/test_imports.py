"""The import table of docs/architecture.md, held by reading every module's imports.

Imports point inwards, from programs to libraries. A line that breaks the table is named with the reason that it breaks.
"""

import ast
from dataclasses import dataclass
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src" / "guardhouse"

EVERYONE = frozenset({"errors", "values", "limits"})


@dataclass(frozen=True)
class Rule:
    """What one package may import of ours, and what it may never import of others."""

    ours: frozenset[str]
    never: frozenset[str]
    why: str


ACTING = frozenset({"os", "socket", "subprocess", "trio", "ctypes", "signal", "multiprocessing", "asyncio"})
PROGRAMS = frozenset({"subprocess", "asyncio", "multiprocessing"})

TABLE: dict[str, Rule] = {
    "errors": Rule(frozenset(), ACTING, "every process speaks the error families"),
    "values": Rule(EVERYONE, ACTING, "every process speaks them"),
    "limits": Rule(frozenset(), ACTING, "every process speaks them"),
    "wire": Rule(EVERYONE, ACTING, "a decision never acts: testable and fuzzable anywhere"),
    "policy": Rule(EVERYONE, ACTING, "a decision never acts: testable and fuzzable anywhere"),
    "skills": Rule(EVERYONE, ACTING, "an archive is judged as a list before a byte is written"),
    "redaction": Rule(EVERYONE, ACTING, "bytes in, bytes out: a secret is found the same way everywhere"),
    "egress": Rule(EVERYONE, ACTING, "who may be connected to is decided apart from connecting: testable and fuzzable"),
    "sandbox": Rule(EVERYONE, ACTING, "a plan is made here and carried out in the launcher"),
    "kernel": Rule(EVERYONE, PROGRAMS | {"trio", "yaml"}, "the one door to raw system calls"),
    "launcher": Rule(
        EVERYONE | {"kernel", "sandbox.bundle", "worker.files", "worker.fetch", "workspace", "values", "policy"},
        frozenset({"ssl", "yaml", "bashlex", "asyncio", "multiprocessing"}),
        "small enough to audit in one sitting",
    ),
    "workspace": Rule(
        EVERYONE | {"kernel", "skills", "wire.operations"},
        PROGRAMS | {"trio"},
        "hostile input, so few powers",
    ),
    "worker": Rule(
        EVERYONE | {"kernel", "workspace", "skills", "wire", "policy.shell", "egress"},
        PROGRAMS,
        "hostile input, so few powers",
    ),
    "runner": Rule(
        EVERYONE
        | {"wire", "policy", "sandbox", "workspace", "kernel", "data_files", "egress"}
        | {
            "redaction",
            "worker.client",
            "worker.protocol",
            "worker.parser_client",
            "worker.fetch_client",
            "worker.fetch_url",
            "worker.mcp_client",
            "worker.mcp_protocol",
        }
        | {"launcher.client", "launcher.start", "launcher.messages", "launcher.self_confine"},
        frozenset({"ctypes", "subprocess", "asyncio", "multiprocessing"}),
        "commands start in the launcher, raw calls live in kernel",
    ),
    "mcp_server": Rule(
        EVERYONE | {"policy"},
        frozenset({"os", "socket", "subprocess", "ctypes", "signal", "multiprocessing", "asyncio", "sqlalchemy"}),
        "an agent's tools ask the hub by its REST interface only: one authorizer, one audit log",
    ),
    "hub": Rule(
        EVERYONE | {"wire", "policy", "skills", "data_files", "mcp_server", "egress"},
        frozenset({"ctypes", "subprocess", "multiprocessing"}),
        "no hub code can reach a sandbox, and the reverse",
    ),
    "cli": Rule(frozenset({"*"}), frozenset({"ctypes"}), "wiring only"),
    "data_files": Rule(EVERYONE, frozenset({"subprocess"}), "finds shipped data and nothing else"),
}

# One module of a package where the package's rule would be too wide or too narrow, each with its reason.
NARROWER: dict[str, tuple[frozenset[str], str]] = {
    "launcher/zygote.py": (
        frozenset({"trio", "msgspec", "yaml", "ssl"}),
        "the zygote's memory is copied into every slot",
    ),
    "launcher/init.py": (frozenset({"trio", "msgspec", "yaml", "ssl"}), "runs as pid 1 beside the command"),
    "launcher/confine.py": (frozenset({"trio", "msgspec", "yaml", "ssl"}), "runs in the child before exec"),
}


def imported_names(tree: ast.AST) -> list[tuple[int, str]]:
    """Return (line, absolute dotted name) of every import in ``tree``, those under TYPE_CHECKING included."""
    names: list[tuple[int, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import hides what is imported"
            module = node.module or ""
            if module == "guardhouse":
                names += [(node.lineno, f"guardhouse.{alias.name}") for alias in node.names]
            else:
                names.append((node.lineno, module))
    return names


def is_allowed(ours: frozenset[str], package: str, name: str) -> bool:
    """Tell whether ``name`` (dotted, without the leading ``guardhouse.``) is inside what ``ours`` grants."""
    if "*" in ours or name in {"", "__version__"} or name == package or name.startswith(package + "."):
        return True
    return any(name == granted or name.startswith(granted + ".") for granted in ours)


MODULES = sorted(SOURCE.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=[str(p.relative_to(SOURCE)) for p in MODULES])
def test_imports(path: Path) -> None:
    """Every import of this module is granted to its package by the table."""
    relative = path.relative_to(SOURCE)
    package = relative.parts[0].removesuffix(".py")
    if package in {"__init__", "__main__"}:
        return
    rule = TABLE[package]
    never = set(rule.never) | set(NARROWER.get(str(relative), (frozenset(), ""))[0])
    problems = []
    for line, name in imported_names(ast.parse(path.read_text(encoding="utf-8"))):
        if name.split(".")[0] == "guardhouse":
            if not is_allowed(rule.ours, package, name.removeprefix("guardhouse").removeprefix(".")):
                problems.append(f"{relative}:{line} imports {name}: not granted to {package!r} ({rule.why})")
        elif name.split(".")[0] in never:
            problems.append(f"{relative}:{line} imports {name}: never in {package!r} ({rule.why})")
    assert not problems, "\n".join(problems)


def test_every_package_stands_in_the_table() -> None:
    """A new package cannot appear without somebody deciding what it may import."""
    present = {p.name for p in SOURCE.iterdir() if p.is_dir() and (p / "__init__.py").exists()}
    assert present <= set(TABLE), f"not in the table: {sorted(present - set(TABLE))}"


def test_the_table_can_fail() -> None:
    """The check itself notices a forbidden import: a pure package that opens a socket."""
    tree = ast.parse("import socket\nfrom guardhouse.launcher import client\n")
    names = [name for _, name in imported_names(tree)]
    assert names == ["socket", "guardhouse.launcher"]
    assert "socket" in TABLE["wire"].never
    assert not is_allowed(TABLE["wire"].ours, "wire", "launcher")
