"""Real answers through the whole mesh, as an OpenAI client and a gRPC client get them."""

from __future__ import annotations

import asyncio
import json
import signal
from typing import Any
from uuid import uuid4

import grpc
import openai
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from gen.weir.router.v1 import GenerateRequest, ListModelsRequest
from gen.weir.router.v1.service import RouterClient
from gen.weir.type.v1 import ChatMessage, Locality, Role, Sampling
from meshkit.channel import ChannelTransport, open_channel
from meshkit.codec import mesh_codec
from meshkit.errors import KeyMissing
from tests.harness.running_weir import RunningWeir, wait_for

MESSAGES: Any = [{"role": "user", "content": "Say hello."}]


@pytest.fixture
def client(weir: RunningWeir) -> openai.OpenAI:
    """The official client."""
    return openai.OpenAI(base_url=weir.base_url, api_key=weir.key, max_retries=0, timeout=60)


def label() -> str:
    """A request id of the test's own."""
    return f"test-{uuid4().hex}"


def ask(client: openai.OpenAI, model: Any, **fields: Any) -> tuple[Any, Any]:
    """The answer and its headers."""
    raw = client.chat.completions.with_raw_response.create(model=model, messages=MESSAGES, **fields)
    return raw.parse(), raw.headers


def test_local_answer(weir: RunningWeir, client: openai.OpenAI) -> None:
    """A real model answers; provider, headers and the one ledger row agree."""
    mine = label()
    answer, headers = ask(client, "local", max_tokens=8, extra_headers={"x-request-id": mine})
    assert answer.choices[0].message.content
    assert answer.provider == "local"
    assert answer.model == "smollm2"
    assert 0 < answer.usage.completion_tokens <= 8
    assert headers["x-request-id"] == mine
    assert headers["x-weir-target"] == "local"
    assert headers["x-weir-route-reason"] == "model local"
    row = weir.entry(mine)
    assert (row["outcome"], row["target_name"], row["attempt"]) == ("ok", "local", 1)
    assert row["input_tokens"] == answer.usage.prompt_tokens
    assert row["output_tokens"] == answer.usage.completion_tokens
    assert row["cost_nano_usd"] == 0
    assert row["usage_estimated"] is False
    assert row["first_token_us"] <= row["latency_us"]


def test_local_stream(weir: RunningWeir, client: openai.OpenAI) -> None:
    """Chunks arrive with role, text, finish reason and, where asked for, usage; the ledger has the same tokens."""
    mine = label()
    stream = client.chat.completions.create(
        model="local", messages=MESSAGES, stream=True, max_tokens=12,
        stream_options={"include_usage": True}, extra_headers={"x-request-id": mine},
    )  # fmt: skip
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] in {"stop", "length"}
    assert chunks[-1].usage is not None
    assert weir.entry(mine)["output_tokens"] == chunks[-1].usage.completion_tokens


def test_cloud_answer(weir: RunningWeir, client: openai.OpenAI) -> None:
    """A provider's answer keeps its own fields, says `cloud`, and is charged by the price list."""
    mine = label()
    answer, headers = ask(client, "cloud", extra_headers={"x-request-id": mine})
    assert answer.provider == "cloud"
    assert answer.model == "gpt-4o-mini"
    assert headers["x-weir-target"] == "cloud"
    row = weir.entry(mine)
    used = answer.usage
    cached = (used.prompt_tokens_details and used.prompt_tokens_details.cached_tokens) or 0
    # fake is no provider of the price list: its cost is unknown, never zero.
    assert (row["cost_nano_usd"], row["unpriced"]) == (None, True)
    assert (row["input_tokens"], row["output_tokens"]) == (used.prompt_tokens, used.completion_tokens)
    assert (row["cached_input_tokens"] or 0) == cached


@pytest.mark.parametrize("include_usage", [True, False])
def test_cloud_stream(client: openai.OpenAI, include_usage: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """A stream has a usage chunk exactly where the client asked for one."""
    options: Any = {"stream_options": {"include_usage": True}} if include_usage else {}
    chunks = list(client.chat.completions.create(model="cloud", messages=MESSAGES, stream=True, **options))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert any(chunk.usage is not None for chunk in chunks) is include_usage
    assert all(chunk.model_extra and chunk.model_extra["provider"] == "cloud" for chunk in chunks)


def test_auto_and_default(client: openai.OpenAI) -> None:
    """`auto` asks the local model for a short classification, and keeps the configured order otherwise."""
    classify: Any = [{"role": "user", "content": "Classify as positive or negative: I love it"}]
    raw = client.chat.completions.with_raw_response.create(model="auto", messages=classify, max_tokens=4)
    assert raw.headers["x-weir-target"] == "local"
    assert raw.headers["x-weir-route-reason"] == "auto: short classification"
    assert ask(client, "auto")[1]["x-weir-target"] == "cloud"


def test_absent_model_and_prompt(weir: RunningWeir) -> None:
    """No model means the configured default; `prompt` stands for one user message."""
    import urllib.request  # noqa: PLC0415 - the official client always sends a model

    request = urllib.request.Request(  # noqa: S310 - loopback
        f"{weir.base_url}/chat/completions",
        data=json.dumps({"prompt": "Say hello.", "max_tokens": 4}).encode(),
        headers={"authorization": f"Bearer {weir.key}", "content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - loopback
        assert json.load(answer)["provider"] == "local"
        assert answer.headers["x-weir-route-reason"] == "model gpt-4"


def test_unknown_model(client: openai.OpenAI) -> None:
    """404 in OpenAI's shape."""
    with pytest.raises(openai.NotFoundError) as caught:
        ask(client, "gpt-99")
    assert caught.value.code == "model_not_found"
    assert caught.value.param == "model"


@pytest.mark.parametrize("key", ["", "sk-1", "weir_aaaaaaaaaaaa_bad"])
def test_bad_key(weir: RunningWeir, provider: Any, key: str) -> None:
    """401 in OpenAI's shape, and nothing reached a backend or the ledger."""
    before, mine = len(provider.log()), label()
    client = openai.OpenAI(base_url=weir.base_url, api_key=key or "x", max_retries=0)
    headers = {"x-request-id": mine, **({} if key else {"authorization": ""})}
    with pytest.raises(openai.AuthenticationError) as caught:
        ask(client, "cloud", extra_headers=headers)
    assert caught.value.code == "invalid_api_key"
    assert len(provider.log()) == before
    assert weir.entries(mine) == []


def test_models_list(weir: RunningWeir, client: openai.OpenAI) -> None:
    """What can be used now: targets under their own names, `auto`, and aliases; what is refused is not listed."""
    expected = {"local", "cloud", "auto", "gpt-4", "refused-first"}
    wait_for("the models", lambda: expected <= {model.id for model in client.models.list()})
    assert "refused" not in {model.id for model in client.models.list()}


@pytest.mark.parametrize(("first", "stream"), [("silent", True), ("down", True), ("down", False)])
def test_fallback(weir: RunningWeir, client: openai.OpenAI, first: str, stream: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """Silent or failing: the next target answers with 200, and each attempt is one row."""
    mine = label()
    raw = client.chat.completions.with_raw_response.create(
        model=f"{first}-first",
        messages=MESSAGES,
        max_tokens=4,
        stream=stream,
        extra_headers={"x-request-id": mine},
    )
    expected = "local" if first == "down" else "cloud"
    answers: list[Any] = list(raw.parse()) if stream else [raw.parse()]
    assert {answer.model_extra["provider"] for answer in answers} == {expected}
    assert raw.headers["x-weir-target"] == expected
    # A 503 may pass and is tried once more; what was silent had its chance.
    outcomes = ["failed", "failed", "ok"] if first == "down" else ["failed", "ok"]
    rows = wait_for(
        "all entries", lambda: found if len(found := weir.entries(mine)) == len(outcomes) else None
    )
    assert [row["outcome"] for row in rows] == outcomes
    assert raw.headers["x-weir-attempts"] == str(len(outcomes))
    assert (rows[0]["input_tokens"], rows[0]["output_tokens"]) == (0, 0)


@pytest.mark.parametrize("stream", [True, False])
def test_frozen_local_server(weir: RunningWeir, client: openai.OpenAI, stream: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """A Triton that holds its connections and says nothing: the cloud answers within the first-token limit."""
    mine = label()
    weir.kill("triton", signal.SIGSTOP)
    try:
        raw = client.chat.completions.with_raw_response.create(
            model="hasty-first", messages=MESSAGES, stream=stream, extra_headers={"x-request-id": mine}
        )
        answers: list[Any] = list(raw.parse()) if stream else [raw.parse()]
    finally:
        weir.kill("triton", signal.SIGCONT)
        weir.await_local()  # as the next test expects it
    assert {answer.model_extra["provider"] for answer in answers} == {"cloud"}
    # Whether this request found out, or a probe before it.
    reason = raw.headers["x-weir-route-reason"]
    assert reason in {"model hasty-first; hasty failed: UPSTREAM_TIMEOUT", "model hasty-first; hasty is down"}
    expected = ["ok"] if reason.endswith("down") else ["failed", "ok"]
    rows = wait_for(
        "the entries", lambda: found if len(found := weir.entries(mine)) == len(expected) else None
    )
    assert [row["outcome"] for row in rows] == expected


def test_a_target_that_is_down_is_passed_over(weir: RunningWeir, client: openai.OpenAI) -> None:
    """A local server that refuses connections costs no attempt: the next target answers, and the reason says why."""
    mine = label()
    answer, headers = ask(client, "refused-first", extra_headers={"x-request-id": mine})
    assert answer.provider == "cloud"
    assert headers["x-weir-route-reason"] == "model refused-first; refused is down"
    assert weir.entry(mine)["outcome"] == "ok"


@pytest.mark.parametrize(("model", "code"), [("cut", "upstream_truncated"), ("stalled", "upstream_stalled")])
def test_broken_stream_is_an_error(weir: RunningWeir, client: openai.OpenAI, model: str, code: str) -> None:
    """A stream that breaks after its first token ends in an error, never as a whole answer."""
    mine = label()
    stream = client.chat.completions.create(
        model=model, messages=MESSAGES, stream=True, extra_headers={"x-request-id": mine}
    )
    with pytest.raises(openai.APIError) as caught:
        list(stream)
    assert caught.value.code == code
    assert weir.entry(mine)["outcome"] == "cut"


def test_client_goes_away(weir: RunningWeir, client: openai.OpenAI) -> None:
    """A client that leaves in mid-stream ends the attempt as cancelled, settled at what was generated."""
    mine = label()
    stream = client.chat.completions.create(
        model="local", messages=MESSAGES, stream=True, max_tokens=500, extra_headers={"x-request-id": mine}
    )
    next(iter(stream))
    stream.close()
    row = weir.entry(mine)
    assert row["outcome"] == "cancelled"
    assert 0 < row["output_tokens"] < 500


async def test_typed_contract(weir: RunningWeir) -> None:
    """The same port speaks gRPC: Generate streams, ListModels lists, and a key is needed."""
    channel = open_channel(weir.edge)
    router = RouterClient(ChannelTransport(channel, mesh_codec()))
    bearer = (("authorization", f"Bearer {weir.key}"),)
    request = GenerateRequest(
        model="local",
        messages=[ChatMessage(role=Role.USER, content="Say hello.")],
        sampling=Sampling(max_output_tokens=6),
    )
    events = [event async for event in router.generate(request, metadata=bearer)]
    assert events[0].started is not None
    assert events[0].started.target is not None
    assert events[0].started.target.locality == Locality.LOCAL
    assert "".join(event.delta.text for event in events if event.delta)
    assert events[-1].finished is not None
    assert events[-1].finished.usage is not None
    assert 0 < events[-1].finished.usage.output_tokens <= 6
    await asyncio.to_thread(weir.await_local)  # a busy machine may miss a probe
    models = (await router.list_models(ListModelsRequest(), metadata=bearer)).models
    assert "local" in {model.name for model in models}
    with pytest.raises(KeyMissing):
        await router.list_models(ListModelsRequest())
    await channel.close()


def test_health_and_reflection(weir: RunningWeir) -> None:
    """grpc.health.v1 and reflection answer at the edge; the inner services are not to be reached there."""
    with grpc.insecure_channel(weir.edge) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        answer = check(health_pb2.HealthCheckRequest(service="weir.router.v1.Router"), timeout=10)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        services = ProtoReflectionDescriptorDatabase(channel).get_services()
        assert {"weir.router.v1.Router", "weir.openai.v1.OpenAI"} <= set(services)
        for path in (
            "/weir.auth.v1.Auth/CreateKey",
            "/weir.ledger.v1.Ledger/Usage",
            "/weir.cloud.v1.CloudAdapter/Generate",
        ):
            with pytest.raises(grpc.RpcError) as caught:
                call: Any = channel.unary_unary(path)
                call(b"", timeout=10)
            assert caught.value.code() in {grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.NOT_FOUND}


def test_provider_secret_stays_in_its_process(weir: RunningWeir) -> None:
    """Only the process that holds the cloud adapter has the provider's secret in its environment."""
    holders = {
        name
        for name, pid in weir.pids().items()
        if b"sk-fake-secret" in open(f"/proc/{pid}/environ", "rb").read()  # noqa: PTH123, SIM115 - read at once
    }
    compact = weir.document["topology"] == "compact"
    assert holders == ({"router-0", "router-1"} if compact else {"cloud_adapter"})
    assert "sk-fake-secret" not in weir.logs() + weir.output
