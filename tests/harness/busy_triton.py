"""Keeps the local Triton busy past Weir: its slots taken, and so many requests waiting in its queue."""

from __future__ import annotations

import asyncio
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from tests.harness.fault_plans import SLOTS
from tests.harness.fault_rig import Rig
from tests.harness.running_weir import wait_for
from tests.mesh.triton_fixture import Model
from weirctl.triton_settings import TritonSettings

QUESTION = "<|im_start|>user\nTell me a long story about a river.<|im_end|>\n<|im_start|>assistant\n"
ENDLESS = 1_500
"""Tokens; far longer than any test."""
IN_HAND = 1
"""Beyond the slots: the model holds one request that waits for a slot and is in the queue no more."""
SPARE = 1
"""One more than there is room for takes a place at once that becomes free."""
AGAIN_S = 0.02


@contextmanager
def busy_triton(rig: Rig, waiting: int) -> Iterator[None]:
    """From the moment when `waiting` requests stand in the queue; at the end all of it is cancelled."""
    ports = rig.weir.document["ports"]
    settings = TritonSettings(home=rig.weir.home, grpc_port=ports["triton_grpc"])
    # Requests that were cancelled while they waited may still stand in the queue.
    wait_for("an empty queue at Triton", lambda: _pending(ports["triton_metrics"]) == 0)
    enough, speaking = threading.Event(), set[int]()
    occupy = _occupy(settings, SLOTS + IN_HAND + waiting + SPARE, speaking, enough)
    thread = threading.Thread(target=asyncio.run, args=(occupy,))
    thread.start()
    try:
        wait_for("answers in every slot", lambda: len(speaking) == SLOTS)
        wait_for("a queue at Triton", lambda: _pending(ports["triton_metrics"]) >= waiting)
        yield
    finally:
        enough.set()
        thread.join(30)
        assert not thread.is_alive(), "its requests cannot be cancelled"


async def _occupy(
    settings: TritonSettings, requests: int, speaking: set[int], enough: threading.Event
) -> None:
    model = Model(settings)
    tasks = [asyncio.create_task(_insist(model, number, speaking)) for number in range(requests)]
    await asyncio.to_thread(enough.wait)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await model.close()


async def _insist(model: Model, number: int, speaking: set[int]) -> None:
    """One request that is answered without end; refused or timed out, it is made again."""
    while True:
        async for chunk in model.stream(QUESTION, max_tokens=ENDLESS):
            if not chunk.error:
                speaking.add(number)
        await asyncio.sleep(AGAIN_S)


def _pending(metrics_port: int) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return sum(
        float(line.split()[-1]) for line in lines if line.startswith("nv_inference_pending_request_count{")
    )
