"""The fake provider's endpoints: which one a path means, and its own form of what faults say in chat completions' form.

Faults are written once, for chat completions. Whatever of them reaches another endpoint's client, whole answers and
events alike, is put into that endpoint's form here; what is no chat completion (an error, rubbish) goes through as it
is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from tests.fakes.provider_embeddings import embeddings
from tests.fakes.provider_exchange import Rendering, Seen
from tests.fakes.provider_responses import ResponsesRendering

_AZURE = re.compile(r"^/openai/(?:deployments/(?P<deployment>[^/]+)/)?(?P<rest>.+)$")
_ENDPOINTS = ("chat/completions", "completions", "embeddings", "responses")


class Place(NamedTuple):
    """What a request's target means."""

    path: str
    """Without query."""
    endpoint: str
    """One of OpenAI's, such as `chat/completions`; empty for a path that is none."""
    azure: bool = False
    deployment: str | None = None
    """Of an Azure path that names one."""
    api_version: str | None = None


@lru_cache(maxsize=256)
def place_of(target: str) -> Place:
    """Which endpoint the target of an HTTP request is, below any prefix such as `/v1`."""
    parts = urlsplit(target)
    endpoint = next((name for name in _ENDPOINTS if parts.path.endswith(f"/{name}")), "")
    azure = _AZURE.match(parts.path)
    if azure is None:
        return Place(parts.path, endpoint)
    deployment = azure["deployment"]
    return Place(
        parts.path,
        endpoint,
        azure=not azure["rest"].startswith("v1/"),
        deployment=None if deployment is None else unquote(deployment),
        api_version=next(iter(parse_qs(parts.query).get("api-version", [])), None),
    )


def rendering_for(endpoint: str, seen: Seen) -> Rendering | None:
    """What puts chat completions into the endpoint's form; None where they are it."""
    maker = _RENDERINGS.get(endpoint)
    return None if maker is None else maker(seen)


class CompletionsRendering:
    """/completions: `text_completion` objects, in streams too."""

    def whole(self, body: bytes) -> bytes:
        """A chat.completion as a text_completion."""
        return _changed(body, "chat.completion", self._completion)

    def event(self, data: bytes) -> list[bytes]:
        """A chunk as a text_completion; [DONE] stays."""
        return [b"data: %b\n\n" % _changed(data, "chat.completion.chunk", self._completion)]

    def end(self) -> list[bytes]:
        """Nothing is held back."""
        return []

    def _completion(self, chat: dict[str, Any]) -> dict[str, Any]:
        choices = [
            {
                "text": (choice.get("delta") or choice.get("message") or {}).get("content") or "",
                "index": choice["index"],
                "logprobs": None,
                "finish_reason": choice["finish_reason"],
            }
            for choice in chat["choices"]
        ]
        return {**chat, "id": "cmpl-fake", "object": "text_completion", "choices": choices}


class EmbeddingsRendering:
    """/embeddings: any chat completion becomes the vectors of what was asked."""

    def __init__(self, seen: Seen) -> None:
        self._asked = seen.body

    def whole(self, body: bytes) -> bytes:
        """The vectors in place of a chat.completion."""
        return _changed(body, "chat.completion", lambda _: embeddings(self._asked))

    def event(self, data: bytes) -> list[bytes]:
        """Embeddings have no stream: a fault that sends one all the same sends it as it is."""
        return [b"data: %b\n\n" % data]

    def end(self) -> list[bytes]:
        """Nothing is held back."""
        return []


def _changed(body: bytes, kind: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> bytes:
    """The body in its new form if it is a `kind`, else as it is."""
    try:
        document = json.loads(body)
    except ValueError:
        return body
    if not isinstance(document, dict) or document.get("object") != kind:
        return body
    return json.dumps(change(document), separators=(",", ":")).encode()


_RENDERINGS: Mapping[str, Callable[[Seen], Rendering]] = MappingProxyType({
    "completions": lambda _: CompletionsRendering(),
    "embeddings": EmbeddingsRendering,
    "responses": lambda seen: ResponsesRendering(seen.model),
})  # fmt: skip
