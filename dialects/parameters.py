"""The parameters that OpenAI's endpoints share, and how an endpoint's own are told: one table that its reader obeys.

docs/openai-compatibility.md is written from the same tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

from dialects.json_fields import Field, Fields
from meshkit.errors import InvalidRequest

MAX_CHOICES: Final = 128
MAX_FALLBACKS: Final = 16
_NOTHING: Final[tuple[Any, ...]] = (None, False, [], {})
"""Values, and zero, that ask for nothing under most names."""
_LONGEST_DEFAULT_BYTES: Final = 64


class Parameter(NamedTuple):
    """What one parameter takes."""

    need: str = ""
    """The capability that a target must have where the parameter asks for something; empty where any target honours
    it."""
    defaults: tuple[Any, ...] = ()
    """More values that ask for nothing: what an absent parameter means."""
    nothing: tuple[Any, ...] = _NOTHING
    """The values that ask for nothing whatever the parameter's name; another tuple where zero or false says much."""
    note: str = ""
    """For the page: what else is to know of it, in Markdown."""


FALLBACKS: Final = Parameter(note="Weir's own: models to ask when this one's targets fail")
MODEL: Final = Parameter(note="absent: the configured default; a provider is sent its own name for it")
LABEL: Final = Parameter(note="a label")
HINT: Final = Parameter(note="a hint for the provider's cache")
_UNKNOWN: Final = Parameter()


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


_MODEL = Field("model", str)
_STREAM = Field("stream", bool)
_STREAM_OPTIONS = Field("stream_options", _StreamOptions)
_CHOICES = Field("n", int)
_FALLBACKS = Field("fallbacks", list[str])


def note_needs(fields: Fields, parameters: Mapping[str, Parameter], needs: dict[str, str]) -> None:
    """Notes in `needs` what the fields ask of a target: capability -> the parameter that asks for it.

    A parameter that the table does not hold is a need of its own name. What is noted already stays.
    """
    for name, raw in fields.items():
        parameter = parameters.get(name)
        if parameter is None:
            if not _is_nothing(raw, _UNKNOWN):
                needs.setdefault(name, name)
        elif parameter.need and not _is_nothing(raw, parameter):
            needs.setdefault(parameter.need, name)


def _is_nothing(raw: msgspec.Raw, parameter: Parameter) -> bool:
    """True where the parameter is as good as absent."""
    text = bytes(raw)
    if len(text) > _LONGEST_DEFAULT_BYTES:
        return False
    try:
        value = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return False  # a number beyond any float; what it asks for is not ours to say
    return value in parameter.nothing or value in parameter.defaults


def read_model(fields: Fields) -> str:
    """The model's name, empty for the default. Raises InvalidRequest."""
    return _MODEL.read(fields) or ""


def read_stream(fields: Fields) -> tuple[bool, bool]:
    """Whether events are wanted, and whether usage at their end. Raises InvalidRequest."""
    options = _STREAM_OPTIONS.read(fields)
    return bool(_STREAM.read(fields)), options is not None and bool(options.include_usage)


def read_choices(fields: Fields) -> int:
    """How many answers are wanted (`n`). Raises InvalidRequest."""
    choices: int | None = _CHOICES.read(fields)
    if choices is None:
        return 1
    if not 1 <= choices <= MAX_CHOICES:
        raise InvalidRequest(f"n: must be 1 to {MAX_CHOICES}", param="n")
    return choices


def read_fallbacks(fields: Fields) -> tuple[str, ...]:
    """The models of `fallbacks`. Raises InvalidRequest."""
    names: list[str] | None = _FALLBACKS.read(fields)
    if names is None:
        return ()
    if len(names) > MAX_FALLBACKS:
        raise InvalidRequest(f"fallbacks: at most {MAX_FALLBACKS}", param="fallbacks")
    return tuple(names)
