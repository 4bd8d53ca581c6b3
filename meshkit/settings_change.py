"""What changed between two readings of the settings, and which of it a running process takes over."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel

ModelT = TypeVar("ModelT", bound=BaseModel)


def changed(before: BaseModel, after: BaseModel) -> list[str]:
    """The dotted names of all keys whose values differ; a mapping's entry that came or went is named as a whole."""
    return list(_changed(before, after, ""))


def is_live(name: str, live: Collection[str]) -> bool:
    """Whether a key is one of `live`, or lies below one of them."""
    return any(name == key or name.startswith(f"{key}.") for key in live)


def with_live(before: ModelT, after: ModelT, live: Collection[str]) -> ModelT:
    """`before` with the live keys of `after`; a live key that the model does not have is passed over."""
    for key in live:
        before = _with(before, after, key.split("."))
    return before


def keys_with_live(
    before: Mapping[str, Any], after: Mapping[str, Any], live: Collection[str]
) -> dict[str, Any]:
    """The same for keys as a file has them: a live key that `after` lacks is gone."""
    kept = dict(before)
    for key in live:
        top, _, below = key.partition(".")
        if below:
            inner = keys_with_live(_mapping(kept.get(top)), _mapping(after.get(top)), (below,))
            new = inner if inner or top in kept else None
        else:
            new = after.get(top)
        kept.pop(top, None)
        if new is not None:
            kept[top] = new
    return kept


def _with(before: ModelT, after: ModelT, path: list[str]) -> ModelT:
    top, *below = path
    if top not in type(before).model_fields:
        return before
    old, new = getattr(before, top), getattr(after, top)
    if below and isinstance(old, BaseModel):
        new = _with(old, new, below)
    return before.model_copy(update={top: new})


def _changed(before: object, after: object, name: str) -> Iterator[str]:
    if before == after:
        return
    if isinstance(before, BaseModel) and type(before) is type(after):
        for field in type(before).model_fields:
            yield from _changed(getattr(before, field), getattr(after, field), _below(name, field))
    elif isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in dict.fromkeys([*before, *after]):
            if key in before and key in after:
                yield from _changed(before[key], after[key], _below(name, key))
            else:
                yield _below(name, key)
    else:
        yield name


def _below(name: str, key: object) -> str:
    return f"{name}.{key}" if name else str(key)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
