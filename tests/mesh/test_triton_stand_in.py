"""The local model on a real Triton, through the contract that a real TensorRT-LLM would speak."""

import asyncio
import json
import os
import select
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2

from tests.mesh.triton_fixture import Chunk, Model, RunningTriton, running_triton
from weirctl.triton_probe import CanaryFailed, Finding, Health, TritonNotReady, TritonProbe
from weirctl.triton_server import CONTROL_HEADER, clean_shared_memory
from weirctl.triton_settings import TritonSettings

# One server for the whole file, in one process of pytest-xdist.
pytestmark = pytest.mark.xdist_group("triton")

QUESTION = "<|im_start|>user\nTell me a long story about a river.<|im_end|>\n<|im_start|>assistant\n"
REPEAT = (
    "<|im_start|>user\nSay water again and again.<|im_end|>\n<|im_start|>assistant\nwater water water water"
)
RIVER = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "length_km": {"type": "integer"},
        "countries": {"type": "array", "items": {"enum": ["Germany", "France"]}, "maxItems": 2},
    },
    "required": ["name", "length_km", "countries"],
    "additionalProperties": False,
}
JSON_BEGINS = ("{", "[", '"', "-", *"0123456789", "true", "false", "null", " ", "\n")
# Long enough to be cut: nobody waits for the end of it.
ENDLESS = 1500
FREED_S = 15
"""Seconds: eight ENDLESS answers would hold the slots for minutes; a busy machine makes a token in less."""


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningTriton]:
    with running_triton(tmp_path_factory.mktemp("weir")) as running:
        yield running


@pytest.fixture
async def model(triton: RunningTriton) -> AsyncIterator[Model]:
    client = Model(triton.settings)
    yield client
    await client.close()


def regions_of(triton: RunningTriton) -> list[Path]:
    # Where the kernel keeps shared memory; nothing is created there by name.
    return list(Path("/dev/shm").glob(f"{triton.settings.shared_memory_prefix}*"))  # noqa: S108 - where Triton keeps it


def healths(findings: tuple[Finding, ...]) -> dict[str, Health]:
    return {finding.model: finding.health for finding in findings}


def text_of(chunks: list[Chunk]) -> str:
    assert not any(chunk.error for chunk in chunks), chunks
    return "".join(chunk.text for chunk in chunks)


def guided(schema: Any) -> dict[str, Any]:
    return {"guided_decoding_guide_type": "json_schema", "guided_decoding_guide": json.dumps(schema)}


def tokens_of(chunks: list[Chunk]) -> int:
    return sum(chunk.output_tokens or 0 for chunk in chunks)


async def test_tokens_arrive_as_they_are_made(model: Model) -> None:
    """A stream has many responses, spread over the time of the answer; the last one alone is final."""
    chunks = await model.ask(QUESTION, max_tokens=32)
    assert len(chunks) > 8
    assert len({chunk.at_s for chunk in chunks}) > 8
    assert chunks[-1].at_s - chunks[0].at_s > 0.1
    assert [chunk.final for chunk in chunks] == [False] * (len(chunks) - 1) + [True]


async def test_counts_are_those_of_each_response(model: Model) -> None:
    """Output tokens sum up to max_tokens; each response with text names the prompt's tokens."""
    chunks = await model.ask(QUESTION, max_tokens=24)
    assert tokens_of(chunks) == 24
    (input_tokens,) = {chunk.input_tokens for chunk in chunks if chunk.text}
    assert input_tokens == 18


async def test_control_tokens_of_the_template_are_parsed(model: Model) -> None:
    """`<|im_start|>` is one token of the model, not seven of text."""
    (chunk,) = await model.ask("<|im_start|>" * 10, stream=False, max_tokens=1)
    assert chunk.input_tokens == 10


async def test_unary_mode_sends_one_response(model: Model) -> None:
    """Without `stream` the whole text, both counts and the final mark come at once, equal to the streamed text."""
    (chunk,) = await model.ask(QUESTION, stream=False, max_tokens=16)
    assert chunk.final
    assert chunk.output_tokens == 16
    assert chunk.text == text_of(await model.ask(QUESTION, max_tokens=16))


async def test_prompt_is_echoed_unless_excluded(model: Model) -> None:
    """As TensorRT-LLM does it."""
    (chunk,) = await model.ask("Water flows", stream=False, exclude_input_in_output=False, max_tokens=4)
    assert chunk.text.startswith("Water flows")
    assert len(chunk.text) > len("Water flows")


async def test_stop_word_ends_the_answer_and_stays_in_it(model: Model) -> None:
    """The text ends with the stop word, also when it spans tokens, and is otherwise what it would have been."""
    free = text_of(await model.ask(QUESTION, max_tokens=32))
    middle = len(free) // 2
    stop_word = free[middle - 3 : middle + 3]
    chunks = await model.ask(QUESTION, max_tokens=32, stop_words=["never said, surely", stop_word])
    assert text_of(chunks) == free[: free.index(stop_word) + len(stop_word)]
    assert tokens_of(chunks) < 32
    assert chunks[-1].final


async def test_same_seed_same_answer(model: Model) -> None:
    """A seed fixes a sampled answer, another seed gives another, and without top_k and top_p decoding is greedy."""
    sampling: dict[str, Any] = {"max_tokens": 24, "temperature": 1.0, "top_p": 0.95}
    first, again, other = [text_of(await model.ask(QUESTION, seed=seed, **sampling)) for seed in (7, 7, 8)]
    assert first == again != other
    greedy = [
        text_of(await model.ask(QUESTION, seed=seed, max_tokens=24, temperature=1.0)) for seed in (7, 8)
    ]
    assert greedy[0] == greedy[1]


async def test_penalties_change_the_answer(model: Model) -> None:
    """Either penalty leads a greedy answer away from what it says without."""
    free = text_of(await model.ask(REPEAT, max_tokens=32))
    for penalty in ("presence_penalty", "frequency_penalty"):
        for strength in (0.0, 2.0):
            inputs: dict[str, Any] = {penalty: strength}
            answer = text_of(await model.ask(REPEAT, max_tokens=32, **inputs))
            assert (answer == free) is (strength == 0.0)


@pytest.mark.parametrize("stream", [True, False])
async def test_answer_follows_its_schema(model: Model, *, stream: bool) -> None:
    """The answer is JSON of the asked form and nothing else, also where it is sampled."""
    chunks = await model.ask(
        QUESTION, stream=stream, max_tokens=200, temperature=1.0, top_p=0.95, seed=3, **guided(RIVER)
    )
    river = json.loads(text_of(chunks))
    assert river.keys() == {"name", "length_km", "countries"}
    assert len(river["name"]) <= 12
    assert type(river["length_km"]) is int
    assert set(river["countries"]) <= {"Germany", "France"}
    assert len(river["countries"]) <= 2


async def test_any_json(model: Model) -> None:
    """Without a schema the answer begins as JSON does; left alone this model would not."""
    assert not text_of(await model.ask(QUESTION, max_tokens=4)).startswith(JSON_BEGINS)
    guide: dict[str, Any] = {"guided_decoding_guide_type": "json"}
    assert text_of(await model.ask(QUESTION, max_tokens=4, **guide)).startswith(JSON_BEGINS)


@pytest.mark.parametrize(
    "guide",
    [
        {"guided_decoding_guide_type": "regex", "guided_decoding_guide": "a"},
        {"guided_decoding_guide_type": "json_schema"},
        {"guided_decoding_guide_type": "json_schema", "guided_decoding_guide": "{"},
        {"guided_decoding_guide_type": "json_schema", "guided_decoding_guide": '{"items":' * 5_000},
        {"guided_decoding_guide_type": "json_schema", "guided_decoding_guide": " " * 70_000 + "{}"},
        {"guided_decoding_guide_type": "json_schema", "guided_decoding_guide": '{"minItems": 1000000000}'},
        # Valid JSON that llama.cpp cannot follow: it would generate freely and tell nobody.
        {"guided_decoding_guide_type": "json_schema", "guided_decoding_guide": '{"type": "nonsense"}'},
        {"guided_decoding_guide_type": "json_schema", "guided_decoding_guide": '{"$ref": "#/$defs/none"}'},
    ],
)
async def test_guide_that_cannot_be_followed_is_refused(model: Model, guide: dict[str, Any]) -> None:
    """Never a free answer in its place."""
    (chunk,) = await model.ask(QUESTION, max_tokens=4, **guide)
    assert "guided_decoding_guide" in chunk.error


async def test_eight_streams_at_once(model: Model) -> None:
    """All begin before any has ended, and eight at once get their tokens."""
    begun: set[int] = set()

    async def read_until_all_began(number: int) -> None:
        async with aclosing(model.stream(QUESTION, max_tokens=ENDLESS)) as chunks:
            async for chunk in chunks:
                assert not chunk.final
                begun.add(number)
                if len(begun) == 8:
                    return

    await asyncio.gather(*(read_until_all_began(number) for number in range(8)))
    answers = await asyncio.gather(*(model.ask(QUESTION, max_tokens=24) for _ in range(8)))
    assert [tokens_of(chunks) for chunks in answers] == [24] * 8


async def test_cancel_stops_the_model(model: Model) -> None:
    """Eight endless answers fill every slot; a second after their clients left, a ninth request has been answered."""
    streams = [model.stream(QUESTION, max_tokens=ENDLESS) for _ in range(8)]
    await asyncio.gather(*(anext(stream) for stream in streams))
    await asyncio.gather(*(stream.aclose() for stream in streams))
    (chunk,) = await model.ask("Hello", stream=False, max_tokens=1)
    assert chunk.output_tokens == 1
    assert chunk.at_s < FREED_S


async def test_deadline_stops_the_model(model: Model) -> None:
    """A client's deadline frees the slots as a cancel does."""

    async def until_deadline() -> None:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await model.ask(QUESTION, max_tokens=ENDLESS, timeout_s=2.0)
        assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED

    await asyncio.gather(*(until_deadline() for _ in range(8)))
    (chunk,) = await model.ask("Hello", stream=False, max_tokens=1)
    assert chunk.at_s < FREED_S


async def test_cancel_during_a_long_prompt(model: Model) -> None:
    """Also a request that has no token yet is stopped, after the batch of the prompt in work."""
    long_prompt = "word " * 1800
    async with aclosing(model.stream(long_prompt, max_tokens=1)) as slow:
        waiting = asyncio.ensure_future(anext(slow))
        # Nothing tells when the prompt is in work, so it gets a moment; whole it takes some twenty seconds.
        done, _ = await asyncio.wait({waiting}, timeout=0.5)
        assert not done
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    chunks = await model.ask(QUESTION, max_tokens=8)
    assert chunks[-1].at_s < FREED_S


async def test_full_queue_says_so(model: Model) -> None:
    """Beyond the slots and the queue Triton refuses at once, in its own words; the others are answered."""
    answers = await asyncio.gather(*(model.ask("Hello", max_tokens=4) for _ in range(60)))
    refused = [chunks for chunks in answers if chunks[0].error]
    assert 10 <= len(refused) <= 28
    assert all("Exceeds maximum queue size" in chunks[0].error for chunks in refused)
    assert all(tokens_of(chunks) == 4 for chunks in answers if not chunks[0].error)


@pytest.mark.parametrize(
    ("text", "inputs", "error"),
    [
        ("word " * 3000, {}, "Prompt length (3001) exceeds maximum input length (2048)"),
        ("Hello", {"max_tokens": 0}, "max_tokens must be at least 1"),
        ("", {}, "text_input is empty"),
        ("Hello", {"temperature": float("nan")}, "temperature is not a finite number"),
        ("Hello", {"model": "no-such-model"}, "unknown model"),
        ("Hello", {"no_such_input": True}, "no_such_input"),
    ],
)
async def test_errors_arrive_in_band(model: Model, text: str, inputs: dict[str, Any], error: str) -> None:
    """The error is the text of a response; the server goes on."""
    (chunk,) = await model.ask(text, **inputs)
    assert error in chunk.error
    (answer,) = await model.ask("Hello", stream=False, max_tokens=1)
    assert answer.output_tokens == 1


async def test_nobody_else_loads_models(model: Model) -> None:
    """Loading a model runs its code, so without the control token Triton refuses."""
    with pytest.raises(grpc.aio.AioRpcError, match="restricted"):
        await model.stub.RepositoryModelLoad(service_pb2.RepositoryModelLoadRequest(model_name="smollm2"))


def test_prompts_in_shared_memory_are_private(triton: RunningTriton) -> None:
    """Triton makes its regions readable for everyone; ours are not."""
    regions = regions_of(triton)
    assert regions
    assert {region.stat().st_mode & 0o077 for region in regions} == {0}


@pytest.mark.parametrize("dies", ["smollm2", "minilm"])
async def test_dead_model_is_healed(triton: RunningTriton, model: Model, dies: str) -> None:
    """After kill -9 of a model's process its requests fail while the server says it is ready; `heal` mends it alone.

    More than once: a second reload of an unchanged model does nothing unless it is unloaded first.
    """
    (other,) = set(triton.settings.models) - {dies}
    bystander = triton.stub_pid(other)
    async with TritonProbe(triton.settings) as probe:
        for _ in range(2):
            assert healths(await probe.heal()) == {dies: Health.HEALTHY, other: Health.HEALTHY}
            dead = triton.stub_pid(dies)
            os.kill(dead, signal.SIGKILL)
            with pytest.raises(CanaryFailed, match="is not healthy"):
                await probe.canary(dies, timeout_s=10)
            assert (await model.stub.ServerReady(service_pb2.ServerReadyRequest())).ready
            begun = time.monotonic()
            findings = await probe.heal()
            assert healths(findings) == {dies: Health.RELOADED, other: Health.HEALTHY}, findings
            assert time.monotonic() - begun < 15
            assert triton.stub_pid(dies) != dead
            await probe.canary(dies, timeout_s=10)
            assert tokens_of(await model.ask(QUESTION, max_tokens=8)) == 8
    assert triton.stub_pid(other) == bystander


async def test_model_that_was_never_loaded_is_healed(triton: RunningTriton, model: Model) -> None:
    """A model that failed to load, or was unloaded, is loaded again."""
    control = ((f"triton-grpc-protocol-{CONTROL_HEADER}", triton.settings.control_token),)
    await model.stub.RepositoryModelUnload(
        service_pb2.RepositoryModelUnloadRequest(model_name="smollm2"), metadata=control
    )
    async with TritonProbe(triton.settings) as probe:
        findings = await probe.heal()
        assert healths(findings)["smollm2"] is Health.RELOADED, findings


async def test_unreachable_server_is_dead(tmp_path: Path) -> None:
    """Nobody listens: the probe says so at once, and `wait_ready` in the time it was given."""
    async with TritonProbe(TritonSettings(home=tmp_path, grpc_port=1)) as probe:
        assert set(healths(await probe.heal()).values()) == {Health.DEAD}
        with pytest.raises(TritonNotReady):
            await probe.wait_ready(timeout_s=0.5)


def test_hard_exit_leaves_nothing(tmp_path: Path) -> None:
    """After kill -9 of the server its models' processes and regions are removed; a living one keeps its own."""
    with running_triton(tmp_path) as doomed:
        assert clean_shared_memory(doomed.settings) == []
        regions, stubs = regions_of(doomed), stubs_of(doomed)
        doomed.process.kill()
        doomed.process.wait()
        # A stub that notices first removes its own.
        assert set(clean_shared_memory(doomed.settings)) <= set(regions)
        assert_ended(stubs)
        assert not regions_of(doomed)


def test_models_die_with_their_server(tmp_path: Path) -> None:
    """Kill -9 of a busy server: the processes in which the models run end by themselves."""
    with running_triton(tmp_path) as doomed:
        stubs = stubs_of(doomed)
        asyncio.run(kill_in_mid_answer(doomed))
        assert_ended(stubs)


def stubs_of(triton: RunningTriton) -> list[int]:
    return [os.pidfd_open(triton.stub_pid(model)) for model in triton.settings.models]


def assert_ended(stubs: list[int]) -> None:
    for stub in stubs:
        ended, _, _ = select.select([stub], [], [], 15)
        os.close(stub)
        assert ended


async def kill_in_mid_answer(doomed: RunningTriton) -> None:
    """Four answers are running, so that questions whether they are cancelled are open at any time."""
    model = Model(doomed.settings)
    streams = [model.stream(QUESTION, max_tokens=ENDLESS) for _ in range(4)]
    await asyncio.gather(*(anext(stream) for stream in streams))
    doomed.process.kill()
    for stream in streams:
        with pytest.raises(grpc.aio.AioRpcError):
            async for _ in stream:
                pass
    await model.close()
