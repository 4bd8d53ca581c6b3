"""The router's pure decisions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.router.domain.plan import is_classification, make_plan
from services.router.domain.stop_filter import StopFilter
from services.router.domain.target import ModelSpec
from tests.fakes.router import spec

LOCAL, CLOUD = spec("local", local=True), spec("cloud", local=False)
TARGETS = {"local": LOCAL, "cloud": CLOUD}
AUTO = ModelSpec("auto", ("cloud", "local"), auto=True)
FIXED = ModelSpec("gpt-4", ("local", "cloud"), auto=False)


def names(
    model: ModelSpec, prompt: str = "", needs: dict[str, str] | None = None, down: str = ""
) -> list[str]:
    """The order of a plan's targets."""
    plan = make_plan(model, prompt, needs or {}, TARGETS, lambda name: name != down)
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
    plan = make_plan(
        ModelSpec("local", ("local",), auto=False), "", {"tools": "tools"}, TARGETS, lambda _: True
    )
    assert (plan.steps, plan.unsupported) == ((), "tools")


def test_a_target_that_is_down_goes_last() -> None:
    """It is still tried in the end, for a probe may be wrong, and the reason says so."""
    assert names(FIXED, down="local") == ["cloud", "local"]
    plan = make_plan(FIXED, "", {}, TARGETS, lambda name: name != "local")
    assert [step.reason for step in plan.steps] == ["model gpt-4; local is down"] * 2


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
