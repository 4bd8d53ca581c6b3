"""An object within a request, whose values stay bytes until one of them is read, and whose errors name the place."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from dialects.json_fields import Fields
from meshkit.errors import InvalidRequest

_PLACE: Final = re.compile(r"^(.*) - at `\$(.*)`$", re.DOTALL)
_TEXT = msgspec.json.Decoder(str)
_FLAG = msgspec.json.Decoder(bool)


@dataclass(slots=True)
class Node:
    """One object and its place; the place of the whole body is empty."""

    fields: Fields
    place: str

    def at(self, name: str) -> str:
        """The place of a field."""
        return f"{self.place}.{name}" if self.place else name

    def raw(self, name: str) -> msgspec.Raw | None:
        """The value's JSON; None if it is absent or null."""
        raw = self.fields.get(name)
        return None if raw is None or _is(raw, b"null") else raw

    def get(self, name: str, decoder: msgspec.json.Decoder[Any]) -> Any:
        """The value, None if it is absent or null. Raises InvalidRequest naming the place, or the one within it."""
        raw = self.raw(name)
        if raw is None:
            return None
        try:
            return decoder.decode(raw)
        except (msgspec.DecodeError, RecursionError) as error:
            fault, place = str(error), self.at(name)
            if (found := _PLACE.match(fault)) is not None:
                fault, place = found[1], f"{place}{found[2]}"
            raise InvalidRequest(f"{place}: {fault}", param=place) from error

    def required(self, name: str, decoder: msgspec.json.Decoder[Any]) -> Any:
        """The value. Raises InvalidRequest, also where it is absent or null."""
        value = self.get(name, decoder)
        if value is None:
            raise InvalidRequest(f"{self.at(name)}: required", param=self.at(name))
        return value

    def text(self, name: str) -> str | None:
        """A string, None if it is absent or null. Raises InvalidRequest."""
        text: str | None = self.get(name, _TEXT)
        return text

    def required_text(self, name: str) -> str:
        """A string. Raises InvalidRequest."""
        text: str = self.required(name, _TEXT)
        return text

    def text_raw(self, name: str) -> msgspec.Raw | None:
        """A string's JSON, which may be megabytes; None if it is absent or null. Raises InvalidRequest."""
        raw = self.raw(name)
        if raw is not None and bytes(memoryview(raw)[:1]) != b'"':
            raise InvalidRequest(f"{self.at(name)}: Expected `str`", param=self.at(name))
        return raw

    def flag(self, name: str) -> bool | None:
        """A boolean, None if it is absent or null. Raises InvalidRequest."""
        flag: bool | None = self.get(name, _FLAG)
        return flag

    def others(self, known: Collection[str]) -> Iterator[str]:
        """The places of the fields that are not known and neither null nor false."""
        for name in self.fields:
            raw = None if name in known else self.raw(name)
            if raw is not None and not _is(raw, b"false"):
                yield self.at(name)


def _is(raw: msgspec.Raw, text: bytes) -> bool:
    """Whether a value is this one, told without copying what may be megabytes."""
    view = memoryview(raw)
    return view.nbytes == len(text) and bytes(view) == text
