"""Reads what completions call `prompt` and embeddings call `input`: texts, or texts that the client made tokens of."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, NamedTuple

import msgspec

from dialects.json_fields import Field, Fields
from meshkit.errors import InvalidRequest

MAX_TEXTS: Final = 2_048
MAX_TOKENS: Final = 300_000
"""Of one request, where the client sends token numbers."""
BYTES_PER_TOKEN: Final = 4
"""What a token number counts for among the bytes that tell how long a prompt is."""
_Token = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_FIRST: Final = re.compile(rb"\s*\[\s*(.)", re.DOTALL)
"""The first byte of a list's first element."""


class Texts(NamedTuple):
    """What was given."""

    texts: tuple[str, ...]
    """Empty where the client sent token numbers."""
    number: int
    """How many texts, or lists of tokens."""
    size_bytes: int
    """How long all of them are. UTF-8."""


class TextsField:
    """One top-level field that holds texts. Made once, for a decoder costs more to make than to use.

    What is expected of a list is decided by its first element, so that a list of something else ends there: decoding
    millions of small lists only to refuse them would hold up the event loop for seconds.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._text = Field(name, str | list[str])
        self._tokens = Field(name, list[_Token])
        self._token_lists = Field(name, list[list[_Token]])

    def read(self, fields: Fields) -> Texts:
        """The texts; one of them may be empty. Raises InvalidRequest naming the field, or the place in it."""
        raw = bytes(fields.get(self._name, b""))
        first = _FIRST.match(raw)
        if first is not None and first[1] in b"-0123456789[":
            return self._read_tokens(fields, raw, nested=first[1] == b"[")
        given: str | list[str] | None = self._text.read(fields)
        if given is None:
            raise self._refused("required")
        texts = (given,) if isinstance(given, str) else tuple(given)
        if not texts:
            raise self._refused("must not be empty")
        if len(texts) > MAX_TEXTS:
            raise self._refused(f"at most {MAX_TEXTS}")
        return Texts(texts, len(texts), sum(len(text.encode()) for text in texts))

    def _read_tokens(self, fields: Fields, raw: bytes, *, nested: bool) -> Texts:
        if raw.count(b"[") > MAX_TEXTS + 1:
            raise self._refused(f"at most {MAX_TEXTS}")
        if raw.count(b",") >= MAX_TOKENS:
            raise self._refused(f"at most {MAX_TOKENS} tokens")
        lists: list[Any] = self._token_lists.read(fields) if nested else [self._tokens.read(fields)]
        empty = next((index for index, one in enumerate(lists) if not one), None)
        if empty is not None:
            raise self._refused("must not be empty", f"[{empty}]")
        return Texts((), len(lists), sum(map(len, lists)) * BYTES_PER_TOKEN)

    def _refused(self, rule: str, place: str = "") -> InvalidRequest:
        return InvalidRequest(f"{self._name}{place}: {rule}", param=f"{self._name}{place}")
