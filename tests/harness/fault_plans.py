"""What the fault tests configure: plans whose targets' providers misbehave as their model's name says.

Each plan exists twice, for streams and for unary answers, with targets of its own, so that no test finds a breaker that
another one opened, or a fault that another one used up.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from tests.fakes.provider_exchange import words
from tests.harness.running_weir import free_configuration

TEXT = "".join(words(60))
"""What a provider says that does as it should."""
SECRET = "sk-fake-secret-of-the-faults"
SLOTS, QUEUE, QUEUE_S, HEAL_EVERY_S = 2, 4, 3, 1
"""Of the local Triton."""
MODES = ("stream", "unary")
SHORT = {"connect_s": 1, "first_token_s": 1, "inter_token_s": 1, "total_s": 2}
"""Limits of targets that make one wait. Seconds."""
PATIENT = {"connect_s": 2, "first_token_s": 10, "inter_token_s": 10, "total_s": 60}
"""Limits of the others, on a machine that may be busy. Seconds."""


@dataclass(frozen=True)
class Place:
    """One target: what its provider does, and what the configuration says of it."""

    does: str
    limits: Mapping[str, float] = field(default_factory=lambda: PATIENT)
    provider: str = "fake"
    settings: Mapping[str, Any] = field(default_factory=dict)

    def target(self, case: int) -> dict[str, Any]:
        """For weir.yaml. `case` keeps its provider's memory of it apart from that of others."""
        joint = "," if ":" in self.does else ":"
        model = f"{self.does}{joint}case={case}"
        return {
            "kind": "cloud",
            "provider": self.provider,
            "model": model,
            "limits": dict(self.limits),
            # Many tests ask one target that fails each time; what its breaker does is shown where it is configured.
            "breaker": {"failures": 1_000},
            **self.settings,
        }


def short(does: str, **settings: Any) -> Place:
    """A target that is not waited for long."""
    return Place(does, SHORT, settings=settings)


def prefilling(does: str) -> Place:
    """A target that says it can go on with somebody else's answer."""
    return Place(does, settings={"capabilities": {"prefill": "plain"}})


def window(does: str, tokens: int) -> Place:
    """A target whose model has a context of so many tokens."""
    return Place(does, settings={"capabilities": {"context_window": tokens}})


GOOD = Place("instant")
DOWN_S = 5
"""How long a provider is down that comes back."""
BREAKER = {"window_s": 10, "failures": 3, "probe_s": 1}
LONG_WORDS = 30
"""Of an answer that takes three seconds."""
PROMPT_ONES = 25
"""So many requests are answered at once by a target that is late after them."""
LATE_S = 3
LATE = f"late:delay_ms={LATE_S}000,skip={PROMPT_ONES},times={PROMPT_ONES + 1}"
PLANS: Mapping[str, Sequence[Place]] = MappingProxyType({
    "good": (GOOD,),
    "limited-once": (Place("rate_limit:retry_after_s=2,times_each=1"), GOOD),
    "limited-zero": (Place("rate_limit:retry_after_s=0"), GOOD),
    "limited-long": (Place("rate_limit:retry_after_s=30"), GOOD),
    "limited-long-alone": (Place("rate_limit:retry_after_s=30"),),
    "limited": (Place("rate_limit"), GOOD),
    "limited-alone": (Place("rate_limit"),),
    "failed-once": (Place("status:code=500,times_each=1"), GOOD),
    "failing": (Place("status:code=503"), GOOD),
    "failing-alone": (Place("status:code=503"),),
    "reset-once": (Place("reset:times_each=1"), GOOD),
    "silent": (short("silent"), GOOD),
    "silent-alone": (short("silent"),),
    "mute-then-good": (Place("silent"), GOOD),
    "late": (short("late"), GOOD),
    "cut": (Place("cut"), GOOD),
    "cut-alone": (Place("cut"),),
    "cut-to-prefill": (Place("cut"), prefilling("prefill")),
    "cut-twice": (Place("cut:after=20"), prefilling("prefill:own=20"), prefilling("prefill")),
    "cut-to-other": (Place("cut"), Place("differ:after=20")),
    "cut-to-refusal": (Place("cut"), prefilling("no_prefill")),
    "cut-to-refusal-of-other": (Place("cut"), prefilling("no_prefill:other=1"), Place("differ:after=20")),
    "cut-to-refusal-only": (Place("cut"), prefilling("no_prefill:other=1")),
    "cut-in-tool": (Place("tool_cut"), GOOD),
    "stall": (short("stall"), GOOD),
    "stall-alone": (short("stall"),),
    "stall-once": (short("stall:times=1"), GOOD),
    "breathing": (Place("breathing", {**SHORT, "total_s": 10}), GOOD),
    "error-event": (Place("error_event"), GOOD),
    "error-event-alone": (Place("error_event"),),
    "malformed": (Place("malformed"), GOOD),
    "no-done": (Place("no_done"), GOOD),
    "done-hangs": (Place("done_hangs"), GOOD),
    "finish-cut": (Place("no_done_cut"), GOOD),
    "finish-hangs": (short("no_done_hangs"), GOOD),
    "no-usage": (Place("no_usage"), GOOD),
    "context": (window("context_length", 8_192), window("instant", 4_096), window("instant", 128_000)),
    "context-alone": (Place("context_length"),),
    "filtered": (Place("content_filter"), GOOD),
    "down": (Place(f"status:code=503,for_ms={DOWN_S}000", settings={"breaker": BREAKER}), GOOD),
    "html": (Place("html"), GOOD),
    "empty": (Place("empty"), GOOD),
    "huge": (Place("huge_answer"), GOOD),
    "huge-event": (Place("huge_event"), GOOD),
    "gzip": (Place("bad_gzip"), GOOD),
    "html-alone": (Place("html"),),
    "untrusted": (Place("instant", SHORT, "untrusted"), GOOD),
    "nameless": (Place("instant", SHORT, "nameless"), GOOD),
    "hanging": (Place("instant", SHORT, "hanging"), GOOD),
    "two-fail": (Place("status:code=503"), Place("reset"), GOOD),
    "three-fail": (Place("status:code=503"), Place("status:code=500"), Place("reset"), GOOD),
    "two-limited": (Place("rate_limit"), Place("rate_limit"), GOOD),
    "all-fail": (Place("status:code=500"), Place("reset"), short("silent")),
    "long": (Place(f"long:chunks={LONG_WORDS},gap_ms=100"),),
    "endless": (Place("endless:chunks=6000,gap_ms=50"),),
    "mute": (Place("silent"),),
    "flood": (Place("flood:mib=256"),),
    "tools": (Place("tool_call"), GOOD),
    "vectors": (Place("instant", settings={"task": "embed"}),),
    "hedged": (Place(LATE, settings={"hedge": True}), GOOD),
    "unhedged": (Place(LATE), GOOD),
})  # fmt: skip
"""By name; `NAME.stream` and `NAME.unary` are models of the configuration, their targets `NAME.stream.1` and so on."""


def configuration(urls: Mapping[str, str], topology: str, *, triton: bool) -> dict[str, Any]:
    """weir.yaml for all of it. `urls` are the providers' base URLs; `triton` adds our own model to it."""
    targets, models = _local() if triton else ({}, {})
    cases = itertools.count(1)
    for name, places in _plans():
        own = {f"{name}.{number}": place.target(next(cases)) for number, place in enumerate(places, 1)}
        targets.update(own)
        models[name] = {"plan": list(own)}
    return free_configuration(
        topology=topology,
        workers=1,  # a breaker is a process's own: with one, what it does can be counted
        drain_s=30,
        providers={
            name: {"base_url": url, "api_key_env": "FAKE_API_KEY", "keepalive_s": 2}
            for name, url in urls.items()
        },
        targets=targets,
        models=models,
        default_model="good.unary",
        # Few slots and a short queue are soon full, and a dead model is soon found.
        triton={
            "slots": SLOTS,
            "queue_requests": QUEUE,
            "queue_s": QUEUE_S,
            "heal_every_s": HEAL_EVERY_S,
            "embedding": False,
        },
    )


def _plans() -> Iterator[tuple[str, Sequence[Place]]]:
    for name, places in PLANS.items():
        for mode in MODES:
            yield f"{name}.{mode}", places


def _local() -> tuple[dict[str, Any], dict[str, Any]]:
    limits = {**PATIENT, "first_token_s": 30, "inter_token_s": 30}
    own = {"kind": "triton", "default_max_output_tokens": 16, "limits": limits, "breaker": {"probe_s": 1}}
    return (
        {"local": own, "beside": GOOD.target(0)},
        {"local-first": {"plan": ["local", "beside"]}},
    )
