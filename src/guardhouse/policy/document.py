"""A policy document to a `Policy`: the seed's short form, the full form, and a plain list of pairs.

    permission:                      permission:                          [["*", "deny"],
      bash:                            bash:                               ["kubectl get *", "allow"]]
        "*": deny                        - match: "kubectl get *"
        "kubectl get *": allow             then: allow
                                           because: reads the cluster

Written order is kept and the last rule that matches wins. Unknown keys, duplicate keys, unknown actions and empty
patterns are refused with file, line and column. docs/policy_language.md is the reference.

Knows nothing of files: what ``include`` names is read by the function that the caller hands in. Pure.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from guardhouse.errors import SetupError
from guardhouse.limits import POLICY_INCLUDE_MAX_DEPTH, POLICY_RULES_MAX
from guardhouse.policy.model import (
    ACTIONS,
    DEFAULT_TRUSTED_PATH,
    OPERATIONS,
    Policy,
    PolicyError,
    Rule,
    Section,
)
from guardhouse.policy.nodes import MappingNode, Node, SequenceNode, TextNode, node_of
from guardhouse.policy.rule_fields import build_glob_rule, read_rule

__all__ = ["dump_policy", "load_policy", "policy_from_pairs", "restore_policy"]

_TOP_KEYS: Final = ("version", "name", "about", "path", "include", "permission")
_ABSOLUTE_DIRECTORY: Final = re.compile(r"(/[^/\0]+)+")


def load_policy(
    text: str, *, name: str, includes: Callable[[str], str] | None = None, with_examples: bool = True
) -> Policy:
    """Read a policy document (YAML or JSON).

    Args:
        text: the document.
        name: what places in messages begin with, the file's path as a rule.
        includes: returns the text of a file that the document includes, named as written there, or as seen from
            there where an included file names it; it raises OSError or SetupError when there is none. Without it,
            ``include`` is refused.
        with_examples: decide every rule's examples, and refuse a policy that breaks a promise of its own.

    Raises:
        PolicyError: the document is empty, malformed, says something that cannot be kept exactly, or an example does
            not come out as written.
    """
    loader = _Loader(includes)
    loader.read(text, name=name, depth=1)
    policy = loader.build(name)
    if with_examples and any(rule.examples for section in policy.sections.values() for rule in section.rules):
        # Deciding needs the shell reader, which a document without examples does not.
        from guardhouse.policy.cases import check_examples

        check_examples(policy)
    return policy


def policy_from_pairs(pairs: Iterable[Sequence[str]], *, name: str = "policy") -> Policy:
    """Build a policy from ordered (pattern, action) pairs, as test corpora write them.

    Raises:
        PolicyError: an item is no such pair; the place is ``name:item``, from 1.
    """
    rules = []
    for number, pair in enumerate(pairs, start=1):
        place = f"{name}:{number}"
        if not _is_pair(pair):
            raise PolicyError(f"{pair!r} is no [pattern, action] pair", place=place)
        rules.append(_pair_rule("bash", pair[0], pair[1], place=place, action_place=place))
    return Policy(name=name, sections={"bash": Section("bash", tuple(rules))})


def _is_pair(value: object) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(item, str) for item in value)


def dump_policy(policy: Policy) -> dict[str, Any]:
    """Return the policy as plain JSON data with its name and places, for `restore_policy` in another process."""
    others = {"narrowing": policy.narrowing, "shadow": policy.shadow}
    return {
        **policy.canonical(),
        "name": policy.name,
        "about": policy.about,
        "places": {operation: [rule.place for rule in section.rules] for operation, section in policy.sections.items()},
        **{key: dump_policy(other) for key, other in others.items() if other is not None},
    }


def restore_policy(data: Mapping[str, Any]) -> Policy:
    """Build the policy that `dump_policy` wrote; its digest is the same. Needs no YAML.

    Raises:
        PolicyError: the data is not what `dump_policy` writes.
    """
    try:
        name, trusted = str(data["name"]), tuple(str(directory) for directory in data["path"])
        sections = {}
        for operation, rules in data["permission"].items():
            places = data["places"][operation]
            built = []
            for rule, place in zip(rules, places, strict=True):
                node = node_of(rule, place=place)
                if not isinstance(node, MappingNode) or operation not in OPERATIONS:
                    raise PolicyError("this is no rule of a dumped policy", place=place)
                built.append(read_rule(operation, node, trusted_path=trusted))
            sections[operation] = Section(operation, tuple(built))
        others = {key: restore_policy(data[key]) for key in ("narrowing", "shadow") if key in data}
        return Policy(name=name, sections=sections, trusted_path=trusted, about=str(data["about"]), **others)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PolicyError(f"this is no dumped policy: {error!r}", place="policy") from error


def _pair_rule(
    operation: str,
    pattern: str,
    action: str,
    *,
    place: str,
    action_place: str,
    trusted_path: tuple[str, ...] = DEFAULT_TRUSTED_PATH,
) -> Rule:
    if action not in ACTIONS:
        raise PolicyError(f"{action!r} is no action; write allow, deny or ask", place=action_place)
    return build_glob_rule(operation, pattern, ACTIONS[action], place=place, trusted_path=trusted_path)


@dataclass
class _Loader:
    includes: Callable[[str], str] | None
    about: str = ""
    trusted_path: tuple[str, ...] | None = None
    sections: dict[str, list[Callable[[tuple[str, ...]], Rule]]] = field(default_factory=dict)
    open_names: list[str] = field(default_factory=list)
    rule_count: int = 0

    def build(self, name: str) -> Policy:
        trusted = DEFAULT_TRUSTED_PATH if self.trusted_path is None else self.trusted_path
        sections = {
            operation: Section(operation, tuple(make(trusted) for make in makers))
            for operation, makers in self.sections.items()
        }
        return Policy(name=name, sections=sections, trusted_path=trusted, about=self.about)

    def read(self, text: str, *, name: str, depth: int) -> None:
        # YAML is imported here, so that a process which only restores finished policies never loads it.
        from guardhouse.policy.yaml_text import parse_yaml_text

        node = parse_yaml_text(text, name=name)
        if node is None:
            raise PolicyError("the document is empty; to deny every command write 'permission: {bash: {}}'", place=name)
        if isinstance(node, SequenceNode):
            self._read_pairs(node)
        elif isinstance(node, TextNode):
            raise PolicyError("the document is one piece of text; a policy begins with 'permission:'", place=node.place)
        elif _is_plain_map(node):
            self._read_section("bash", node)
        else:
            self._read_document(node, name=name, depth=depth)

    def _read_document(self, node: MappingNode, *, name: str, depth: int) -> None:
        for key, _ in node.items:
            if key.value not in _TOP_KEYS:
                raise PolicyError(f"unknown key {key.value!r}; a policy has {', '.join(_TOP_KEYS)}", place=key.place)
        self._read_header(node)
        included = node.get("include")
        permission = node.get("permission")
        if permission is None and included is None:
            raise PolicyError(
                "there is no 'permission:'; to deny every command write 'permission: {bash: {}}'", place=node.place
            )
        if included is not None:
            self._read_includes(included, name=name, depth=depth)
        if permission is not None:
            self._read_permission(permission)

    def _read_header(self, node: MappingNode) -> None:
        version = node.get("version")
        if version is not None and expect_text(version, "version") != "1":
            raise PolicyError("only 'version: 1' is known", place=version.place)
        name = node.get("name")
        if name is not None:
            expect_text(name, "name")
        about = node.get("about")
        if about is not None:
            self.about = expect_text(about, "about")
        path = node.get("path")
        if path is not None:
            directories = expect_texts(path, "path")
            for directory in directories:
                if not _ABSOLUTE_DIRECTORY.fullmatch(directory) or {".", ".."} & set(directory.split("/")):
                    raise PolicyError(
                        f"{directory!r} is no absolute directory without '.', '..' or a slash at its end",
                        place=path.place,
                    )
            if self.trusted_path is not None and self.trusted_path != directories:
                raise PolicyError("an included file has another 'path'; they must be the same", place=path.place)
            self.trusted_path = directories

    def _read_includes(self, node: Node, *, name: str, depth: int) -> None:
        if self.includes is None:
            raise PolicyError("'include' is not possible here: no files can be read", place=node.place)
        if depth > POLICY_INCLUDE_MAX_DEPTH:
            raise PolicyError(f"files include each other more than {POLICY_INCLUDE_MAX_DEPTH} deep", place=node.place)
        for wanted in expect_texts(node, "include"):
            file = _beside(self.open_names[-1], wanted) if self.open_names else wanted
            if file in self.open_names or file == name:
                raise PolicyError(f"{wanted!r} includes itself", place=node.place)
            try:
                text = self.includes(file)
            except OSError as error:
                raise PolicyError(f"cannot include {wanted!r}: {error.strerror or error}", place=node.place) from error
            except PolicyError:
                raise
            except SetupError as error:
                raise PolicyError(f"cannot include {wanted!r}: {error}", place=node.place) from error
            self.open_names.append(file)
            self.read(text, name=file, depth=depth + 1)
            self.open_names.pop()

    def _read_permission(self, node: Node) -> None:
        if isinstance(node, SequenceNode):
            self._read_section("bash", node)
            return
        if not isinstance(node, MappingNode):
            if not node.value and not node.is_quoted:
                raise PolicyError("'permission' is empty; to deny every command write '{bash: {}}'", place=node.place)
            raise PolicyError("'permission' must map operations to rules", place=node.place)
        keys = [key for key, _ in node.items]
        if keys and all(isinstance(value, TextNode) and value.value for _, value in node.items):
            clash = next((key for key in keys if key.value in OPERATIONS), None)
            if clash is not None:
                raise PolicyError(
                    f"{clash.value!r} may be the operation or a command; write"
                    f" '{clash.value}: {{\"*\": …}}' or 'bash: {{\"{clash.value}\": …}}'",
                    place=clash.place,
                )
            self._read_section("bash", node)
            return
        if not keys:
            self._add_section("bash")
        for key, value in node.items:
            if key.value not in OPERATIONS:
                raise PolicyError(
                    f"unknown operation {key.value!r}; known are {', '.join(OPERATIONS)}", place=key.place
                )
            self._read_section(key.value, value)

    def _add_section(self, operation: str) -> list[Callable[[tuple[str, ...]], Rule]]:
        return self.sections.setdefault(operation, [])

    def _count_rule(self, place: str) -> None:
        self.rule_count += 1
        if self.rule_count > POLICY_RULES_MAX:
            raise PolicyError(f"more than {POLICY_RULES_MAX} rules", place=place)

    def _read_section(self, operation: str, node: Node) -> None:
        makers = self._add_section(operation)
        if isinstance(node, MappingNode):
            for key, value in node.items:
                self._count_rule(key.place)
                makers.append(_pair_maker(operation, key, value))
        elif isinstance(node, SequenceNode):
            for item in node.items:
                self._count_rule(item.place)
                makers.append(_item_maker(operation, item))
        else:
            raise PolicyError(
                f"{operation!r} must hold rules: a mapping of pattern to action, or a list; write"
                f" '{operation}: {{}}' to deny everything",
                place=node.place,
            )

    def _read_pairs(self, node: SequenceNode) -> None:
        self._read_section("bash", node)


def _is_plain_map(node: MappingNode) -> bool:
    """A document that is nothing but pattern: action pairs."""
    return bool(node.items) and all(
        key.value not in _TOP_KEYS and isinstance(value, TextNode) and value.value in ACTIONS
        for key, value in node.items
    )


def _pair_maker(operation: str, key: TextNode, value: Node) -> Callable[[tuple[str, ...]], Rule]:
    if not isinstance(value, TextNode):
        raise PolicyError(
            f"the rule {key.value!r} must be allow, deny or ask; a rule with more to say is an item of a list"
            " ('- match: …')",
            place=value.place,
        )
    return lambda trusted: _pair_rule(
        operation, key.value, value.value, place=key.place, action_place=value.place, trusted_path=trusted
    )


def _item_maker(operation: str, node: Node) -> Callable[[tuple[str, ...]], Rule]:
    if isinstance(node, SequenceNode):
        if len(node.items) != 2 or not all(isinstance(item, TextNode) for item in node.items):
            raise PolicyError("a rule in brackets is a [pattern, action] pair", place=node.place)
        key, value = node.items
        if isinstance(key, TextNode):
            return _pair_maker(operation, key, value)
    if not isinstance(node, MappingNode):
        raise PolicyError("a rule is a mapping with 'match' (or 'argv') and 'then'", place=node.place)
    return lambda trusted: read_rule(operation, node, trusted_path=trusted)


def _beside(including: str, wanted: str) -> str:
    """Return an included file's name as seen from the first document: it is relative to the file that names it."""
    directory, slash, _ = including.rpartition("/")
    return wanted if wanted.startswith("/") else f"{directory}{slash}{wanted}"


def expect_text(node: Node, what: str) -> str:
    if not isinstance(node, TextNode):
        raise PolicyError(f"{what!r} must be text", place=node.place)
    return node.value


def expect_texts(node: Node, what: str) -> tuple[str, ...]:
    items = node.items if isinstance(node, SequenceNode) else (node,)
    texts = []
    for item in items:
        if not isinstance(item, TextNode) or not item.value:
            raise PolicyError(f"{what!r} must be text or a list of texts", place=node.place)
        texts.append(item.value)
    return tuple(texts)
