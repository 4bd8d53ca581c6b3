"""Writes docs/weir.schema.json, by which editors know weir.yaml: `python -m tools.settings_schema`; `--check` compares.

It is made from the settings classes of all parts. References are resolved and the draft is an old one, because editors
differ in what they know. It is a little stricter than Weir: a number in quotes is a number to Weir, and none to it.
"""

from __future__ import annotations

import ast
import inspect
import json
import sys
import textwrap
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, get_args

from pydantic import BaseModel, create_model
from pydantic.fields import FieldInfo

from meshkit.settings import TOP_LEVEL_KEYS, Strict
from weirctl.config import MODELS

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "weir.schema.json"
_INSIDE: Final = r"[A-Za-z_][A-Za-z0-9_]*(:-[^}]*)?"
_ONE_VARIABLE: Final = {"type": "string", "pattern": rf"^\$\{{{_INSIDE}\}}$"}
_WITH_VARIABLE: Final = {"type": "string", "pattern": rf"\$\{{{_INSIDE}\}}"}
_ABOUT: Final = ("title", "description", "default")
_PLAIN_TYPES: Final = frozenset({"integer", "number", "boolean"})


def schema() -> dict[str, Any]:
    """The schema of the whole file."""
    fields: dict[str, Any] = {}
    for model in MODELS:
        for name, field in model.model_fields.items():
            if name in TOP_LEVEL_KEYS and _says_more(field, fields.get(name)):
                fields[name] = field
    whole = create_model("Weir", __base__=Strict)
    whole.model_fields.update(fields)
    whole.model_rebuild(force=True)
    made = whole.model_json_schema()
    classes = {name: one for model in MODELS for one in _classes(model, set()) for name in _names(one)}
    made["$defs"] = {name: _described(one, classes.get(name)) for name, one in made.get("$defs", {}).items()}
    made = _described(made, *MODELS)
    resolved = _resolved(made, made["$defs"])
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "weir.yaml",
        "description": "The one configuration file of Weir.",
        **{key: value for key, value in resolved.items() if key not in {"$defs", *_ABOUT}},
    }


def _says_more(field: FieldInfo, known: FieldInfo | None) -> bool:
    """Whether this is the block as its owner has it: others leave keys that they do not read to the owner."""
    return known is None or (_leaves_keys(known) and not _leaves_keys(field))


def _leaves_keys(field: FieldInfo) -> bool:
    kind = field.annotation
    return (
        isinstance(kind, type) and issubclass(kind, BaseModel) and kind.model_config.get("extra") == "ignore"
    )


def _classes(kind: Any, seen: set[Any]) -> Iterator[type[BaseModel]]:
    """Every settings class that an annotation leads to."""
    if isinstance(kind, type) and issubclass(kind, BaseModel) and kind not in seen:
        seen.add(kind)
        yield kind
        for field in kind.model_fields.values():
            yield from _classes(field.annotation, seen)
    for part in get_args(kind):
        yield from _classes(part, seen)


def _names(kind: type) -> tuple[str, str]:
    """Under which pydantic defines it: the second, where two classes have the same first one."""
    return kind.__name__, f"{kind.__module__}.{kind.__qualname__}".replace(".", "__")


def _described(made: dict[str, Any], *classes: type[BaseModel] | None) -> dict[str, Any]:
    """With what the class says of each key in the docstring below it."""
    said = {name: text for one in classes if one is not None for name, text in _docstrings(one).items()}
    properties = {
        name: {**below, "description": said[name]} if name in said else below
        for name, below in made.get("properties", {}).items()
    }
    return {**made, "properties": properties} if properties else made


def _docstrings(model: type[BaseModel]) -> dict[str, str]:
    found: dict[str, str] = {}
    for kind in reversed(model.__mro__):
        if issubclass(kind, Strict):
            found |= _of_class(kind)
    return found


def _of_class(kind: type) -> dict[str, str]:
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    lines = tree.body if isinstance(tree, ast.ClassDef) else []
    return {
        field.target.id: " ".join(str(text.value.value).split())
        for field, text in pairwise(lines)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
    }  # fmt: skip


def _resolved(place: Any, definitions: Mapping[str, Any]) -> Any:
    """Without references and what only other tools read; with variables where a value may be one."""
    if isinstance(place, list):
        return [_resolved(one, definitions) for one in place]
    if not isinstance(place, dict):
        return place
    if "$ref" in place:
        name = str(place["$ref"]).rpartition("/")[2]
        around = {key: value for key, value in place.items() if key != "$ref"}
        return _resolved({**definitions[name], **around}, definitions)
    kept = {key: value for key, value in place.items() if key not in {"title", "discriminator", "format"}}
    if isinstance(default := kept.get("default"), dict) or str(ROOT) in str(default):
        del kept["default"]  # a block's keys have defaults of their own; a path may be of this machine
    if "patternProperties" in kept:
        kept["additionalProperties"] = False
    if "oneOf" in kept:  # of two kinds, both might match a kind that is a variable
        kept["anyOf"] = kept.pop("oneOf")
    named = {"properties", "patternProperties"}
    walked = {
        key: {name: _resolved(one, definitions) for name, one in value.items()} if key in named
        else value if key in {"default", "enum", "const", "propertyNames"} else _resolved(value, definitions)
        for key, value in kept.items()
    }  # fmt: skip
    return _or_variable(walked)


def _or_variable(place: dict[str, Any]) -> dict[str, Any]:
    """The schema, or a variable where it would not take one as it is."""
    kind = place.get("type")
    if kind in _PLAIN_TYPES:
        other = _ONE_VARIABLE
    elif kind == "string" and place.keys() & {"enum", "const", "pattern", "maxLength", "minLength"}:
        other = _WITH_VARIABLE
    else:
        return place
    about = {key: value for key, value in place.items() if key in _ABOUT}
    return {**about, "anyOf": [{key: value for key, value in place.items() if key not in about}, other]}


def page() -> str:
    """The file."""
    return json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"


def main() -> int:
    """Writes, or with --check compares. Returns the exit status."""
    if "--check" in sys.argv[1:]:
        stale = not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page()
        if stale:
            sys.stderr.write("docs/weir.schema.json is out of date, run `make gen`\n")
        return 1 if stale else 0
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
