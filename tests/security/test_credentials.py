"""Every route and RPC against every credential that opens none, on the running mesh."""

from __future__ import annotations

import time

import pytest

from tests.harness.running_weir import wait_for
from tests.harness.stronghold import MODEL, PRIVATE, Stronghold
from tests.security.callers import BAD, CHAT_ROUTES, EMBED_ROUTES, OTHER_ROUTES, ROUTES, Http, Refusal

pytestmark = pytest.mark.xdist_group("security")
GOOD_WITHIN_S = 3.0
"""A change of a key is known at every router so soon, also on a busy machine; on a quiet one it takes milliseconds."""


@pytest.fixture(scope="module")
def offered(stronghold: Stronghold) -> dict[str, str | None]:
    """The bad credentials, each made once: a router remembers what Auth said of it."""
    return {name: make(stronghold) for name, make in BAD.items()}


@pytest.fixture(scope="module")
def ended(stronghold: Stronghold) -> dict[str, str]:
    """Keys that were good until a second ago."""
    keys = {name: stronghold.create_key() for name in ("revoked", "expired")}
    for key in keys.values():
        assert opens(stronghold, key).status == 200
    stronghold.revoke(keys["revoked"])
    stronghold.expire(keys["expired"])
    begun = time.monotonic()
    for key in keys.values():
        wait_for("its end", lambda key=key: opens(stronghold, key).status == 401)  # type: ignore[misc] # bound on purpose
    assert time.monotonic() - begun < GOOD_WITHIN_S
    return keys


def opens(stronghold: Stronghold, key: str) -> Refusal:
    """What a key is answered that asks for the list of models: it costs nothing."""
    return ROUTES["models"].ask(stronghold, f"Bearer {key}")


@pytest.mark.parametrize("route", ROUTES)
def test_a_good_key_opens_every_route(stronghold: Stronghold, route: str) -> None:
    """Else the refusals below would show nothing. So does a good token."""
    assert ROUTES[route].ask(stronghold, f"Bearer {stronghold.weir.key}").status == 200
    for alg in ("RS256", "ES256", "EdDSA"):
        assert ROUTES[route].ask(stronghold, f"Bearer {stronghold.jwt(alg)}").status == 200


@pytest.mark.parametrize("credential", BAD)
@pytest.mark.parametrize("route", ROUTES)
def test_a_bad_credential_opens_none(
    stronghold: Stronghold, offered: dict[str, str | None], route: str, credential: str
) -> None:
    """401, and the error repeats nothing of what was sent."""
    sent = offered[credential]
    before = len(stronghold.provider.log())
    refusal = ROUTES[route].ask(stronghold, sent)
    assert (refusal.status, refusal.code) == (401, "invalid_api_key")
    if sent:
        assert sent.split()[-1] not in refusal.text or len(sent.split()[-1]) < 8
    assert stronghold.asked_since(before) == []


@pytest.mark.parametrize("end", ["revoked", "expired"])
@pytest.mark.parametrize("route", ROUTES)
def test_an_ended_key_opens_none(stronghold: Stronghold, ended: dict[str, str], route: str, end: str) -> None:
    """A second after its end, at every router, and the error says which end it was."""
    for _ in range(4):  # both workers
        refusal = ROUTES[route].ask(stronghold, f"Bearer {ended[end]}")
        assert (refusal.status, refusal.code) == (401, "invalid_api_key")
        assert end in refusal.text


@pytest.mark.parametrize(
    ("scope", "opened"),
    [
        ("chat", {*CHAT_ROUTES, *OTHER_ROUTES}),
        ("embed", {*EMBED_ROUTES, *OTHER_ROUTES}),
        ("usage:read", set()),
        ("keys:write", set()),
        ("admin", set()),
    ],
)
def test_scopes(stronghold: Stronghold, scope: str, opened: set[str]) -> None:
    """A key opens the routes of its scopes and no other; admin alone asks no model."""
    key = stronghold.create_key("--scope", scope)
    wait_for("the key at every router", lambda: opens(stronghold, key).status != 401)
    for name, route in ROUTES.items():
        refusal = route.ask(stronghold, f"Bearer {key}")
        assert (refusal.status == 200) is (name in opened), (name, refusal)
        if name not in opened:
            assert (refusal.status, refusal.code) == (403, "insufficient_permissions")


def test_a_token_has_the_scopes_of_its_claims(stronghold: Stronghold) -> None:
    """A reader's token asks no model; one whose roles mean nothing here may do nothing."""
    for roles in (["weir-readers"], ["strangers"]):
        token = stronghold.jwt(realm_access={"roles": roles})
        for route in ROUTES.values():
            assert route.ask(stronghold, f"Bearer {token}").status == 403


def test_a_key_for_some_models_sees_and_asks_no_other(stronghold: Stronghold) -> None:
    """A model that it may not use is a 403, also as a fallback, and is not listed."""
    key = stronghold.create_key("--model", MODEL)
    wait_for("the key at every router", lambda: opens(stronghold, key).status == 200)
    bearer = f"Bearer {key}"
    messages = [{"role": "user", "content": "hi"}]
    for body in (
        {"model": PRIVATE, "messages": messages},
        {"model": MODEL, "fallbacks": [PRIVATE], "messages": messages},
    ):
        assert Http("POST", "/v1/chat/completions", body).ask(stronghold, bearer).status == 403
    assert PRIVATE not in Http("GET", "/v1/models").ask(stronghold, bearer).text
    assert Http("GET", f"/v1/models/{PRIVATE}").ask(stronghold, bearer).status in {403, 404}


@pytest.mark.parametrize("network", ["203.0.113.0/24", "2001:db8::/32", "10.0.0.0/8"])
def test_a_key_for_another_network(stronghold: Stronghold, network: str) -> None:
    """Refused from here, whatever the client says of its address."""
    key = stronghold.create_key("--network", network)
    wait_for("the key at every router", lambda: opens(stronghold, key).status != 401)
    assert opens(stronghold, key).status == 403


def test_a_key_for_this_network(stronghold: Stronghold) -> None:
    """Goes on."""
    key = stronghold.create_key("--network", "127.0.0.0/8")
    wait_for("the key at every router", lambda: opens(stronghold, key).status != 401)
    assert opens(stronghold, key).status == 200
