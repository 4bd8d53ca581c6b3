"""OpenAI's sampling parameters <-> weir.type.v1.Sampling, with the bounds of OpenAI's own reference."""

from __future__ import annotations

import math

from dialects.json_fields import Field, Fields
from gen.weir.type.v1 import Sampling
from meshkit.errors import InvalidRequest

MAX_OUTPUT_TOKENS = 2**31 - 1
"""Triton's INT32 bounds every target."""
MAX_TEMPERATURE = 2.0
MAX_STOPS = 4
_INT64 = 2**63
_STOP = Field("stop", str | list[str])
_TEMPERATURE = Field("temperature", float)
_TOP_P = Field("top_p", float)
_SEED = Field("seed", int)
_PENALTIES = (Field("presence_penalty", float), Field("frequency_penalty", float))
MAX_PENALTY = 2.0
_CAPS = (Field("max_completion_tokens", int), Field("max_tokens", int))
"""The newer name first: it counts where both are given."""


def read_sampling(fields: Fields) -> Sampling:
    """The sampling that OpenAI's top-level fields ask for. Raises InvalidRequest naming the field."""
    stop = _STOP.read(fields)
    sampling = Sampling(
        max_output_tokens=_max_tokens(fields),
        temperature=_TEMPERATURE.read(fields),
        top_p=_TOP_P.read(fields),
        stop=[stop] if isinstance(stop, str) else list(stop or ()),
        seed=_SEED.read(fields),
        presence_penalty=_PENALTIES[0].read(fields),
        frequency_penalty=_PENALTIES[1].read(fields),
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
    for name, penalty in (
        ("presence_penalty", sampling.presence_penalty),
        ("frequency_penalty", sampling.frequency_penalty),
    ):
        if penalty is not None and not (math.isfinite(penalty) and abs(penalty) <= MAX_PENALTY):
            refuse(name, f"must be -{MAX_PENALTY:g} to {MAX_PENALTY:g}")
    if sampling.seed is not None and not -_INT64 <= sampling.seed < _INT64:
        refuse("seed", "must fit 64 bits")


def _max_tokens(fields: Fields) -> int | None:
    caps = []
    for field in _CAPS:
        cap: int | None = field.read(fields)
        if cap is None:
            continue
        if not 1 <= cap <= MAX_OUTPUT_TOKENS:
            raise InvalidRequest(f"{field.name}: must be 1 to {MAX_OUTPUT_TOKENS}", param=field.name)
        caps.append(cap)
    return caps[0] if caps else None
