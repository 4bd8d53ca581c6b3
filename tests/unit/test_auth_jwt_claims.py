"""What a genuine token's claims mean: for how long, to whom, and the key that its holder gets."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gen.weir.auth.v1 import AuthenticateRequest, Key, Scope
from gen.weir.type.v1 import Principal
from meshkit.errors import Forbidden, KeyExpired, KeyInvalid, WeirError
from services.auth.authenticate import Authenticate
from services.auth.jwt.grants import key_id_of
from services.auth.jwt.settings import IssuerSettings
from tests.fakes.auth import FakeKeyStore
from tests.fakes.oidc import AUDIENCE, NOW, NOW_S, FakeIssuer, Json, Tokens, settings_of

_ISSUER = FakeIssuer()
_DAY_S = 86_400


async def _key(settings: IssuerSettings | None = None, **claims: Any) -> Key:
    return await Tokens(_ISSUER, settings)(_ISSUER.token(**claims))


async def test_a_token_is_its_holders_key() -> None:
    """All of it: nothing secret, and it ends when the token does."""
    key = await _key(settings_of(models=["gpt-*"], targets=["local"]))
    key_id = key_id_of("work", "ada")
    assert key == Key(
        id=key_id,
        principal=Principal(key_id=key_id, org="acme", team="search"),
        label="work",
        created_at=NOW,
        expires_at=NOW + timedelta(seconds=300 + 30),
        models=["gpt-*"],
        targets=["local"],
        owner="ada",
        scopes=[Scope.CHAT, Scope.EMBED],
    )


async def test_authenticate_takes_a_token_in_place_of_a_key() -> None:
    """AuthenticateRequest.jwt; without an issuer it is a key that nobody knows."""
    store, request = FakeKeyStore(), AuthenticateRequest(jwt=_ISSUER.token())
    key = await Authenticate(store, lambda: NOW, Tokens(_ISSUER))(request)
    assert key.id == key_id_of("work", "ada")
    with pytest.raises(KeyInvalid):
        await Authenticate(store, lambda: NOW)(request)


def test_a_holders_id_is_stable_and_its_own() -> None:
    """The ledger knows a holder by it: it may never change, nor be another's."""
    assert key_id_of("work", "ada") == "jwt_c5uewfc2pmef3arkiksf"
    ids = {key_id_of(*pair) for pair in (("work", "ada"), ("work", "eve"), ("home", "ada"), ("worka", "da"))}
    assert len(ids) == 4
    assert all(re.fullmatch(r"jwt_[a-z2-7]{20}", key_id) for key_id in ids)


@pytest.mark.parametrize(
    ("claims", "kind", "text"),
    [
        ({"exp": NOW_S - 29}, None, ""),
        ({"exp": NOW_S - 29.5}, None, ""),
        ({"exp": NOW_S - 30}, KeyExpired, "has expired"),
        ({"exp": NOW_S - 31}, KeyExpired, "has expired"),
        ({"exp": 0}, KeyExpired, "has expired"),
        ({"exp": None}, KeyInvalid, "does not say when it expires"),
        ({"exp": str(NOW_S + 60)}, KeyInvalid, "exp is no time"),
        ({"exp": True}, KeyInvalid, "exp is no time"),
        ({"exp": [NOW_S + 60]}, KeyInvalid, "exp is no time"),
        ({"exp": -1}, KeyInvalid, "exp is no time"),
        ({"exp": 10**12}, KeyInvalid, "exp is no time"),
        ({"exp": 10**4_000}, KeyInvalid, "exp is no time"),
        ({"exp": 249_999_999_999, "iat": 249_999_999_000}, KeyInvalid, "issued in the future"),
        ({"nbf": NOW_S + 29}, None, ""),
        ({"nbf": NOW_S + 30}, None, ""),
        ({"nbf": NOW_S + 31}, KeyInvalid, "not valid yet"),
        ({"nbf": "now"}, KeyInvalid, "nbf is no time"),
        ({"nbf": None, "iat": None}, None, ""),
        ({"iat": NOW_S + 29}, None, ""),
        ({"iat": NOW_S + 31}, KeyInvalid, "issued in the future"),
        ({"iat": {}}, KeyInvalid, "iat is no time"),
        ({"iat": NOW_S - 3_600, "exp": NOW_S - 3_600 + _DAY_S}, None, ""),
        ({"exp": NOW_S + _DAY_S}, None, ""),
        ({"exp": NOW_S + _DAY_S + 1}, KeyInvalid, "24 hours"),
        ({"iat": NOW_S - _DAY_S, "exp": NOW_S + 1}, KeyInvalid, "24 hours"),
        ({"iat": None, "exp": NOW_S + _DAY_S + 1}, KeyInvalid, "24 hours"),
        ({"aud": ["somebody else", AUDIENCE]}, None, ""),
        ({"aud": "second-audience"}, None, ""),
        ({"aud": None}, KeyInvalid, "audience"),
        ({"aud": "somebody else"}, KeyInvalid, "audience"),
        ({"aud": AUDIENCE.upper()}, KeyInvalid, "audience"),
        ({"aud": AUDIENCE + " "}, KeyInvalid, "audience"),
        ({"aud": f"x {AUDIENCE}"}, KeyInvalid, "audience"),
        ({"aud": []}, KeyInvalid, "audience"),
        ({"aud": [[AUDIENCE]]}, KeyInvalid, "audience"),
        ({"aud": [AUDIENCE, 7]}, KeyInvalid, "audience"),
        ({"aud": {AUDIENCE: 1}}, KeyInvalid, "audience"),
        ({"sub": None}, KeyInvalid, "subject"),
        ({"sub": ""}, KeyInvalid, "subject"),
        ({"sub": 7}, KeyInvalid, "subject"),
        ({"sub": "a\0b"}, KeyInvalid, "subject"),
        ({"sub": "a\nb"}, KeyInvalid, "subject"),
        ({"sub": "\ud800"}, KeyInvalid, "subject"),
        ({"sub": "x" * 256}, KeyInvalid, "subject"),
        ({"sub": "x" * 255}, None, ""),
        ({"sub": "Ada Lovelace \N{SNOWMAN}"}, None, ""),
        ({"cnf": {"jkt": "abc"}}, KeyInvalid, "cnf"),
    ],
)
async def test_times_audience_and_subject(claims: Json, kind: type[WeirError] | None, text: str) -> None:
    """30 seconds of skew on either side; one of the audiences; a subject that can be told to people."""
    if kind is None:
        assert (await _key(**claims)).principal is not None
        return
    with pytest.raises(kind, match=text) as refused:
        await _key(**claims)
    assert "ada" not in refused.value.message


async def test_the_skew_and_the_lifetime_are_settings() -> None:
    """In seconds."""
    tokens = Tokens(_ISSUER, clock_skew_s=0, max_lifetime_s=600)
    assert await tokens(_ISSUER.token(exp=NOW_S + 600)) is not None
    with pytest.raises(KeyInvalid):
        await tokens(_ISSUER.token(exp=NOW_S + 601))
    with pytest.raises(KeyInvalid):
        await tokens(_ISSUER.token(nbf=NOW_S + 1))
    with pytest.raises(KeyExpired):
        await tokens(_ISSUER.token(exp=NOW_S))


async def test_nobody_without_the_key_learns_what_a_token_lacks() -> None:
    """A forged token is told to be forged, whatever its claims."""
    tokens = Tokens(_ISSUER)
    with pytest.raises(KeyInvalid, match="signature"):
        await tokens(_ISSUER.token(number=1, exp=1, aud="x"))


_URL_CLAIM = "https://weir.example/groups"


def _by(claim: str, values: Json) -> Json:
    return {"claim": claim, "map": values}


@pytest.mark.parametrize(
    ("scopes", "claims", "granted"),
    [
        (["chat"], {}, [Scope.CHAT]),
        (["usage:read", "chat", "chat"], {}, [Scope.CHAT, Scope.USAGE_READ]),
        (_by("scope", {"llm.chat": ["chat"], "llm.use": ["usage:read"]}),
         {"scope": "openid llm.use llm.chat"}, [Scope.CHAT, Scope.USAGE_READ]),
        (_by("scope", {"chat": ["chat"]}), {"scope": ["other", "chat"]}, [Scope.CHAT]),
        (_by(_URL_CLAIM, {"staff": ["embed"]}), {_URL_CLAIM: ["staff"]}, [Scope.EMBED]),
        (_by("groups", {"two words": ["embed"]}), {"groups": ["two words"]}, [Scope.EMBED]),
        (_by("a.b.c", {"x": ["keys:write"]}), {"a": {"b": {"c": "x"}}}, [Scope.KEYS_WRITE]),
        (_by("groups", {"x": ["admin"], "y": ["chat", "admin"]}),
         {"groups": ["y", "x", "y"]}, [Scope.CHAT, Scope.ADMIN]),
    ],
)  # fmt: skip
async def test_claims_become_scopes(scopes: object, claims: Json, granted: list[Scope]) -> None:
    """Fixed ones, or by what a claim lists; all that fit add up, in one order."""
    assert (await _key(settings_of(scopes=scopes), **claims)).scopes == granted


@pytest.mark.parametrize(
    "claims",
    [
        {"groups": None},
        {"groups": []},
        {"groups": ""},
        {"groups": ["X", "x ", " x", "xx", "*"]},
        {"groups": "x,y"},
        {"groups": None, "realm_access": {"groups": ["x"]}},
    ],
)
async def test_who_has_no_scope_is_forbidden(claims: Json) -> None:
    """We know who it is, and it may do nothing: never the scopes of a key that says nothing."""
    with pytest.raises(Forbidden, match="groups"):
        await _key(settings_of(scopes={"claim": "groups", "map": {"x": ["chat"]}}), **claims)


@pytest.mark.parametrize("value", [7, True, {"x": 1}, ["x", 7], [["x"]], [None]])
async def test_a_scope_claim_of_another_kind_is_invalid(value: object) -> None:
    """A list with a number in it is not read half."""
    with pytest.raises(KeyInvalid, match="neither a text nor a list"):
        await _key(settings_of(scopes={"claim": "groups", "map": {"x": ["chat"]}}), groups=value)


@pytest.mark.parametrize(
    ("settings", "claims", "holder"),
    [
        ({"org": "fixed"}, {"org": "acme"}, ("fixed", "search", "ada")),
        ({"team": {"claim": "team"}}, {"team": "/eng/ml"}, ("acme", "/eng/ml", "ada")),
        ({"team": {"claim": "ctx.team"}}, {"ctx": {"team": "ml"}, "ctx.team": "x"}, ("acme", "ml", "ada")),
        (
            {"owner": {"claim": "email"}},
            {"email": "ada@acme.example"},
            ("acme", "search", "ada@acme.example"),
        ),
        ({"owner": "the platform team"}, {}, ("acme", "search", "the platform team")),
        ({}, {"sub": "x" * 255}, ("acme", "search", "x" * 100)),
        ({}, {"org": "Société \N{SNOWMAN}"}, ("Société \N{SNOWMAN}", "search", "ada")),
    ],
)
async def test_claims_become_org_team_and_owner(
    settings: Json, claims: Json, holder: tuple[str, ...]
) -> None:
    """A fixed name or a claim's; a long owner is cut."""
    key = await _key(settings_of(**settings), **claims)
    assert key.principal is not None
    assert (key.principal.org, key.principal.team, key.owner) == holder


_UNUSABLE = (
    None, "", " ", "acme ", "a\nb", "a\0b", "x" * 101, 7, ["acme"], {"name": "acme"}, "a/b", "a\u202eb", "\udfff",
)  # fmt: skip


@pytest.mark.parametrize("org", _UNUSABLE)
async def test_a_token_without_a_usable_org_is_invalid(org: object) -> None:
    """Nobody pays for it, or two orgs would look alike."""
    with pytest.raises(KeyInvalid, match="claim org"):
        await _key(org=org)


async def test_a_token_of_an_unusual_but_valid_form() -> None:
    """Times with fractions, claims that nobody reads, and names in any script."""
    key = await _key(iat=NOW_S - 0.5, exp=NOW_S + 0.25, extra={"deep": [{"er": None}]}, name="アダ")
    assert key.expires_at == datetime.fromtimestamp(NOW_S + 30.25, UTC)
