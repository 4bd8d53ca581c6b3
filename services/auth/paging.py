"""Pages of a list: how long, and from where."""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Final

from meshkit.errors import InvalidRequest

MAX_PAGE: Final = 1_000
USUAL_PAGE: Final = 100
_MAX_TOKEN_CHARS: Final = 200


def size(asked: int) -> int:
    """How many at most. Raises InvalidRequest."""
    if not 0 <= asked <= MAX_PAGE:
        raise InvalidRequest(f"page_size must be 1 to {MAX_PAGE}, or 0 for {USUAL_PAGE}", param="page_size")
    return asked or USUAL_PAGE


def token(place: str) -> str:
    """A page token that leads to this place."""
    return urlsafe_b64encode(place.encode("ascii")).decode("ascii")


def place(page_token: str, shape: re.Pattern[str]) -> re.Match[str]:
    """The place that a page token leads to, in the groups of `shape`. Raises InvalidRequest for a token of another."""
    try:
        text = urlsafe_b64decode(page_token[:_MAX_TOKEN_CHARS]).decode("ascii")
    except ValueError:
        text = ""
    match = shape.fullmatch(text)
    if match is None or token(text) != page_token:
        raise bad_token()
    return match


def bad_token() -> InvalidRequest:
    """What is said of a token that leads nowhere."""
    return InvalidRequest("page_token must be the next_page_token of the page before", param="page_token")
