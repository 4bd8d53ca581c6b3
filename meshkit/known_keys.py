"""Which keys a mapping of the settings may have, and which of them a misspelt one was meant to be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel

_NEAR = 0.6


def meant(key: object, known: Iterable[str]) -> str:
    """The nearest of `known`; empty where none is near."""
    near = get_close_matches(str(key), sorted(known), n=1, cutoff=_NEAR)
    return near[0] if near else ""


def known_keys(model: type[BaseModel], path: Sequence[str | int]) -> set[str]:
    """The keys that the mapping at `path` may have. `path` is one of pydantic's, with the tags of unions in it."""
    whole = model.model_json_schema()
    places: list[Mapping[str, Any]] = [whole]
    for step in path:
        places = [below for place in places for below in _below(whole, place, step)]
    return {key for place in places for plain in _plain(whole, place) for key in plain.get("properties", {})}


def _below(
    whole: Mapping[str, Any], place: Mapping[str, Any], step: str | int
) -> Iterator[Mapping[str, Any]]:
    tagged = place.get("discriminator", {}).get("mapping", {})
    if step in tagged:
        yield {"$ref": tagged[step]}
        return
    for plain in _plain(whole, place):
        if step in plain.get("discriminator", {}).get("mapping", {}):
            yield {"$ref": plain["discriminator"]["mapping"][step]}
        elif step in plain.get("properties", {}):
            yield plain["properties"][step]
        elif isinstance(step, int) and isinstance(plain.get("items"), dict):
            yield plain["items"]
        elif plain.get("type") == "object":
            others = (plain.get("additionalProperties"), *plain.get("patternProperties", {}).values())
            yield from (other for other in others if isinstance(other, dict))


def _plain(whole: Mapping[str, Any], place: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """What a schema refers to, or may be."""
    if "$ref" in place:
        name = str(place["$ref"]).rpartition("/")[2]
        yield from _plain(whole, whole["$defs"][name])
    elif "discriminator" in place:
        yield place
    elif choices := place.get("anyOf") or place.get("oneOf") or place.get("allOf"):
        for choice in choices:
            yield from _plain(whole, choice)
    else:
        yield place
