"""Holds every answer against the official SDK's own models, strictly: item by item, chunk by chunk.

A client whose HTTP client is `checked_client` or `checked_async_client` keeps the bytes of each answer; `SchemaCheck`
validates them as the endpoint's model with pydantic's strict mode, and takes no field that the model lacks, except the
ones that Weir documents.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any, Literal, NamedTuple, cast

import httpx2
from openai.types import Completion, CompletionChoice, CreateEmbeddingResponse, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from openai.types.shared import ErrorObject
from pydantic import BaseModel, TypeAdapter, ValidationError

WEIRS_OWN = frozenset({"provider", "usage.weir", "response.provider", "response.usage.weir"})
"""Fields that Weir adds to answers, by their path; below them everything is Weir's."""
WEIRS_OWN_OF_MODELS = frozenset({"task", "context_window", "max_output_tokens", "capabilities", "targets"})
"""Fields that Weir adds to a model."""
UNMODELLED = frozenset({"store", "response.store"})
"""OpenAI sends it with every response, and the SDK's model lacks it."""
UNMODELLED_OF_CALLS = frozenset({"name"})
"""Earlier SDKs have it in response.function_call_arguments.done and require it; this one's model lacks it."""


class Kind(NamedTuple):
    """What an endpoint answers."""

    whole: TypeAdapter[Any]
    event: TypeAdapter[Any] | None = None


class Error(BaseModel):
    """The body of every answer that is no success."""

    error: ErrorObject


class ModelList(BaseModel):
    """GET /models, which the SDK models as a page."""

    object: str
    data: list[Model]


class CompletionChunkChoice(CompletionChoice):
    """A choice of a completion's stream: OpenAI sends null until its end, for which the SDK has no model."""

    finish_reason: Literal["stop", "length", "content_filter"] | None  # type: ignore[assignment]  # see above


class CompletionChunk(Completion):
    """A chunk of a completion's stream."""

    choices: list[CompletionChunkChoice]  # type: ignore[assignment]  # narrower in the SDK, see CompletionChunkChoice


class SchemaCheck:
    """Collects what is wrong, and counts what was right."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.checked: dict[str, int] = {}

    def whole(self, path: str, status: int, body: bytes) -> None:
        """One JSON body."""
        if status >= httpx2.codes.BAD_REQUEST:
            self._check("error", TypeAdapter(Error), body, frozenset())
            return
        own = WEIRS_OWN | UNMODELLED if path.endswith("/responses") else WEIRS_OWN
        if "/models" in path:
            prefix = "" if "/models/" in path else "data.[]."
            own = frozenset(prefix + name for name in WEIRS_OWN_OF_MODELS)
        self._check(path, _kind(path).whole, _numbers(body), own)

    def stream(self, path: str, body: bytes) -> None:
        """A whole stream of server-sent events, or as much of it as was read."""
        adapter = _kind(path).event
        assert adapter is not None, path
        for name, data in sse(body):
            if data == "[DONE]":
                continue
            if "error" in (document := json.loads(data)) and "type" not in document:
                self._check("error event", TypeAdapter(Error), data.encode(), frozenset())
                continue
            if name is not None and name != document["type"]:
                self.faults.append(f"{path}: event {name} says it is {document['type']}")
            calls = name == "response.function_call_arguments.done"
            own = UNMODELLED_OF_CALLS if calls else WEIRS_OWN
            own |= UNMODELLED if path.endswith("/responses") else frozenset()
            self._check(f"{path} event", adapter, data.encode(), own)

    def _check(self, what: str, adapter: TypeAdapter[Any], body: bytes, own: frozenset[str]) -> None:
        try:
            found = adapter.validate_json(body, strict=True)
        except ValidationError as error:
            self.faults.append(f"{what}: {error}\n{body[:2_000]!r}")
            return
        unknown = {path for path in _extras(found) if path not in own}
        if unknown:
            self.faults.append(
                f"{what}: fields that OpenAI does not have: {sorted(unknown)}\n{body[:2_000]!r}"
            )
        self.checked[what] = self.checked.get(what, 0) + 1


def sse(body: bytes) -> Iterator[tuple[str | None, str]]:
    """Name and data of every event that is whole; comments are passed over."""
    for block in body.decode().replace("\r\n", "\n").split("\n\n")[:-1]:
        fields = [line.partition(": ") for line in block.split("\n") if not line.startswith(":")]
        data = "\n".join(value for name, _, value in fields if name == "data")
        names = [value for name, _, value in fields if name == "event"]
        if fields:
            yield (names[0] if names else None), data


def _kind(path: str) -> Kind:
    endpoint = path.partition("/v1/")[2]
    if endpoint.startswith("models/"):
        return Kind(TypeAdapter(Model))
    return {
        "chat/completions": Kind(TypeAdapter(ChatCompletion), TypeAdapter(ChatCompletionChunk)),
        "completions": Kind(TypeAdapter(Completion), TypeAdapter(CompletionChunk)),
        "responses": Kind(TypeAdapter(Response), TypeAdapter(cast("Any", ResponseStreamEvent))),
        "embeddings": Kind(TypeAdapter(CreateEmbeddingResponse)),
        "models": Kind(TypeAdapter(ModelList)),
    }[endpoint]


def _numbers(body: bytes) -> bytes:
    """The body with every base64 vector as one number; else as it is."""
    if b'"embedding"' not in body:
        return body
    document = json.loads(body)
    for item in document["data"]:
        if isinstance(item["embedding"], str):
            item["embedding"] = [0.0]
    return json.dumps(document).encode()


def _extras(value: Any, path: str = "") -> Iterator[str]:
    """The paths of all fields that the models do not know."""
    if isinstance(value, BaseModel):
        for name in value.model_extra or {}:
            yield path + name
        for name in type(value).model_fields:
            yield from _extras(getattr(value, name), f"{path}{name}.")
    elif isinstance(value, list):
        for item in value:
            yield from _extras(item, f"{path}[].")


class _Kept(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    """An answer's bytes on their way; whoever made it is told all of them at the end."""

    def __init__(self, response: httpx2.Response, check: SchemaCheck) -> None:
        self._inner = response.stream
        self._parts: list[bytes] = []
        self._response = response
        self._check = check

    def __iter__(self) -> Iterator[bytes]:
        for part in cast("Iterable[bytes]", self._inner):
            self._parts.append(part)
            yield part

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in cast("httpx2.AsyncByteStream", self._inner):
            self._parts.append(part)
            yield part

    def close(self) -> None:
        cast("httpx2.SyncByteStream", self._inner).close()
        self._tell()

    async def aclose(self) -> None:
        await cast("httpx2.AsyncByteStream", self._inner).aclose()
        self._tell()

    def _tell(self) -> None:
        body, response = b"".join(self._parts), self._response
        assert "content-encoding" not in response.headers
        path = response.request.url.path
        if response.headers["content-type"].startswith("text/event-stream"):
            self._check.stream(path, body)
        else:
            self._check.whole(path, response.status_code, body)


class _Transport(httpx2.HTTPTransport):
    def __init__(self, check: SchemaCheck) -> None:
        super().__init__()
        self._check = check

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        response = super().handle_request(request)
        response.request = request
        response.stream = _Kept(response, self._check)
        return response


class _AsyncTransport(httpx2.AsyncHTTPTransport):
    def __init__(self, check: SchemaCheck) -> None:
        super().__init__()
        self._check = check

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await super().handle_async_request(request)
        response.request = request
        response.stream = _Kept(response, self._check)
        return response


def checked_client(check: SchemaCheck) -> httpx2.Client:
    """An HTTP client for `openai.OpenAI`."""
    return httpx2.Client(transport=_Transport(check))


def checked_async_client(check: SchemaCheck) -> httpx2.AsyncClient:
    """An HTTP client for `openai.AsyncOpenAI`."""
    return httpx2.AsyncClient(transport=_AsyncTransport(check))
