"""OpenAI's sampling parameters <-> weir.type.v1.Sampling, with the bounds of OpenAI's own reference."""

from __future__ import annotations

import math

from dialects.json_fields import Fields, field
from gen.weir.type.v1 import Sampling
from meshkit.errors import InvalidRequest

MAX_OUTPUT_TOKENS = 2**31 - 1
"""Triton's INT32 bounds every target."""
MAX_TEMPERATURE = 2.0
MAX_STOPS = 4
_INT64 = 2**63


def read_sampling(fields: Fields) -> Sampling:
    """The sampling that OpenAI's top-level fields ask for. Raises InvalidRequest naming the field."""
    stop = field(fields, "stop", str | list[str] | None)
    sampling = Sampling(
        max_output_tokens=_max_tokens(fields),
        temperature=field(fields, "temperature", float | None),
        top_p=field(fields, "top_p", float | None),
        stop=[stop] if isinstance(stop, str) else list(stop or ()),
        seed=field(fields, "seed", int | None),
    )
    check_sampling(sampling, {"max_output_tokens": "max_tokens"})
    return sampling


def check_sampling(sampling: Sampling, names: dict[str, str]) -> None:
    """Checks the bounds. `names` gives a field another name in the error. Raises InvalidRequest."""

    def refuse(name: str, rule: str) -> None:
        name = names.get(name, name)
        raise InvalidRequest(f"{name}: {rule}", param=name)

    cap = sampling.max_output_tokens
    if cap is not None and not 1 <= cap <= MAX_OUTPUT_TOKENS:
        refuse("max_output_tokens", f"must be 1 to {MAX_OUTPUT_TOKENS}")
    temperature = sampling.temperature
    if temperature is not None and not (math.isfinite(temperature) and 0 <= temperature <= MAX_TEMPERATURE):
        refuse("temperature", f"must be 0 to {MAX_TEMPERATURE:g}")
    top_p = sampling.top_p
    if top_p is not None and not (math.isfinite(top_p) and 0 < top_p <= 1):
        refuse("top_p", "must be above 0 and at most 1")
    if len(sampling.stop) > MAX_STOPS:
        refuse("stop", f"at most {MAX_STOPS}")
    if any(not text for text in sampling.stop):
        refuse("stop", "must not be empty")
    if sampling.seed is not None and not -_INT64 <= sampling.seed < _INT64:
        refuse("seed", "must fit 64 bits")


def _max_tokens(fields: Fields) -> int | None:
    newer = field(fields, "max_completion_tokens", int | None)
    name, cap = ("max_completion_tokens", newer) if newer is not None else (
        "max_tokens", field(fields, "max_tokens", int | None)
    )  # fmt: skip
    if cap is not None and not 1 <= cap <= MAX_OUTPUT_TOKENS:
        raise InvalidRequest(f"{name}: must be 1 to {MAX_OUTPUT_TOKENS}", param=name)
    return None if cap is None else int(cap)
