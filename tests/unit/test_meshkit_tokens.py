"""Key tokens: minted, cut apart, and refused without being repeated."""

import pickle
import re
import secrets
import string
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshkit.errors import KeyInvalid, KeyMissing, WeirError
from meshkit.tokens import Token, from_authorization, is_key_id, mint, parse, same_digest

_ALPHABET = string.ascii_letters + string.digits
_TOKENS = st.binary(min_size=32, max_size=32).map(lambda entropy: mint(lambda count: entropy[-count:]))


@given(_TOKENS)
def test_a_minted_token_is_read_back_whole(token: Token) -> None:
    """What mint makes, parse cuts into the same parts."""
    again = parse(token.text)
    assert (again.key_id, again.secret) == (token.key_id, token.secret)
    assert re.fullmatch(r"weir_[a-z2-7]{12}_[0-9A-Za-z]{49}", token.text)
    assert is_key_id(token.key_id)


def test_the_secret_carries_256_random_bits() -> None:
    """Extreme entropy values give different secrets: nothing is cut off."""
    lowest, highest = bytes(32), b"\xff" * 32
    second = bytes(31) + b"\x01"
    almost = b"\x7f" + b"\xff" * 31
    secrets_made = {
        mint(lambda count, bits=bits: bits if count == 32 else bytes(count)).secret  # type: ignore[misc] # bound per loop
        for bits in (lowest, highest, second, almost)
    }
    assert len(secrets_made) == 4


def test_two_tokens_differ_in_both_parts() -> None:
    """Id and secret come from fresh randomness."""
    made = [mint(secrets.token_bytes) for _ in range(200)]
    assert len({token.key_id for token in made}) == 200
    assert len({token.secret for token in made}) == 200


def test_the_digest_is_of_the_secret_text_alone() -> None:
    """SHA-256 of the secret part's text, 32 bytes."""
    token = mint(secrets.token_bytes)
    assert token.secret_sha256 == sha256(token.text.rsplit("_", 1)[1].encode()).digest()
    assert same_digest(token.secret_sha256, bytes(bytearray(token.secret_sha256)))
    assert not same_digest(token.secret_sha256, bytes(32))
    assert not same_digest(token.secret_sha256, b"")


@given(_TOKENS, st.integers(min_value=5, max_value=66), st.sampled_from(_ALPHABET))
def test_a_single_typing_error_is_told(token: Token, place: int, character: str) -> None:
    """Any other character at any place of id or secret is refused without asking anyone: CRC-32 finds them all."""
    text = token.text
    if text[place] in (character, "_"):
        return
    with pytest.raises(KeyInvalid):
        parse(text[:place] + character + text[place + 1 :])


@given(_TOKENS, st.integers(min_value=0, max_value=66))
def test_a_token_cut_short_is_refused(token: Token, length: int) -> None:
    """No prefix of a token is a token."""
    with pytest.raises(KeyInvalid):
        parse(token.text[:length])


def test_a_typing_error_is_told_from_a_wrong_form() -> None:
    """The message says whether to copy again or to look for another kind of key."""
    text = mint(secrets.token_bytes).text
    other = "A" if text[-1] != "A" else "B"
    with pytest.raises(KeyInvalid, match="mistyped"):
        parse(text[:-1] + other)
    with pytest.raises(KeyInvalid, match="form"):
        parse("sk-proj-abcdef")


@given(st.text() | st.from_regex(r"\Aweir_[a-z2-7]{12}_[0-9A-Za-z]{49}\Z"))
def test_whatever_is_refused_is_not_repeated(text: str) -> None:
    """An error holds nothing of what was offered, beyond what its own sentence says."""
    with pytest.raises(KeyInvalid) as refused:
        parse(text)
    if len(text) > 30:
        assert text not in str(refused.value)
        assert text[10:30] not in str(refused.value)
    assert not refused.value.details


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "  Bearer  "])
@pytest.mark.parametrize("form", [str, str.encode])
def test_an_authorization_header_is_read(scheme: str, form: type[str]) -> None:
    """The scheme in any case, surplus spaces, text or bytes."""
    token = mint(secrets.token_bytes)
    header = form(f"{scheme} {token.text} ")
    assert from_authorization(header).text == token.text


@pytest.mark.parametrize(
    ("header", "kind"),
    [
        (None, KeyMissing),
        ("", KeyMissing),
        (b"", KeyMissing),
        ("   ", KeyMissing),
        ("Bearer", KeyMissing),
        ("Bearer   ", KeyMissing),
        ("Basic dXNlcjpwYXNz", KeyInvalid),
        ("weir_aaaaaaaaaaaa_0", KeyInvalid),
        ("Bearer weir_aaaaaaaaaaaa_0", KeyInvalid),
        ("Bearer a b", KeyInvalid),
        (b"Bearer \xff\xfe", KeyInvalid),
        ("Bearer weir_\u00e4", KeyInvalid),
        ("Bearer \u0661", KeyInvalid),
        ("Bearer " + "x" * 100_000, KeyInvalid),
    ],
)
def test_a_bad_authorization_header_is_refused(header: str | bytes | None, kind: type[WeirError]) -> None:
    """Nothing sent is KeyMissing, anything else that is no token is KeyInvalid."""
    with pytest.raises(kind):
        from_authorization(header)


def test_a_token_does_not_show_its_secret() -> None:
    """Neither repr nor str nor a failing comparison prints the secret."""
    token = mint(secrets.token_bytes)
    assert token.secret not in f"{token} {token!r} {[token]}"
    assert token.key_id in repr(token)
    assert pickle.loads(pickle.dumps(token)).text == token.text  # noqa: S301 - made here
