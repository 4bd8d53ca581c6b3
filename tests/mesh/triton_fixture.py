"""A real Triton of the test session's own, on free ports, and a client that reads answers as they come."""

import asyncio
import os
import socket
import subprocess
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from weirctl.triton_probe import TritonProbe
from weirctl.triton_server import clean_shared_memory, command, prepare
from weirctl.triton_settings import TritonSettings

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class RunningTriton:
    """A server that answers, and the process it is."""

    settings: TritonSettings
    process: subprocess.Popen[bytes]

    def stub_pid(self, model: str = "smollm2") -> int:
        """The process in which the model runs. Dead ones stay on, nameless, until Triton looks after them."""
        files = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        children = {int(pid) for file in files for pid in file.read_text().split()}
        (pid,) = (pid for pid in children if f"/{model}/" in Path(f"/proc/{pid}/cmdline").read_text())
        return pid


@dataclass(frozen=True)
class Chunk:
    """One response; `at_s` counts from the request. Counts are None where the model sent none."""

    at_s: float
    text: str
    input_tokens: int | None
    output_tokens: int | None
    error: str
    final: bool


@contextmanager
def running_triton(home: Path, **knobs: Any) -> Iterator[RunningTriton]:
    """Starts a server whose state is in `home`, and stops it. The venv is the one under WEIR_HOME.

    `knobs` are settings of weirctl.triton_settings.
    """
    http_port, grpc_port, metrics_port = _free_ports(3)
    packages = Path(os.environ.get("WEIR_HOME", REPOSITORY / ".weir")) / "triton" / "venv"
    settings = TritonSettings(
        home=home,
        packages=packages,
        http_port=http_port,
        grpc_port=grpc_port,
        metrics_port=metrics_port,
        drain_s=1,
        **knobs,
    )
    prepare(settings, print)
    start = command(settings)
    with (home / "triton.log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 - our own command, no shell
            start.argv,
            env=start.environment,
            cwd=start.directory,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            asyncio.run(_ready(settings))
            yield RunningTriton(settings, process)
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            clean_shared_memory(settings)


class Model:
    """A client of the model: each call is one request on its own stream."""

    def __init__(self, settings: TritonSettings) -> None:
        self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{settings.grpc_port}")
        self.stub: Any = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    async def close(self) -> None:
        await self._channel.close()

    async def ask(
        self, text: str, *, model: str = "smollm2", timeout_s: float = 60.0, **inputs: Any
    ) -> list[Chunk]:
        """The whole answer, response by response."""
        return [chunk async for chunk in self.stream(text, model=model, timeout_s=timeout_s, **inputs)]

    async def stream(
        self, text: str, *, model: str = "smollm2", timeout_s: float = 60.0, **inputs: Any
    ) -> AsyncGenerator[Chunk, None]:
        """The answer as it comes. Closing the iterator cancels the request."""
        begun = time.monotonic()
        call = self.stub.ModelStreamInfer(timeout=timeout_s)
        try:
            await call.write(infer_request(text, model, inputs))
            await call.done_writing()
            async for answer in call:
                yield _chunk(answer, time.monotonic() - begun)
        finally:
            call.cancel()


_TYPES = {
    "max_tokens": ("INT32", "int_contents"),
    "top_k": ("INT32", "int_contents"),
    "seed": ("UINT64", "uint64_contents"),
    "stop_words": ("BYTES", "bytes_contents"),
    "temperature": ("FP32", "fp32_contents"),
    "presence_penalty": ("FP32", "fp32_contents"),
    "frequency_penalty": ("FP32", "fp32_contents"),
    "guided_decoding_guide_type": ("BYTES", "bytes_contents"),
    "guided_decoding_guide": ("BYTES", "bytes_contents"),
    "top_p": ("FP32", "fp32_contents"),
}


def infer_request(text: str, model: str, inputs: dict[str, Any]) -> Any:
    """A request of the classic TensorRT-LLM contract that asks for both token counts and no echo."""
    request = service_pb2.ModelInferRequest(model_name=model)
    request.parameters["triton_enable_empty_final_response"].bool_param = True
    flags = {
        "return_num_input_tokens": True,
        "return_num_output_tokens": True,
        "exclude_input_in_output": True,
    }
    _add(request, "text_input", ("BYTES", "bytes_contents"), [text])
    for name, value in (flags | {"stream": True, "max_tokens": 16} | inputs).items():
        _add(
            request,
            name,
            _TYPES.get(name, ("BOOL", "bool_contents")),
            value if isinstance(value, list) else [value],
        )
    return request


def _add(request: Any, name: str, kind: tuple[str, str], values: Sequence[Any]) -> None:
    tensor = request.inputs.add(name=name, datatype=kind[0], shape=[1, len(values)])
    getattr(tensor.contents, kind[1]).extend(
        value.encode() if isinstance(value, str) else value for value in values
    )


def _chunk(answer: Any, at_s: float) -> Chunk:
    response = answer.infer_response
    raw = {
        output.name: content
        for output, content in zip(response.outputs, response.raw_output_contents, strict=True)
    }
    counts = {
        name: int.from_bytes(raw[name], "little") if name in raw else None
        for name in ("num_input_tokens", "num_output_tokens")
    }
    text = raw.get("text_output", b"")[4:].decode()  # four bytes of length come first
    final = response.parameters["triton_final_response"].bool_param
    return Chunk(
        at_s, text, counts["num_input_tokens"], counts["num_output_tokens"], answer.error_message, final
    )


async def _ready(settings: TritonSettings) -> None:
    async with TritonProbe(settings) as probe:
        await probe.wait_ready(timeout_s=60)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [open_socket.getsockname()[1] for open_socket in sockets]
    for open_socket in sockets:
        open_socket.close()
    return ports
