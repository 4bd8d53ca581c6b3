"""Key tokens: `weir_<id>_<secret>`, shown once to a key's holder and sent as `Authorization: Bearer <token>`.

    id       12 characters of a-z2-7: 60 random bits, public
    secret   43 base62 characters: 256 random bits, then 6 base62 characters: CRC-32 of `<id>_<43 characters>`

All letters and digits with two underscores: unambiguous to cut apart, one word on a double click, and safe in
shells, headers and URLs. The checksum tells a typing error from a key that nobody knows, without asking
anyone; it guards nothing. What is stored and compared is SHA-256 of the secret's text: 256 random bits need
no slow hash. No error of this module repeats what was offered.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from hmac import compare_digest
from typing import Final
from zlib import crc32

from meshkit.errors import KeyInvalid, KeyMissing

SECRET_SHA256_BYTES: Final = 32

_PREFIX: Final = "weir_"
_SCHEME: Final = "bearer"
_BASE32: Final = "abcdefghijklmnopqrstuvwxyz234567"
_BASE62: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ID_CHARS: Final = 12
_ID_BYTES: Final = 8  # 64 bits, of which the id's 12 characters carry 60
_RANDOM_CHARS: Final = 43  # 62 ** 43 > 2 ** 256
_RANDOM_BYTES: Final = 32
_CHECKSUM_CHARS: Final = 6  # 62 ** 6 > 2 ** 32
_KEY_ID: Final = re.compile(rf"[a-z2-7]{{{_ID_CHARS}}}")
_TOKEN: Final = re.compile(
    rf"{_PREFIX}({_KEY_ID.pattern})_([0-9A-Za-z]{{{_RANDOM_CHARS}}}[0-9A-Za-z]{{{_CHECKSUM_CHARS}}})"
)


@dataclass(frozen=True, slots=True, eq=False)
class Token:
    """A token cut into its parts. Its repr and str leave the secret out."""

    key_id: str
    """The public part."""
    secret: str = field(repr=False)
    """The secret part's text, checksum included."""

    @property
    def text(self) -> str:
        """The whole token, secret included: for its holder alone."""
        return f"{_PREFIX}{self.key_id}_{self.secret}"

    @property
    def secret_sha256(self) -> bytes:
        """SHA-256 of the secret's text, 32 bytes: what is stored, sent between services and compared."""
        return sha256(self.secret.encode("ascii")).digest()


def mint(random_bytes: Callable[[int], bytes], key_id: str | None = None) -> Token:
    """A new token.

    Args:
        random_bytes: gives as many unpredictable bytes as asked for (`secrets.token_bytes`).
        key_id: of a key that gets a new secret; absent means that the id is new too.
    """
    if key_id is None:
        key_id = _digits(int.from_bytes(random_bytes(_ID_BYTES), "big"), _BASE32, _ID_CHARS)
    body = _digits(int.from_bytes(random_bytes(_RANDOM_BYTES), "big"), _BASE62, _RANDOM_CHARS)
    return Token(key_id, body + _checksum(key_id, body))


def parse(text: str) -> Token:
    """The token in `text`. Raises KeyInvalid for another shape and for a checksum that does not fit."""
    match = _TOKEN.fullmatch(text)
    if match is None:
        raise KeyInvalid("the key does not have the form weir_<id>_<secret>")
    token = Token(match[1], match[2])
    body, checksum = token.secret[:_RANDOM_CHARS], token.secret[_RANDOM_CHARS:]
    if not compare_digest(_checksum(token.key_id, body), checksum):
        raise KeyInvalid("the key is mistyped: its checksum does not fit; copy it again as a whole")
    return token


def from_authorization(header: str | bytes | None) -> Token:
    """The token of an `Authorization: Bearer <token>` header's value; the scheme in any case.

    Raises KeyMissing where nothing was sent after `Bearer`, KeyInvalid for another scheme or a bad token.
    """
    value = header.decode("latin-1") if isinstance(header, bytes) else header or ""
    scheme, _, text = value.strip().partition(" ")
    if not scheme or (scheme.lower() == _SCHEME and not text):
        raise KeyMissing("no key was sent; send it as Authorization: Bearer weir_<id>_<secret>")
    if scheme.lower() != _SCHEME:
        raise KeyInvalid("the Authorization header must be of the form Bearer weir_<id>_<secret>")
    return parse(text.strip())


def is_key_id(text: str) -> bool:
    """Whether `text` has the shape of a key's public part."""
    return _KEY_ID.fullmatch(text) is not None


def same_digest(stored: bytes, offered: bytes) -> bool:
    """Whether two digests are equal, in a time that does not tell where they differ."""
    return compare_digest(stored, offered)


def _digits(value: int, alphabet: str, length: int) -> str:
    """The last `length` digits of `value`, most significant first."""
    digits = []
    for _ in range(length):
        value, rest = divmod(value, len(alphabet))
        digits.append(alphabet[rest])
    return "".join(reversed(digits))


def _checksum(key_id: str, body: str) -> str:
    return _digits(crc32(f"{key_id}_{body}".encode("ascii")), _BASE62, _CHECKSUM_CHARS)
