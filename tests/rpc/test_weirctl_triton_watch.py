"""The watch over the local Triton, against a KServe v2 server over real gRPC."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.fakes.triton import FakeTriton, Say
from weirctl.triton_heal import watch_triton
from weirctl.triton_probe import Health, TritonProbe
from weirctl.triton_settings import TritonSettings


def settings(fake: FakeTriton, home: Path, *, embedding: bool = True) -> TritonSettings:
    """Of a server that is already there."""
    return TritonSettings(home=home, grpc_port=int(fake.address.rpartition(":")[2]), embedding=embedding)


@pytest.mark.parametrize("dies", ["smollm2", "minilm"])
async def test_dead_model_is_reloaded_alone(tmp_path: Path, dies: str) -> None:
    """It is unloaded first, since loading alone changes nothing; the other model is left in peace; it is reported."""
    async with FakeTriton([Say("x", 1), Say(final=True)], dead={dies}) as fake:
        reports: list[str] = []
        watch = asyncio.create_task(watch_triton(settings(fake, tmp_path), 0.01, reports.append)())
        async with asyncio.timeout(5):
            while not reports:  # noqa: ASYNC110 - plain state of another task
                await asyncio.sleep(0.01)
        watch.cancel()
        assert fake.loads == [f"-{dies}", f"+{dies}"]
        assert reports[0].startswith(f"triton: {dies} had died and was loaded again")


async def test_model_beyond_help_ends_the_watch(tmp_path: Path) -> None:
    """Found dead twice in a row and not to be mended by a reload: only a new server helps, and the end says why."""
    async with FakeTriton([Say(error="out of memory")]) as fake:
        async with asyncio.timeout(5):
            reason = await watch_triton(settings(fake, tmp_path), 0.01, print)()
        assert reason == "smollm2 does not answer: out of memory"
        assert fake.loads == []


async def test_full_queue_is_let_be(tmp_path: Path) -> None:
    """A model that has too much to do lives."""
    async with (
        FakeTriton([Say(error="Exceeds maximum queue size")]) as fake,
        TritonProbe(settings(fake, tmp_path)) as probe,
    ):
        assert {finding.health for finding in await probe.heal()} == {Health.SATURATED}
        assert fake.loads == []


async def test_model_that_is_switched_off_is_not_asked(tmp_path: Path) -> None:
    """Without the embedding model there is one canary."""
    async with (
        FakeTriton([Say("x", 1), Say(final=True)]) as fake,
        TritonProbe(settings(fake, tmp_path, embedding=False)) as probe,
    ):
        assert [finding.model for finding in await probe.heal()] == ["smollm2"]
        assert [request.model_name for request in fake.requests] == ["smollm2"]


async def test_each_model_gets_its_own_canary(tmp_path: Path) -> None:
    """In the tensors of its own contract."""
    async with (
        FakeTriton([Say("x", 1), Say(final=True)]) as fake,
        TritonProbe(settings(fake, tmp_path)) as probe,
    ):
        assert {finding.health for finding in await probe.heal()} == {Health.HEALTHY}
        inputs = {request.model_name: {one.name for one in request.inputs} for request in fake.requests}
        assert inputs == {"smollm2": {"text_input", "max_tokens"}, "minilm": {"text"}}
