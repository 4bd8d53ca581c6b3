"""What callers wish for the routing of a request."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gen.weir.router.v1 import OnCut, RouteOptions
from meshkit.errors import InvalidRequest
from services.router.wishes import Wishes, read_wishes, with_options

SECOND = timedelta(seconds=1)


def test_no_wishes() -> None:
    """Without headers only the call's own deadline counts."""
    assert read_wishes({"authorization": "x"}, SECOND) == Wishes(patience=SECOND)


def test_every_header() -> None:
    """Targets in their order, once each; what happens on a cut; a deadline."""
    headers = {"x-weir-targets": "b, a,b", "x-weir-on-cut": "Hold", "x-weir-deadline-ms": "250"}
    assert read_wishes(headers, None) == Wishes(
        ("b", "a"), on_cut=OnCut.HOLD, patience=timedelta(milliseconds=250)
    )


@pytest.mark.parametrize(("grpc", "left"), [(SECOND, SECOND), (SECOND * 3, SECOND * 2)])
def test_the_shorter_deadline_counts(grpc: timedelta, left: timedelta) -> None:
    """A header cannot make a call wait longer than its own deadline."""
    assert read_wishes({"x-weir-deadline-ms": "2000"}, grpc).patience == left


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("x-weir-deadline-ms", "0"), ("x-weir-deadline-ms", "-1"), ("x-weir-deadline-ms", "1.5"),
        ("x-weir-deadline-ms", "86400001"), ("x-weir-deadline-ms", "9" * 5_000), ("x-weir-deadline-ms", "\u0661"),
        ("x-weir-deadline-ms", ""), ("x-weir-on-cut", "maybe"), ("x-weir-on-cut", ""), ("x-weir-targets", ""),
        ("x-weir-targets", "a,,b"), ("x-weir-targets", ",".join(map(str, range(65)))),
    ],
)  # fmt: skip
def test_bad_wishes_are_named(header: str, value: str) -> None:
    """The error says which header."""
    with pytest.raises(InvalidRequest) as caught:
        read_wishes({header: value}, None)
    assert caught.value.param == header


@given(st.text(max_size=20), st.text(max_size=20), st.text(max_size=20))
def test_nothing_but_a_refusal(targets: str, on_cut: str, deadline: str) -> None:
    """Whatever stands in the headers, it is understood or refused."""
    with suppress(InvalidRequest):
        read_wishes(
            {"x-weir-targets": targets, "x-weir-on-cut": on_cut, "x-weir-deadline-ms": deadline}, None
        )


def test_typed_options_count_more() -> None:
    """What the message says replaces what the headers say; what it leaves open stays."""
    wishes = Wishes(("a",), on_cut=OnCut.HOLD, patience=SECOND)
    assert with_options(wishes, None) == wishes
    options = RouteOptions(targets=["b"], fallbacks=["m"])
    assert with_options(wishes, options) == Wishes(("b",), "route.targets", ("m",), OnCut.HOLD, SECOND)
    assert with_options(wishes, RouteOptions(on_cut=OnCut.ERROR)) == replace(wishes, on_cut=OnCut.ERROR)


def test_typed_options_are_checked() -> None:
    """Too many targets, or a value from the future, are the caller's fault."""
    with pytest.raises(InvalidRequest, match="at most"):
        with_options(Wishes(), RouteOptions(targets=[str(at) for at in range(65)]))
    with pytest.raises(InvalidRequest, match="at most"):
        with_options(Wishes(), RouteOptions(fallbacks=[str(at) for at in range(17)]))
    with pytest.raises(InvalidRequest, match="unknown"):
        with_options(Wishes(), RouteOptions(on_cut=99))  # type: ignore[arg-type] # a newer client's value
