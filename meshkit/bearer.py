"""What a bearer looks like before anyone is asked about it: tells a JWT that could be good from rubbish.

Pure and cheap, for the door: nothing is verified here. What passes goes to Auth, which trusts nothing of this.
"""

from __future__ import annotations

from binascii import a2b_base64
from typing import Final, Literal

import msgspec

MAX_JWT_CHARS: Final = 8_192
"""No longer token is looked at, here or by Auth."""

_ALPHABET: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_STANDARD: Final = bytes.maketrans(b"-_", b"+/")
_JSON_OBJECT: Final = "ey"
"""How base64url of `{"` begins."""
_MIN_JWT_CHARS: Final = 64
"""The shortest signature of our algorithms alone is longer."""
_MAX_HEADER_CHARS: Final = 1_024
_PADDING: Final = ("", "===", "==", "=")
_ABSENT_FROM_BASE64: Final = 1
"""No base64 text is one character longer than a multiple of four."""


class _Header(msgspec.Struct):
    alg: Literal["RS256", "ES256", "EdDSA"]
    kid: str


_HEADER: Final = msgspec.json.Decoder(_Header)


def looks_like_jwt(text: str) -> bool:
    """Whether Auth should be asked about this bearer as a JWT; about 2 us.

    True for three parts of base64url, at most MAX_JWT_CHARS together, of which the first is the header of a token
    that names a key and one of the algorithms that are ever accepted.
    """
    if not _MIN_JWT_CHARS <= len(text) <= MAX_JWT_CHARS or not text.startswith(_JSON_OBJECT):
        return False
    if not text.isascii() or text.encode("ascii").translate(None, _ALPHABET) != b"..":
        return False
    header, payload, signature = text.split(".")
    return bool(payload and signature) and _has_good_header(header)


def _has_good_header(header: str) -> bool:
    rest = len(header) % 4
    if len(header) > _MAX_HEADER_CHARS or rest == _ABSENT_FROM_BASE64:
        return False
    try:
        decoded = a2b_base64((header + _PADDING[rest]).encode("ascii").translate(_STANDARD))
        return bool(_HEADER.decode(decoded).kid)
    except (ValueError, RecursionError):  # msgspec's and binascii's errors are ValueErrors
        return False
