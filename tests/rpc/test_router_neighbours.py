"""The router's adapters of Auth and CloudAdapter, on both transports, against servicers that do what the test says."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Protocol

import grpc
import pytest
from prometheus_client import CollectorRegistry

from dialects.chat_request import read
from dialects.embedding_request import read as read_embeddings
from dialects.request import Request
from dialects.responses_request import read as read_responses
from gen.rpc import RpcContext, Transport
from gen.weir.auth.v1 import (
    AuthenticateRequest,
    AuthenticateResponse,
    Heartbeat,
    Key,
    KeySnapshot,
    WatchKeysRequest,
    WatchKeysResponse,
)
from gen.weir.auth.v1.service import AuthClient
from gen.weir.cloud.v1 import (
    EmbedRequest,
    EmbedResponse,
    Endpoint,
    GenerateRequest,
    GenerateResponse,
    ListProvidersRequest,
    ListProvidersResponse,
    Provider,
)
from gen.weir.cloud.v1.service import CloudAdapterClient, CloudAdapterServicer
from gen.weir.type.v1 import Usage
from meshkit.channel import ChannelTransport, open_channel
from meshkit.codec import mesh_codec
from meshkit.errors import InvalidRequest, KeyInvalid, RateLimited, UpstreamError, WeirError
from meshkit.inprocess import InProcessTransport
from meshkit.serving import Mount, Servicer
from meshkit.telemetry import Logger, RpcMetrics
from services.router.adapters.cloud import CloudTarget, ProviderWatch
from services.router.adapters.key_set import KeySet
from services.router.domain.target import TargetSpec
from services.router.ports import Piece
from tests.fakes.router import spec
from tests.fakes.unserved_auth import UnservedAuth

Script = Sequence[Any]
REQUEST = read(b'{"messages":[{"role":"user","content":"hi"}],"stream":true}')
NEW_KEY = "a key that is new here cannot be checked now: auth does not answer"


async def play(script: Script) -> AsyncIterator[Any]:
    """Messages are yielded, exceptions raised, None waits for ever."""
    for step in script:
        if step is None:
            await asyncio.Event().wait()
        elif isinstance(step, Exception):
            raise step
        else:
            yield step


@dataclass
class ScriptedAdapter(CloudAdapterServicer):
    """Plays one script for each answer, and lists its providers."""

    script: Script = ()
    providers: list[Provider] = field(default_factory=list)
    asked: list[GenerateRequest] = field(default_factory=list)
    embedded: list[EmbedRequest] = field(default_factory=list)
    embeddings: bytes = b'{"data":[{"index":0,"embedding":[0.5]}]}'
    silent: bool = False
    """It does not say which providers it has."""

    async def generate(
        self, request: GenerateRequest, context: RpcContext
    ) -> AsyncIterator[GenerateResponse]:
        self.asked.append(request)
        async with aclosing(play(self.script)) as steps:  # type: ignore[type-var] # an async generator
            async for step in steps:
                yield step

    async def embed(self, request: EmbedRequest, context: RpcContext) -> EmbedResponse:
        self.embedded.append(request)
        return EmbedResponse(body=self.embeddings, usage=Usage(input_tokens=2), model="m")

    async def list_providers(
        self, request: ListProvidersRequest, context: RpcContext
    ) -> ListProvidersResponse:
        if self.silent:
            await asyncio.Event().wait()
        return ListProvidersResponse(providers=self.providers)


@dataclass
class ScriptedAuth(UnservedAuth):
    """Plays the next script for each watch, the last one again and again; knows the keys it is given."""

    scripts: list[Script] = field(default_factory=lambda: [[None]])
    keys: dict[str, Key] = field(default_factory=dict)
    watched_after: list[int] = field(default_factory=list)
    failure: WeirError | None = None

    async def authenticate(self, request: AuthenticateRequest, context: RpcContext) -> AuthenticateResponse:
        if self.failure is not None:
            raise self.failure
        key = self.keys.get(request.key_id)
        if key is None:
            raise KeyInvalid("the key is not known")
        return AuthenticateResponse(key=key)

    async def watch_keys(
        self, request: WatchKeysRequest, context: RpcContext
    ) -> AsyncIterator[WatchKeysResponse]:
        self.watched_after.append(request.after_version)
        script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
        async with aclosing(play(script)) as steps:  # type: ignore[type-var] # an async generator
            async for step in steps:
                yield step


class Reach(Protocol):
    """Makes a servicer reachable."""

    def __call__(self, servicer: Servicer) -> Awaitable[Transport]: ...


@pytest.fixture(params=["channel", "inprocess"])
async def reach(request: pytest.FixtureRequest) -> AsyncIterator[Reach]:
    """A transport to a servicer, of either kind."""
    log = Logger("test", os.open(os.devnull, os.O_WRONLY))
    ends: list[Callable[[], Awaitable[None]]] = []

    async def over(servicer: Servicer) -> Transport:
        if request.param == "inprocess":
            return InProcessTransport(servicer, log)
        server = grpc.aio.server()
        mount = Mount(mesh_codec(), RpcMetrics(CollectorRegistry()), log)
        server.add_generic_rpc_handlers((mount.handlers(servicer),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        channel = open_channel(f"127.0.0.1:{port}")
        ends.extend([lambda: server.stop(None), channel.close])
        return ChannelTransport(channel, mesh_codec())

    yield over
    while ends:
        await ends.pop()()


def cloud_spec() -> TargetSpec:
    """The target under test."""
    return spec("cloud", local=False)


async def pieces(
    transport: Transport,
    request: Request = REQUEST,
    *,
    prefill: str = "",
    style: str = "",
    **capabilities: Any,
) -> list[Piece]:
    """Every piece of one answer."""
    known = cloud_spec()
    known = replace(known, capabilities=replace(known.capabilities, prefill=style, **capabilities))
    target = CloudTarget(known, CloudAdapterClient(transport))
    answering = target.generate(request, "req_1", stream=request.stream, prefill=prefill)
    async with aclosing(answering) as answer:
        return [piece async for piece in answer]


async def test_pieces_are_the_adapters(reach: Reach) -> None:
    """The provider, its own model name and the client's wishes go out; what comes back is passed on as it is."""
    whole = [GenerateResponse(bodies=[b"{}"], text="a"), GenerateResponse(finished=True)]
    adapter = ScriptedAdapter(whole)
    assert await pieces(await reach(adapter)) == whole
    (asked,) = adapter.asked
    assert (asked.provider, asked.stream, asked.hide_stream_usage, asked.request_id) == (
        "openai",
        True,
        True,
        "req_1",
    )
    assert b'"model":"cloud-model"' in asked.body


async def test_prefill_is_the_assistants_last_message(reach: Reach) -> None:
    """The text so far follows the conversation, marked as this provider wants it, and counts against the cap."""
    adapter = ScriptedAdapter([GenerateResponse(finished=True)])
    request = read(b'{"messages":[{"role":"user","content":"hi"}],"stream":true,"max_tokens":10}')
    await pieces(await reach(adapter), request, prefill="Once ", style="prefix")
    (asked,) = adapter.asked
    assert json.loads(asked.body)["max_tokens"] == 8
    assert json.loads(asked.body)["messages"] == [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "Once ", "prefix": True},
    ]


@pytest.mark.parametrize(
    ("can", "endpoint", "field_name"),
    [({"*"}, Endpoint.CHAT_COMPLETIONS, "messages"), ({"*", "responses"}, Endpoint.RESPONSES, "input")],
)
async def test_responses_are_translated_where_they_must(
    reach: Reach, can: set[str], endpoint: Endpoint, field_name: str
) -> None:
    """A target that has the endpoint is sent the client's JSON, another one the same as a chat completion."""
    adapter = ScriptedAdapter([GenerateResponse(finished=True)])
    lacks = frozenset({"responses"} - can)
    request = read_responses(b'{"input":"hi"}')
    await pieces(await reach(adapter), request, can=frozenset(can), lacks=lacks)
    (asked,) = adapter.asked
    assert asked.endpoint == endpoint
    assert field_name in json.loads(asked.body)


async def test_embeddings_come_in_one_piece(reach: Reach) -> None:
    """The provider's body and usage, finished."""
    adapter = ScriptedAdapter()
    (piece,) = await pieces(await reach(adapter), read_embeddings(b'{"model":"x","input":"hi"}'))
    assert piece == Piece(
        bodies=[adapter.embeddings], usage=Usage(input_tokens=2), model="m", content=True, finished=True
    )
    (asked,) = adapter.embedded
    assert (asked.provider, asked.request_id) == ("openai", "req_1")
    assert json.loads(asked.body) == {"input": "hi", "model": "cloud-model"}


@pytest.mark.parametrize("embeddings", [b'{"data":[]}', b'{"data":[{},{}]}', b"{}", b"[1", b""])
async def test_a_list_of_another_length_is_no_success(reach: Reach, embeddings: bytes) -> None:
    """One embedding for each input, or it is an error that another target may not have."""
    with pytest.raises(UpstreamError, match="embeddings"):
        await pieces(
            await reach(ScriptedAdapter(embeddings=embeddings)),
            read_embeddings(b'{"model":"x","input":"hi"}'),
        )


@pytest.mark.parametrize("before", [[], [GenerateResponse(text="a")]])
async def test_adapter_that_breaks_is_an_upstream_error(reach: Reach, before: Script) -> None:
    """A fault of the adapter's own is one that another target does not have, so it may be asked."""
    with pytest.raises(UpstreamError, match="cloud: the cloud adapter failed"):
        await pieces(await reach(ScriptedAdapter([*before, LookupError("bug")])))


@pytest.mark.parametrize("error", [RateLimited("slow down"), InvalidRequest("bad", param="x")])
async def test_errors_of_the_provider_keep_their_kind(reach: Reach, error: WeirError) -> None:
    """What the adapter said on purpose is passed on."""
    with pytest.raises(type(error)):
        await pieces(await reach(ScriptedAdapter([error])))


async def test_adapter_that_goes_away_is_an_upstream_error() -> None:
    """An adapter that is not there, or is stopped under the call, fails the attempt; no address reaches the client."""
    adapter, server = ScriptedAdapter([GenerateResponse(text="a"), None]), grpc.aio.server()
    mount = Mount(
        mesh_codec(), RpcMetrics(CollectorRegistry()), Logger("test", os.open(os.devnull, os.O_WRONLY))
    )
    server.add_generic_rpc_handlers((mount.handlers(adapter),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with open_channel(f"127.0.0.1:{port}") as channel:
        target = CloudTarget(cloud_spec(), CloudAdapterClient(ChannelTransport(channel, mesh_codec())))
        answer = target.generate(REQUEST, "req_1", stream=True)
        assert (await anext(answer)).text == "a"
        await server.stop(0)
        with pytest.raises(UpstreamError):
            await anext(answer)
        with pytest.raises(UpstreamError) as caught:
            await anext(target.generate(REQUEST, "req_1", stream=True))
    assert "127.0.0.1" not in caught.value.message
    assert "127.0.0.1" in str(caught.value)


async def test_providers_are_followed(reach: Reach) -> None:
    """A target can be used while the adapter says so of its provider, and is marked where that is a stand-in."""
    adapter = ScriptedAdapter()
    client = CloudAdapterClient(await reach(adapter))
    target = CloudTarget(cloud_spec(), client)
    watch = ProviderWatch(client, [target], timedelta(seconds=1))
    await watch.probe()
    assert not target.is_up()
    adapter.providers = [Provider(name="openai", usable=True, sandbox=True)]
    await watch.probe()
    assert target.is_up()
    assert target.describe().sandbox


async def test_one_missed_question_is_forgiven(reach: Reach) -> None:
    """A busy machine misses one now and then, and requests shall not go elsewhere for it; two in a row count."""
    adapter = ScriptedAdapter()
    adapter.providers = [Provider(name="openai", usable=True)]
    target = CloudTarget(cloud_spec(), client := CloudAdapterClient(await reach(adapter)))
    watch = ProviderWatch(client, [target], timedelta(seconds=0.05))
    while not target.is_up():
        await watch.probe()
    adapter.silent = True
    await watch.probe()
    assert target.is_up()
    await watch.probe()
    assert not target.is_up()


class Copy:
    """A key set that follows an Auth."""

    def __init__(self, transport: Transport) -> None:
        self.keys = KeySet(
            AuthClient(transport),
            timedelta(seconds=0.2),
            timedelta(seconds=0.2),
            time.monotonic,
            Logger("test", os.open(os.devnull, os.O_WRONLY)),
        )

    @asynccontextmanager
    async def followed(self) -> AsyncIterator[KeySet]:
        """While Auth is followed."""
        watch = asyncio.create_task(self.keys.watch())
        async with asyncio.timeout(5):
            await self.keys.loaded()
            yield self.keys
        watch.cancel()


async def until(condition: Callable[[], bool]) -> None:
    """Returns once it holds."""
    while not condition():  # noqa: ASYNC110 - plain state of another task
        await asyncio.sleep(0.01)


def snapshot(version: int, *ids: str) -> WatchKeysResponse:
    """Every key."""
    return WatchKeysResponse(version=version, snapshot=KeySnapshot(keys=[Key(id=one) for one in ids]))


async def test_keys_are_followed(reach: Reach) -> None:
    """A snapshot, then changes; a watch that broke or fell silent goes on from the version held."""
    auth = ScriptedAuth(
        [
            [snapshot(7, "a"), WatchKeysResponse(version=8, changed=Key(id="b")), UpstreamError("broke")],
            [WatchKeysResponse(version=9, heartbeat=Heartbeat()), None],
            [WatchKeysResponse(version=10, changed=Key(id="c")), None],
        ]
    )
    async with Copy(await reach(auth)).followed() as keys:
        await until(lambda: keys.find("c") is not None)
        assert keys.find("a") is not None
        assert keys.find("b") is not None
        assert keys.find("d") is None
        assert keys.age() < timedelta(seconds=5)
    assert auth.watched_after[:3] == [0, 8, 9]


async def test_unknown_key_is_asked_about(reach: Reach) -> None:
    """Auth's word counts; where it has none the request may be sent again, and no inner text is shown."""
    auth = ScriptedAuth(keys={"a": Key(id="a")})
    keys = Copy(await reach(auth)).keys
    assert (await keys.ask(AuthenticateRequest(key_id="a"))).id == "a"
    with pytest.raises(KeyInvalid):
        await keys.ask(AuthenticateRequest(key_id="b"))
    auth.failure = UpstreamError("the key store at 10.0.0.1 does not answer")
    with pytest.raises(UpstreamError) as caught:
        await keys.ask(AuthenticateRequest(key_id="a"))
    assert caught.value.message == NEW_KEY
