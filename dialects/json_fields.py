"""The top level of a JSON object, whose values stay bytes until one of them is read."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from meshkit.errors import InvalidRequest

Fields = dict[str, msgspec.Raw]

MAX_FIELDS: Final = 256
"""OpenAI's own requests have about 40; a million of them would hold up the event loop for seconds."""
MAX_NAME_CHARS: Final = 256
"""Of a field. One of millions of escapes would hold it up as well."""
_TOP_LEVEL = msgspec.json.Decoder(dict[str, msgspec.Raw])
_KEY: Final = re.compile(rb'\s*[{,]\s*("[^"\\]*(?:\\.[^"\\]*)*")\s*:\s*')
_PLACE: Final = re.compile(r"^(.*) - at `\$(.*)`$", re.DOTALL)


def top_level(body: bytes) -> Fields:
    """The fields of the object in `body`. Raises InvalidRequest."""
    try:
        body.isascii() or body.decode()  # inner values are passed on as they are: msgspec does not look into them
        fields = _TOP_LEVEL.decode(body)
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"the body is not UTF-8: {error.reason} at byte {error.start}") from error
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"the body must be a JSON object: {error}") from error
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"the body is not JSON: {error}") from error
    except RecursionError as error:
        raise InvalidRequest("the body is nested too deeply") from error
    if len(fields) > MAX_FIELDS:
        raise InvalidRequest(f"the body has over {MAX_FIELDS} fields")
    if max(map(len, fields), default=0) > MAX_NAME_CHARS:
        raise InvalidRequest(f"the body has a field whose name is longer than {MAX_NAME_CHARS} characters")
    _refuse_repeated(body, fields)
    return fields


def _refuse_repeated(body: bytes, fields: Fields) -> None:
    """Refuses a key given twice, however it is spelt: one reading would be authorised and another one called.

    Walks from key to key over the values that were kept (the last of each); a value that was not kept is in the way.
    """
    seen: set[str] = set()
    at = 0
    while (key := _KEY.match(body, at)) is not None:
        name: str = msgspec.json.decode(key[1])
        value = bytes(fields[name])
        if name in seen or not body.startswith(value, key.end()):
            raise InvalidRequest(f"{name}: given more than once", param=name)
        seen.add(name)
        at = key.end() + len(value)


class Field:
    """One top-level field: its name and its type. Made once, for a decoder costs more to make than to use.

    Args:
        kind: what msgspec can decode; null is the same as absent.
    """

    def __init__(self, name: str, kind: Any) -> None:
        self.name = name
        self._decoder = msgspec.json.Decoder(kind | None)

    def read(self, fields: Fields) -> Any:
        """The value, None if absent. Raises InvalidRequest naming the field, or the place in it."""
        raw = fields.get(self.name)
        if raw is None:
            return None
        try:
            return self._decoder.decode(raw)
        except (msgspec.DecodeError, RecursionError) as error:
            fault, place = str(error), self.name
            if (found := _PLACE.match(fault)) is not None:
                fault, place = found[1], f"{self.name}{found[2]}"
            raise InvalidRequest(f"{place}: {fault}", param=place) from error
