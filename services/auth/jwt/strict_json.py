"""JSON as it must be where a signature hangs on it: one meaning, whoever reads it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NoReturn


def json_object(data: bytes) -> dict[str, Any]:
    """The JSON object in `data`.

    Raises ValueError for anything else, for a name that comes twice in one object, for NaN and Infinity, for text that
    is not UTF-8, and for nesting or numbers that Python gives up on.
    """
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    if not isinstance(value, dict):
        raise ValueError("no object")  # noqa: TRY004 - one kind of error for all that a document can have
    return value


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    names = dict(pairs)
    if len(names) != len(pairs):
        raise ValueError("a name comes twice")
    return names


def _refuse(_: str) -> NoReturn:
    raise ValueError("no number")
