"""Which of an issuer's published keys are used."""

import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers
from hypothesis import given
from hypothesis import strategies as st

from services.auth.jwt.public_keys import LEAKED, MAX_KEYS, KeyRing, read_jwks
from tests.fakes.oidc import ALGORITHMS, Json, ec_key, jwk, private_key

_RSA = jwk(private_key("RS256").public_key(), "r")
_EC = jwk(private_key("ES256").public_key(), "e")
_ED = jwk(private_key("EdDSA").public_key(), "d")


def _read(*keys: Json) -> KeyRing:
    return read_jwks(json.dumps({"keys": keys}).encode())


def _kids(ring: KeyRing) -> dict[str, list[str]]:
    return {kid: list(by_alg) for kid, by_alg in ring.keys.items()}


def test_the_three_kinds_of_keys_are_read() -> None:
    """Each for its own algorithm, with or without saying so."""
    assert _kids(_read(_RSA, _EC, _ED)) == {"r": ["RS256"], "e": ["ES256"], "d": ["EdDSA"]}
    told = [{**key, "alg": alg, "use": "sig"} for key, alg in zip((_RSA, _EC, _ED), ALGORITHMS, strict=True)]
    assert _read(*told).unusable == {}
    assert _read({**_EC, "key_ops": ["verify"], "x5c": ["AAAA"], "x5t": "x", "other": {}}).unusable == {}


def test_one_kid_may_name_keys_of_two_kinds() -> None:
    """The token's algorithm tells which; a second key of one kind is left out."""
    other = jwk(private_key("ES256", 1).public_key(), "r")
    ring = _read(_RSA, {**_EC, "kid": "r"}, other)
    assert _kids(ring) == {"r": ["RS256", "ES256"]}
    assert ring.keys["r"]["ES256"] == private_key("ES256").public_key()
    assert list(ring.unusable) == ["its kid is another key's"]


def _weak(bits: int) -> Json:
    return jwk(private_key("RS256", 0, bits).public_key(), "weak")


def _odd_rsa(modulus: int, exponent: int) -> Json:
    return jwk(RSAPublicNumbers(exponent, modulus).public_key(), "odd")


_MODULUS = private_key("RS256").public_key().public_numbers().n


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (jwk(private_key("RS256"), "x"), LEAKED),
        (jwk(private_key("ES256"), "x"), LEAKED),
        (jwk(private_key("EdDSA"), "x"), LEAKED),
        ({**_RSA, "d": ""}, LEAKED),
        ({"kty": "oct", "k": "c2VjcmV0", "kid": "x", "alg": "HS256"}, LEAKED),
        ({"kty": "oct", "kid": "x"}, "it is for none"),
        ({**_RSA, "use": "enc"}, "not for signatures"),
        ({**_RSA, "use": ["sig"]}, "not for signatures"),
        ({**_RSA, "use": None}, "not for signatures"),
        ({**_RSA, "key_ops": ["encrypt"]}, "not for signatures"),
        ({**_RSA, "key_ops": "verify"}, "not for signatures"),
        ({**_RSA, "alg": "RS512"}, "it is for none"),
        ({**_RSA, "alg": "PS256"}, "it is for none"),
        ({**_RSA, "alg": "HS256"}, "it is for none"),
        ({**_RSA, "alg": "none"}, "it is for none"),
        ({**_RSA, "alg": "ES256"}, "it is for none"),
        ({**_EC, "alg": "RS256"}, "it is for none"),
        ({**_EC, "alg": None}, "it is for none"),
        ({**_EC, "alg": ["ES256"]}, "it is for none"),
        ({**_EC, "crv": "P-384"}, "it is for none"),
        ({**_EC, "crv": ["P-256"]}, "it is for none"),
        (jwk(ec_key(SECP384R1()).public_key(), "x"), "it is for none"),
        ({**_ED, "crv": "Ed448"}, "it is for none"),
        ({**_ED, "crv": "X25519"}, "it is for none"),
        ({**_ED, "kty": "EC"}, "it is for none"),
        ({**_EC, "kty": "ec"}, "it is for none"),
        ({**_EC, "kty": {}}, "it is for none"),
        ({**_EC, "kid": None}, "no kid"),
        ({**_EC, "kid": ""}, "no kid"),
        ({**_EC, "kid": 7}, "no kid"),
        ({**_EC, "kid": "k" * 257}, "no kid"),
        ({}, "no kid"),
        ({**_EC, "x": _EC["y"]}, "numbers"),
        ({**_EC, "x": "AA"}, "numbers"),
        ({**_EC, "x": 7}, "numbers"),
        ({**_EC, "x": "!" * 43}, "numbers"),
        ({**_EC, "y": ""}, "numbers"),
        ({**_ED, "x": "AA"}, "numbers"),
        ({**_ED, "x": None}, "numbers"),
        ({**_RSA, "n": ""}, "numbers"),
        ({**_RSA, "n": None}, "numbers"),
        ({**_RSA, "e": "AA"}, "numbers"),
        ({**_RSA, "e": "Ag"}, "numbers"),
        (_weak(1_024), "outside 2048"),
        (_weak(2_040), "outside 2048"),
        (_odd_rsa(_MODULUS**5, 65_537), "outside 2048"),
        (_odd_rsa(_MODULUS, 2**64 + 13), "outside 2048"),
    ],
)
def test_an_unusable_key_is_left_out_alone(key: Json, reason: str) -> None:
    """The others are used; what is told of it is a reason and nothing of the key."""
    ring = _read(_ED, key)
    assert _kids(ring) == {"d": ["EdDSA"]}
    ((told, count),) = ring.unusable.items()
    assert reason in told
    assert count == 1


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"<html>please log in</html>",
        b"[]",
        b"null",
        b'{"keys": {}}',
        b'{"keys": null}',
        b'{"keys": [1]}',
        b'{"keys": ["' + b"x" * 10 + b'"]}',
        b'{"key": []}',
        b'{"keys": [], "keys": []}',
        b'{"keys": [{"kid": "a", "kid": "b"}]}',
        b'{"keys": [' + b"[" * 100_000,
        b'{"keys": [], "x": ' + b"9" * 5_000 + b"}",
        '{"keys": []}'.encode("utf-16"),
        b"\xff\xfe",
        json.dumps({"keys": [{}] * (MAX_KEYS + 1)}).encode(),
        json.dumps(_EC).encode(),
    ],
)
def test_what_is_no_jwk_set_is_a_fault(document: bytes) -> None:
    """Told from a set that is good and has no key for us."""
    with pytest.raises(ValueError, match="it "):
        read_jwks(document)


def test_a_set_without_a_key_for_us_is_good() -> None:
    """An issuer may withdraw all its keys."""
    assert _read() == KeyRing({}, {})


_ANY = st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=3)


@given(st.sampled_from([_RSA, _EC, _ED]), st.data())
def test_a_key_with_anything_in_it_is_used_or_left_out(key: Json, data: st.DataObject) -> None:
    """Never another error."""
    member = data.draw(st.sampled_from([*key, "use", "alg", "key_ops", "crv", "d"]))
    ring = _read({**key, member: data.draw(_ANY)})
    assert len(ring.keys) + sum(ring.unusable.values()) == 1
