"""Where in a YAML file a key stands, found in the tree of its nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import yaml
from yaml.constructor import ConstructorError


class Place(NamedTuple):
    """Both count from 1, in characters; 0 means nowhere in particular."""

    line: int
    column: int


Step = str | int
"""A key of a mapping, or a position in a list, which counts from 0."""


def place_of(mark: yaml.Mark | None) -> Place:
    """A mark of PyYAML's, which counts from 0."""
    return Place(0, 0) if mark is None else Place(mark.line + 1, mark.column + 1)


def place_at(text: str, position: int) -> Place:
    """The place of the character at `position`."""
    before = text[:position]
    return Place(before.count("\n") + 1, position - (before.rfind("\n") + 1) + 1)


class PlacedLoader(yaml.SafeLoader):
    """PyYAML's safe loader, whose every complaint about a value has a place and does not repeat the value."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:  # noqa: FBT001, FBT002 - PyYAML's own signature
        """The value of a node. Raises yaml.YAMLError."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, TypeError, AttributeError, OverflowError):
            kind = str(node.tag).rpartition(":")[2]
            raise ConstructorError(None, None, f"not a {kind}", node.start_mark) from None


class Places:
    """The nodes of one file. Look-ups come after its values were made: that resolves merge keys (`<<`) in the nodes."""

    def __init__(self, root: yaml.Node | None) -> None:
        self._root = root

    def of(self, path: Sequence[Step]) -> Place:
        """The place of the value at `path`; where it is missing, of the nearest mapping around that there is."""
        _, node = self._found(path)
        return place_of(None if node is None else node.start_mark)

    def of_key(self, path: Sequence[Step]) -> Place:
        """The place of the last key of `path` itself."""
        key, node = self._found(path)
        shown = key or node
        return place_of(None if shown is None else shown.start_mark)

    def named(self, path: Sequence[Step], text: str) -> tuple[tuple[Step, ...], str]:
        """The path that a sentence below `path` begins with (`limits.total_s: too long`), and the rest of the sentence.

        Only keys that stand in the file count: names may hold dots and colons themselves.
        """
        _, node = self._found(path)
        further, rest = _named(node, text)
        return (*path, *further), rest

    def _found(self, path: Sequence[Step]) -> tuple[yaml.Node | None, yaml.Node | None]:
        """Key and value; the key is None where the path leads into a list, or ends before its last step."""
        key, node = None, self._root
        for step in path:
            below = _below(node, step)
            if below is None:
                return None, node
            key, node = below
        return key, node


def _below(node: yaml.Node | None, step: Step) -> tuple[yaml.Node | None, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        # Merged keys stand before the mapping's own, and of two the last one counts.
        for key, value in reversed(node.value):
            if isinstance(key, yaml.ScalarNode) and key.value == str(step):
                return key, value
    elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return None, node.value[step]
    return None


def _named(node: yaml.Node | None, text: str) -> tuple[tuple[Step, ...], str]:
    if not isinstance(node, yaml.MappingNode):
        return (), text
    keys = {key.value: value for key, value in node.value if isinstance(key, yaml.ScalarNode)}
    for name in sorted(keys, key=len, reverse=True):
        if text.startswith(f"{name}: "):
            return (name,), text.removeprefix(f"{name}: ")
        if text.startswith(f"{name}."):
            further, rest = _named(keys[name], text.removeprefix(f"{name}."))
            if further:
                return (name, *further), rest
    return (), text
