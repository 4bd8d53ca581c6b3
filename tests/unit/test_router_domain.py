"""The router's pure decisions."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.router.domain.plan import Wanted, by_priority, is_classification, make_plan
from services.router.domain.stop_filter import StopFilter
from services.router.domain.target import Cap, Capabilities, ModelSpec
from tests.fakes.router import spec

LOCAL, CLOUD = spec("local", local=True), spec("cloud", local=False)
TARGETS = {"local": LOCAL, "cloud": CLOUD}
AUTO = ModelSpec("auto", ("cloud", "local"), auto=True)
FIXED = ModelSpec("gpt-4", ("local", "cloud"), auto=False)


def names(
    model: ModelSpec, prompt: str = "", needs: dict[str, str] | None = None, down: str = ""
) -> list[str]:
    """The order of a plan's targets."""
    wanted = Wanted([model], prompt, needs or {})
    plan = make_plan(wanted, TARGETS, lambda name: name != down, lambda: 0.0)
    return [step.target.name for step in plan.steps]


def test_fixed_plan_keeps_its_order() -> None:
    """An alias is answered by its plan's targets in the order of the configuration."""
    assert names(FIXED, "classify this: spam or ham") == ["local", "cloud"]


@pytest.mark.parametrize(
    "prompt",
    [
        "Classify the sentiment: positive or negative. 'I love it'",
        "Is this spam or not spam? Win money now",
        "True or false: the earth is flat",
    ],
)
def test_auto_sends_short_classification_to_local(prompt: str) -> None:
    """`auto` asks the local model first for a short choice among few answers."""
    assert is_classification(prompt)
    assert names(AUTO, prompt) == ["local", "cloud"]


@pytest.mark.parametrize(
    "prompt", ["Prove that there are infinitely many primes.", "classify " + "x" * 600, ""]
)
def test_auto_keeps_configured_order_otherwise(prompt: str) -> None:
    """Anything else is answered in the configured order."""
    assert names(AUTO, prompt) == ["cloud", "local"]


def test_what_local_cannot_do_takes_it_out() -> None:
    """A need that a target does not meet removes it; with none left the parameter is named."""
    assert names(FIXED, needs={"tools": "tools"}) == ["cloud"]
    wanted = Wanted([ModelSpec("local", ("local",), auto=False)], "", {"tools": "tools"})
    plan = make_plan(wanted, TARGETS, lambda _: True, lambda: 0.0)
    assert (plan.steps, plan.unsupported) == ((), "tools")


def test_a_target_that_is_down_goes_last() -> None:
    """It is still tried in the end, for a probe may be wrong, and the reason says so."""
    assert names(FIXED, down="local") == ["cloud", "local"]
    plan = make_plan(Wanted([FIXED], "", {}), TARGETS, lambda name: name != "local", lambda: 0.0)
    assert [step.reason for step in plan.steps] == ["model gpt-4; local is down"] * 2


def test_fallbacks_follow() -> None:
    """Targets of the fallback models come after the model's own, each target once."""
    models = [ModelSpec("a", ("local",), auto=False), FIXED]
    plan = make_plan(Wanted(models, "", {}), TARGETS, lambda _: True, lambda: 0.0)
    assert [(step.target.name, step.reason) for step in plan.steps] == [
        ("local", "model a"),
        ("cloud", "fallback gpt-4"),
    ]


def test_wished_targets_choose_and_order() -> None:
    """Only what the request names is asked, in the request's order."""
    wanted = Wanted([FIXED], "", {}, only=("cloud",))
    plan = make_plan(wanted, TARGETS, lambda _: True, lambda: 0.0)
    assert [(step.target.name, step.reason) for step in plan.steps] == [("cloud", "x-weir-targets")]


def test_priority_comes_before_order() -> None:
    """A lower number is asked first; equals stay in the plan's order."""
    specs = [spec("a", local=False, priority=1), spec("b", local=False), spec("c", local=False)]
    assert [one.name for one in by_priority(specs, lambda: 0.0)] == ["b", "c", "a"]


def test_weights_share_the_first_place() -> None:
    """Each weighted target comes first as often as its share says; one without a weight keeps its place."""
    specs = [
        spec("a", local=False, weight=3.0),
        spec("fixed", local=False),
        spec("b", local=False, weight=1.0),
    ]
    firsts = Counter(
        tuple(one.name for one in by_priority(specs, partial(float.__truediv__, float(at), 100.0)))
        for at in range(100)
    )
    assert firsts == {("a", "fixed", "b"): 75, ("b", "fixed", "a"): 25}


def test_too_many_output_tokens_take_a_target_out() -> None:
    """A cap over what a target can give is not silently shortened."""
    small = spec("cloud", local=False)
    small = replace(small, capabilities=replace(small.capabilities, max_output_tokens=10))
    assert small.missing({}, Cap(10, "max_tokens")) is None
    assert small.missing({}, Cap(11, "max_completion_tokens")) == "max_completion_tokens"


def test_lack_counts_in_spite_of_anything() -> None:
    """A provider's target that is known to lack something is not asked for it."""
    blind = replace(spec("c", local=False), capabilities=Capabilities(frozenset("*"), frozenset({"vision"})))
    assert blind.missing({"vision": "messages[0].content[1]"}) == "messages[0].content[1]"
    assert blind.missing({"tools": "tools"}) is None


@given(
    st.text(alphabet="ab<", max_size=40),
    st.lists(st.text(alphabet="ab<", min_size=1, max_size=3), max_size=4),
    st.data(),
)
def test_stop_filter_equals_cutting_the_whole(text: str, stops: list[str], data: st.DataObject) -> None:
    """However the text arrives in pieces, what passes is the text before the first stop text to be completed."""
    stop_filter = StopFilter(stops)
    passed, at = "", 0
    while at < len(text):
        size = data.draw(st.integers(1, 5))
        passed += stop_filter.feed(text[at : at + size])
        at += size
    passed += "" if stop_filter.stopped else stop_filter.rest()
    assert stop_filter.stopped == any(stop in text for stop in stops)
    if not stop_filter.stopped:
        assert passed == text
    else:
        assert text.startswith(passed)
        assert not any(stop in passed for stop in stops)
        assert any(text[len(passed) :].startswith(stop) for stop in stops)


def test_what_a_wished_target_cannot_do_is_named() -> None:
    """Another target's lack is not this request's fault."""
    deaf = replace(spec("deaf", local=False), capabilities=Capabilities(frozenset("*"), frozenset({"audio"})))
    blind = replace(
        spec("blind", local=False), capabilities=Capabilities(frozenset("*"), frozenset({"vision"}))
    )
    wanted = Wanted(
        [ModelSpec("m", ("deaf", "blind"), auto=False)],
        "",
        {"audio": "modalities", "vision": "messages[0].content[1]"},
        only=("blind",),
    )
    plan = make_plan(wanted, {"deaf": deaf, "blind": blind}, lambda _: True, lambda: 0.0)
    assert plan.unsupported == "messages[0].content[1]"
