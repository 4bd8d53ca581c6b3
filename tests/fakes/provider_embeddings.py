"""The fake provider's vectors: the same text has the same one, as floats and in base64."""

from __future__ import annotations

import base64
import struct
from hashlib import sha256
from typing import Any

DIMENSIONS = 8


def vector(text: str, dimensions: int = DIMENSIONS) -> list[float]:
    """Numbers in [-1, 1) that depend on the text alone, exact in 32 bits. At most 32 differ; then they repeat."""
    digest = sha256(text.encode()).digest()
    return [digest[place % len(digest)] / 128 - 1 for place in range(dimensions)]


def embeddings(asked: dict[str, Any]) -> dict[str, Any]:
    """OpenAI's answer to an embeddings request: one vector for each input, `dimensions` (8) numbers each."""
    texts = _texts(asked.get("input", ""))
    dimensions = asked.get("dimensions", DIMENSIONS)
    tokens = sum(len(text.split()) for text in texts)
    data = [
        {
            "object": "embedding",
            "index": number,
            "embedding": _encoded(vector(text, dimensions), asked.get("encoding_format", "float")),
        }
        for number, text in enumerate(texts)
    ]
    return {
        "object": "list",
        "data": data,
        "model": asked.get("model", ""),
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        "provider": "a name of the provider's own",
    }


def _texts(given: Any) -> list[str]:
    """One text for each input: a text, a list of texts, a list of tokens, or a list of such lists."""
    if isinstance(given, str):
        return [given]
    if given and all(isinstance(token, int) for token in given):
        return [_from_tokens(given)]
    return [text if isinstance(text, str) else _from_tokens(text) for text in given]


def _from_tokens(tokens: list[int]) -> str:
    return " ".join(map(str, tokens))


def _encoded(numbers: list[float], encoding: str) -> list[float] | str:
    if encoding != "base64":
        return numbers
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()
