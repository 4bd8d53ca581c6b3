"""What the door takes for a JWT, before anyone is asked."""

import base64
import json
from time import perf_counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshkit.bearer import MAX_JWT_CHARS, looks_like_jwt
from tests.fakes.auth import token_of
from tests.fakes.oidc import ALGORITHMS, FakeIssuer, part

_BODY = "e30." + "A" * 86


def _with(header: bytes) -> str:
    return f"{part(header)}.{_BODY}"


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_every_good_token_passes(alg: str) -> None:
    """Whatever Auth may find good is asked about."""
    assert looks_like_jwt(FakeIssuer().token(alg))
    assert looks_like_jwt(FakeIssuer().token(alg, header={"typ": None, "x5t": "abc", "kid": "é/.."}))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ey",
        token_of(1).text,
        "ey" * 4_096,
        "." * 100,
        _with(b'{"alg":"none","kid":"a"}'),
        _with(b'{"alg":"HS256","kid":"a"}'),
        _with(b'{"alg":"es256","kid":"a"}'),
        _with(b'{"alg":["ES256"],"kid":"a"}'),
        _with(b'{"alg":"ES256"}'),
        _with(b'{"alg":"ES256","kid":""}'),
        _with(b'{"alg":"ES256","kid":7}'),
        _with(b'{"alg":"ES256","kid":"a"'),
        _with(b'{"alg":"ES256","kid":"a"}x'),
        _with(b'{"alg":"ES256","kid":"\xff"}'),
        _with(b'{"alg":"ES256","kid":"' + b"a" * 1_000 + b'"}'),
        _with(b'{"a":' + b"[" * 700 + b"]" * 50 + b"}"),
        part(b'{"alg":"ES256","kid":"a"}') + "." + "A" * 90,
        part(b'{"alg":"ES256","kid":"a"}') + ".." + "A" * 90,
        part(b'{"alg":"ES256","kid":"a"}') + "." + "A" * 90 + ".",
        FakeIssuer().token() + ".AAAA",
        FakeIssuer().token() + "=",
        FakeIssuer().token() + " ",
        FakeIssuer().token() + "é",
        FakeIssuer().token().replace(".", "+.", 1),
        FakeIssuer().token(padding="x" * MAX_JWT_CHARS),
    ],
)
def test_rubbish_does_not(text: str) -> None:
    """Each would be refused by Auth as well; so Auth need not be asked."""
    assert not looks_like_jwt(text)


@given(st.text())
def test_no_text_is_too_odd(text: str) -> None:
    """Any text has an answer, also as a token's header."""
    assert not looks_like_jwt(text)
    header = base64.urlsafe_b64encode(json.dumps({text: text}).encode()).decode().rstrip("=")
    assert not looks_like_jwt(f"{header}.{_BODY}")


def test_it_is_cheap() -> None:
    """A look costs next to nothing, compared with asking Auth (about 600 us)."""
    token = FakeIssuer().token("RS256")
    best = min(_seconds(token) for _ in range(20))
    assert best < 50e-6


def _seconds(token: str) -> float:
    begun = perf_counter()
    for _ in range(100):
        looks_like_jwt(token)
    return (perf_counter() - begun) / 100
