"""Tokens that must not be taken, and the good ones beside them."""

import hmac
import json
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import assume, given
from hypothesis import strategies as st
from jwt.utils import base64url_decode

from meshkit.errors import Forbidden, KeyExpired, KeyInvalid, WeirError
from tests.fakes.oidc import (
    ALGORITHMS,
    ISSUER,
    FakeIssuer,
    Json,
    Tokens,
    assembled,
    jwk,
    part,
    private_key,
)

_GOOD = FakeIssuer()
_HS256 = {"alg": "HS256", "typ": "JWT"}


@pytest.mark.parametrize("alg", ALGORITHMS)
async def test_a_good_token_of_each_algorithm_is_taken(alg: str) -> None:
    """What the attacks below differ from in one thing each."""
    key = await Tokens(_GOOD)(_GOOD.token(alg))
    assert key.principal is not None
    assert (key.principal.org, key.principal.team, key.label) == ("acme", "search", "work")


@pytest.mark.parametrize(
    "header",
    [
        {"typ": None},
        {"typ": "jwt"},
        {"typ": "at+jwt"},
        {"typ": "application/AT+JWT"},
        {"x5t": "abc"},
        {"unknown": {"nested": [1]}},
    ],
)
async def test_harmless_headers_are_taken(header: Json) -> None:
    """Types that an issuer may write, and fields that nobody here reads."""
    assert await Tokens(_GOOD)(_GOOD.token(header=header)) is not None


def _pem(alg: str) -> bytes:
    return bytes(private_key(alg).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def _der(alg: str) -> bytes:
    return bytes(private_key(alg).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def _hmac(kid: str, secret: bytes) -> str:
    """A token signed with HS256; the library itself would refuse such a secret, so by hand."""
    message = f"{part({**_HS256, 'kid': kid})}.{part(_GOOD.claims())}"
    return f"{message}.{part(hmac.digest(secret, message.encode(), 'sha256'))}"


def _relabelled(to: str, alg: str, kid: str) -> str:
    """Truly signed by `alg` with its key, but named another algorithm in the header."""
    return assembled({"alg": to, "kid": kid}, _GOOD.claims(), alg, private_key(alg))


def _header(header: bytes) -> str:
    return assembled(header, _GOOD.claims(), "ES256", private_key("ES256"))


def _rsa(alg: str) -> str:
    """Truly signed by another algorithm of the same key."""
    return assembled({"alg": alg, "kid": "rs256"}, _GOOD.claims(), alg, private_key("RS256"))


def _exchanged(index: int) -> str:
    """A good token with one part of another's."""
    parts, others = _GOOD.token().split("."), _GOOD.token(sub="eve").split(".")
    parts[index] = others[index]
    return ".".join(parts)


def _own_key(**header: object) -> str:
    """Signed with a key of the forger's, which the header brings along or points to."""
    return _GOOD.token(number=1, header=header)


_NO_ALGORITHMS = (
    "none",
    "None",
    "NONE",
    "nOnE",
    "",
    " none",
    "none ",
    None,
    True,
    256,
    ["ES256"],
    {"ES256": 1},
)


def _unsigned(alg: object, signed: str = "") -> str:
    return f"{part({'alg': alg, 'kid': 'es256'})}.{part(_GOOD.claims())}.{signed}"


def _payload(payload: bytes) -> str:
    return assembled({"alg": "ES256", "kid": "es256"}, payload, "ES256", private_key("ES256"))


def _der_signature() -> str:
    message = _GOOD.token().rpartition(".")[0]
    return f"{message}.{part(private_key('ES256').sign(message.encode(), ECDSA(SHA256())))}"


def _longer_signature(alg: str) -> str:
    message, _, signed = _GOOD.token(alg).rpartition(".")
    return f"{message}.{part(bytes(1) + base64url_decode(signed))}"


FORGED: dict[str, Callable[[], str]] = {
    **{f"alg {alg}": partial(_unsigned, alg) for alg in _NO_ALGORITHMS},
    **{f"alg {alg} with a signature": partial(_unsigned, alg, "AAAA") for alg in _NO_ALGORITHMS},
    "no signature": lambda: _GOOD.token().rpartition(".")[0] + ".",
    "two parts": lambda: _GOOD.token().rpartition(".")[0],
    "four parts": lambda: _GOOD.token() + ".e30",
    "HS256 with the RSA key's PEM": lambda: _hmac("rs256", _pem("RS256")),
    "HS256 with that PEM, without its last newline": lambda: _hmac("rs256", _pem("RS256").strip()),
    "HS256 with the RSA key's DER": lambda: _hmac("rs256", _der("RS256")),
    "HS256 with the JWK": lambda: _hmac("rs256", json.dumps(_GOOD.published[0]).encode()),
    "HS256 with the modulus": lambda: _hmac("rs256", base64url_decode(_GOOD.published[0]["n"])),
    "HS256 with the EC key's PEM": lambda: _hmac("es256", _pem("ES256")),
    "HS256 with the Ed25519 key": lambda: _hmac("eddsa", base64url_decode(_GOOD.published[2]["x"])),
    "HS256 with nothing": lambda: _hmac("rs256", b""),
    "RS256 by the EC key's name": lambda: _relabelled("RS256", "ES256", "es256"),
    "ES256 by the RSA key's name": lambda: _relabelled("ES256", "RS256", "rs256"),
    "EdDSA by the EC key's name": lambda: _relabelled("EdDSA", "ES256", "es256"),
    "a true RS256 with the EC key's kid": lambda: _GOOD.token("RS256", header={"kid": "es256"}),
    "PS256": lambda: _relabelled("PS256", "RS256", "rs256"),
    "a true PS256": lambda: _rsa("PS256"),
    "a true RS512": lambda: _rsa("RS512"),
    "es256 in lower case": lambda: _relabelled("es256", "ES256", "es256"),
    "another key's signature": _own_key,
    "its own key in the header": lambda: _own_key(jwk=jwk(private_key("ES256", 1).public_key(), "es256")),
    "its own key, signed by the issuer": lambda: _GOOD.token(header={"jwk": {}}),
    "a jku": lambda: _own_key(jku="http://127.0.0.1:1/jwks"),
    "a x5u": lambda: _own_key(x5u="http://169.254.169.254/latest"),
    "a x5c": lambda: _own_key(x5c=["AAAA"]),
    "crit": lambda: _GOOD.token(header={"crit": ["exp"]}),
    "crit b64": lambda: _GOOD.token(header={"crit": ["b64"], "b64": True}),
    "b64": lambda: _GOOD.token(header={"b64": False}),
    "empty crit": lambda: _GOOD.token(header={"crit": []}),
    "a nested token": lambda: _GOOD.token(header={"cty": "JWT"}),
    "packed": lambda: _GOOD.token(header={"zip": "DEF"}),
    "encrypted": lambda: _GOOD.token(header={"enc": "A128GCM"}),
    "typ dpop+jwt": lambda: _GOOD.token(header={"typ": "dpop+jwt"}),
    "typ logout+jwt": lambda: _GOOD.token(header={"typ": "logout+jwt"}),
    "typ a number": lambda: _GOOD.token(header={"typ": 1}),
    "no kid": lambda: _GOOD.token(header={"kid": None}),
    "kid empty": lambda: _GOOD.token(header={"kid": ""}),
    "kid a number": lambda: _GOOD.token(header={"kid": 1}),
    "kid a list": lambda: _GOOD.token(header={"kid": ["es256"]}),
    "kid unknown": lambda: _GOOD.token(header={"kid": "es257"}),
    "kid in another case": lambda: _GOOD.token(header={"kid": "ES256"}),
    "kid a path": lambda: _GOOD.token(header={"kid": "../../../../dev/null"}),
    "kid a URL": lambda: _GOOD.token(header={"kid": "http://169.254.169.254/"}),
    "kid SQL": lambda: _GOOD.token(header={"kid": "' OR 1=1 --"}),
    "kid very long": lambda: _GOOD.token(header={"kid": "k" * 257}),
    "kid with a surrogate": lambda: _header(b'{"alg":"ES256","kid":"\\ud800"}'),
    "kid with a NUL": lambda: _GOOD.token(header={"kid": "es256\0"}),
    "alg twice": lambda: _header(b'{"alg":"none","alg":"ES256","kid":"es256"}'),
    "kid twice": lambda: _header(b'{"alg":"ES256","kid":"x","kid":"es256"}'),
    "header a list": lambda: _header(b'["ES256"]'),
    "header in UTF-16": lambda: _header('{"alg":"ES256","kid":"es256"}'.encode("utf-16")),
    "header with a byte order mark": lambda: _header(b'\xef\xbb\xbf{"alg":"ES256","kid":"es256"}'),
    "header not UTF-8": lambda: _header(b'{"alg":"ES256","kid":"es256","x":"\xff"}'),
    "header with more behind it": lambda: _header(b'{"alg":"ES256","kid":"es256"}{}'),
    "payload a list": lambda: _payload(b"[1]"),
    "payload nothing": lambda: _payload(b""),
    "payload null": lambda: _payload(b"null"),
    "payload nested too deep": lambda: _payload(b'{"a":' * 900 + b"1" + b"}" * 900),
    "payload a huge number": lambda: _payload(b'{"exp":' + b"9" * 5_000 + b"}"),
    "payload NaN": lambda: _payload(json.dumps({**_GOOD.claims(), "exp": float("nan")}).encode()),
    "a claim twice": lambda: _payload(b'{"iss":"x",' + json.dumps(_GOOD.claims()).encode()[1:]),
    "a nested claim twice": lambda: _payload(json.dumps(_GOOD.claims()).encode()[:-1] + b',"x":{"a":1,"a":2}}'),
    "issuer another": lambda: _GOOD.token(iss="https://evil.example"),
    "issuer with a slash more": lambda: _GOOD.token(iss=ISSUER + "/"),
    "issuer in capitals": lambda: _GOOD.token(iss=ISSUER.upper()),
    "issuer a list": lambda: _GOOD.token(iss=[ISSUER]),
    "no issuer": lambda: _GOOD.token(iss=None),
    "JSON serialization": lambda: json.dumps({"payload": part(_GOOD.claims()), "signatures": []}),
    "padding": lambda: _GOOD.token() + "==",
    "padding inside": lambda: _GOOD.token().replace(".", "=.", 1),
    "a newline": lambda: _GOOD.token() + "\n",
    "a space": lambda: " " + _GOOD.token(),
    "an odd letter": lambda: _GOOD.token().replace(".", "é.", 1),
    "standard base64": lambda: _GOOD.token().replace(".", "+.", 1),
    "too long": lambda: _GOOD.token(padding="x" * 8_192),
    "empty": lambda: "",
    "dots": lambda: "..",
    "NUL": lambda: "\0" * 100,
    "an ES256 signature in DER": _der_signature,
    "an ES256 signature of zeros": lambda: _GOOD.token().rpartition(".")[0] + "." + part(bytes(64)),
    "an EdDSA signature of zeros": lambda: _GOOD.token("EdDSA").rpartition(".")[0] + "." + part(bytes(64)),
    "an empty RSA signature": lambda: _GOOD.token("RS256").rpartition(".")[0] + ".AA",
    "an RSA signature with a zero more": lambda: _longer_signature("RS256"),
    "an ES256 signature with a zero more": lambda: _longer_signature("ES256"),
    "another token's signature": lambda: _exchanged(2),
    "other claims under a good signature": lambda: _exchanged(1),
}  # fmt: skip


@pytest.mark.parametrize("name", FORGED)
async def test_a_forged_token_is_invalid(name: str) -> None:
    """Whatever is wrong with it: KeyInvalid, in words that repeat nothing of it."""
    with pytest.raises(KeyInvalid) as refused:
        await Tokens(_GOOD)(FORGED[name]())
    for word in ("eve", "evil", "169.254", "dev/null", "es257", "acme", "ada"):
        assert word not in refused.value.message


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (lambda: _unsigned("none", "AAAA"), "algorithm is none of"),
        (lambda: _hmac("rs256", _pem("RS256")), "algorithm is none of"),
        (
            lambda: _payload(json.dumps({**_GOOD.claims(), "unread": float("nan")}).encode()),
            "payload is no JSON",
        ),
    ],
)
async def test_the_first_guard_refuses_already(text: Callable[[], str], told: str) -> None:
    """Where a later one would refuse too, or nobody would read the odd value."""
    with pytest.raises(KeyInvalid, match=told):
        await Tokens(_GOOD)(text())


async def test_a_token_is_worth_nothing_where_no_issuer_is_trusted() -> None:
    """The other way round as well: one issuer's token under another's name."""
    tokens = Tokens(_GOOD)
    tokens.verify._issuers = {}
    with pytest.raises(KeyInvalid, match="no issuer"):
        await tokens(_GOOD.token())


@cache
def _one_good(alg: str) -> str:
    return _GOOD.token(alg)


@given(
    st.sampled_from(ALGORITHMS),
    st.floats(0, 1, exclude_max=True),
    st.characters(codec="latin-1"),
    st.sampled_from(["alter", "drop", "insert"]),
)
async def test_no_changed_token_is_taken(alg: str, where: float, char: str, how: str) -> None:
    """A good token with any one character altered, left out or put in is none."""
    good = _one_good(alg)
    place = int(where * len(good))
    rest = {"alter": char + good[place + 1 :], "drop": good[place + 1 :], "insert": char + good[place:]}
    text = good[:place] + rest[how]
    assume(text != good)
    with pytest.raises(WeirError):
        await Tokens(_GOOD)(text)


@pytest.mark.parametrize("alg", ALGORITHMS)
async def test_no_flipped_bit_is_overlooked(alg: str) -> None:
    """Every bit of the three parts, as they are before base64."""
    tokens = Tokens(_GOOD)
    parts = [base64url_decode(one) for one in _GOOD.token(alg).split(".")]
    for index, data in enumerate(parts):
        for place in range(0, len(data) * 8, 7 if index == 1 else 3):
            flipped = bytearray(data)
            flipped[place // 8] ^= 1 << place % 8
            text = ".".join(map(part, [*parts[:index], bytes(flipped), *parts[index + 1 :]]))
            with pytest.raises(WeirError):
                await tokens(text)


@given(st.text(max_size=200))
async def test_any_text_is_refused_in_order(text: str) -> None:
    """Never another error than KeyInvalid."""
    with pytest.raises(KeyInvalid):
        await Tokens(_GOOD)(text)


_NAMES = ("iss", "aud", "sub", "exp", "nbf", "iat", "org", "realm_access", "cnf")
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(_VALUES, st.sampled_from(_NAMES))
async def test_a_claim_of_any_kind_is_refused_or_taken_in_order(value: object, name: str) -> None:
    """A genuine token whose claim is anything at all never causes another error than those of the contract."""
    claims = {**_GOOD.claims(), name: value}
    text = assembled({"alg": "EdDSA", "kid": "eddsa"}, claims, "EdDSA", private_key("EdDSA"))
    with suppress(KeyInvalid, KeyExpired, Forbidden):
        key = await Tokens(_GOOD)(text)
        assert key.principal is not None
        assert key.principal.org
        assert key.scopes
