"""`${VAR}` and `${VAR:-default}` in the values of a YAML file.

They are replaced after parsing, in values alone: what a variable holds can never add a key or change the structure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import yaml

from meshkit.settings_faults import Fault
from meshkit.yaml_places import place_of

_REFERENCE = re.compile(r"\$(?P<escape>\$(?=\{))|\$\{(?P<inside>[^}]*)(?P<end>\}?)")
_INSIDE = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>(?:(?!\$\{)[^}])*))?")
_RETYPED_TAGS = frozenset(f"tag:yaml.org,2002:{name}" for name in ("int", "float", "bool", "null"))


class VariableError(ValueError):
    """A reference that cannot be replaced; the message names it."""


def expand(text: str, environment: Mapping[str, str]) -> str:
    """`text` with `${VAR}` and `${VAR:-default}` replaced, as a shell does: once, the default also for an empty VAR.

    `$${` stands for a plain `${`. Raises VariableError for a variable that is not set and has no default, and for any
    other `${...}`.
    """

    def value(match: re.Match[str]) -> str:
        if match["escape"]:
            return "$"
        inside = _INSIDE.fullmatch(match["inside"])
        if inside is None or not match["end"]:
            raise VariableError(f"{match[0]}: write ${{VAR}} or ${{VAR:-default}}, or $${{ for a plain ${{")
        name, default = inside["name"], inside["default"]
        found = environment.get(name)
        if default is not None:
            return found or default
        if found is None:
            raise VariableError(f"${{{name}}} is not set and has no default (write ${{{name}:-value}})")
        return found

    return _REFERENCE.sub(value, text)


class ExpandedValues:
    """Replaces variables in the values of a parsed file, and notes keys that a mapping names twice."""

    def __init__(self, loader: yaml.SafeLoader, environment: Mapping[str, str]) -> None:
        self._loader = loader
        self._environment = environment
        self._seen: set[int] = set()
        self.faults: list[Fault] = []

    def visit(self, node: yaml.Node | None, path: str = "") -> None:
        """Expands the values at and below `node`, each once however many aliases lead to it; keys stay.

        `path` is where it stands, dotted.
        """
        if node is None or id(node) in self._seen:
            return
        self._seen.add(id(node))
        if isinstance(node, yaml.ScalarNode):
            self._expand(node, path)
        elif isinstance(node, yaml.SequenceNode):
            for at, item in enumerate(node.value):
                self.visit(item, _below(path, at))
        elif isinstance(node, yaml.MappingNode):
            self._note_twice_named(node, path)
            for key, value in node.value:
                self.visit(value, _below(path, key.value) if isinstance(key, yaml.ScalarNode) else path)

    def _note_twice_named(self, node: yaml.MappingNode, path: str) -> None:
        first: dict[str, yaml.Node] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in first:
                line = place_of(first[key.value].start_mark).line
                self._fault(key, _below(path, key.value), f"named twice in one mapping, first in line {line}")
            else:
                first[key.value] = key

    def _expand(self, node: yaml.ScalarNode, path: str) -> None:
        reference = _REFERENCE.search(node.value)
        if reference is None:
            return
        whole = node.style is None and reference.span() == (0, len(node.value))
        try:
            node.value = expand(node.value, self._environment)
        except VariableError as error:
            self._fault(node, path, str(error))
        # A plain value that is one variable may be a number, a boolean or null, and nothing else but text.
        tag = self._loader.resolve(yaml.ScalarNode, node.value, (True, False)) if whole else None  # type: ignore[no-untyped-call] # the stubs leave it out
        node.tag = tag if tag in _RETYPED_TAGS else "tag:yaml.org,2002:str"

    def _fault(self, node: yaml.Node, path: str, text: str) -> None:
        self.faults.append(Fault(*place_of(node.start_mark), path, text))


def _below(path: str, step: object) -> str:
    return f"{path}.{step}" if path else str(step)
