"""Guided decoding: which form an answer must have, read and bounded before llama.cpp sees it."""

import json
from typing import Any

# llama.cpp compiles a schema for every answer; these keep that within a second or two, whoever wrote it.
MAX_GUIDE_BYTES = 64 * 1024
MAX_COUNT = 10_000
# A count makes the compiled form so many items long.
_COUNTS = ("minItems", "maxItems", "minProperties", "maxProperties")
_ANY_JSON: dict[str, Any] = {}


class InvalidGuide(Exception):
    """The guide cannot be followed; the text begins with the input's name and quotes nothing of the guide."""


def read(kind: str, text: str) -> Any:
    """The JSON schema that an answer must follow. Raises InvalidGuide.

    Args:
        kind: TensorRT-LLM's `json` (any JSON) or `json_schema`; not its regular expressions and grammars.
        text: the schema as JSON; of no meaning for `json`.
    """
    if kind == "json":
        return _ANY_JSON
    if kind != "json_schema":
        raise InvalidGuide("guided_decoding_guide_type must be json or json_schema")
    if len(text.encode()) > MAX_GUIDE_BYTES:
        raise InvalidGuide(f"guided_decoding_guide is over {MAX_GUIDE_BYTES} bytes")
    try:
        schema = json.loads(text)
        _check(schema)
    except (ValueError, RecursionError):
        raise InvalidGuide("guided_decoding_guide is not JSON, or too deeply nested") from None
    return schema


def _check(schema: Any) -> None:
    if isinstance(schema, list):
        for part in schema:
            _check(part)
    elif isinstance(schema, dict):
        for name, part in schema.items():
            if name in _COUNTS and isinstance(part, int | float) and part > MAX_COUNT:
                raise InvalidGuide(f"guided_decoding_guide: {name} is over {MAX_COUNT}")
            _check(part)
