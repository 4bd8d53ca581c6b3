"""Triton's Python backend entry point: batches of texts in, vectors out. Logs no text."""

import json
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# Exists only inside Triton's Python backend.
import triton_python_backend_utils as pb
from embedder import Embedder, TextTooLong

# How often the server is looked for.
SERVER_POLL_S = 0.5


class InvalidText(Exception):
    """A text cannot be read; the message quotes nothing of it."""


@dataclass
class Job:
    """One request: its texts as tokens, or why it cannot be run."""

    texts: Sequence[Sequence[int]] = ()
    error: str = ""


class TritonPythonModel:
    """Triton creates one of these, calls `initialize` once, and `execute` from one thread, a batch at a time."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Loads the model; the values are config.pbtxt's parameters."""
        parameters = {
            key: value["string_value"]
            for key, value in json.loads(args["model_config"])["parameters"].items()
        }
        self._embedder = Embedder(
            parameters["onnx"],
            parameters["tokenizer"],
            threads=int(parameters["threads"]),
            max_tokens=int(parameters["max_tokens"]),
        )
        self._ended = threading.Event()
        threading.Thread(target=self._outlive_nobody, args=(os.getppid(),), daemon=True).start()
        pb.Logger.log_info(f"{args['model_name']} ready: texts of up to {parameters['max_tokens']} tokens")

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """One response for each request. A fault of one request's texts leaves the others alone."""
        jobs = [self._read(request) for request in requests]
        texts = [text for job in jobs for text in job.texts]
        owners = [index for index, job in enumerate(jobs) for _ in job.texts]
        try:
            vectors = self._embedder.embed(texts, owners, lambda index: requests[index].is_cancelled())
        except Exception as failure:  # noqa: BLE001 - the clients get an answer whatever broke; its text may hold theirs
            error = f"embedding failed: {type(failure).__name__}"
            pb.Logger.log_error(error)
            return [_refusal(job.error or error) for job in jobs]
        taken = iter(vectors)
        return [_response(job, [next(taken) for _ in job.texts]) for job in jobs]

    def finalize(self) -> None:
        """Called when every answer has ended: Triton waits for them."""
        self._ended.set()

    def _outlive_nobody(self, server: int) -> None:
        """Ends this process when the server has died: Triton's stub hangs then, with the model in memory."""
        while not self._ended.wait(SERVER_POLL_S):
            if os.getppid() != server:
                os._exit(1)

    def _read(self, request: Any) -> Job:
        values = pb.get_input_tensor_by_name(request, "text").as_numpy().reshape(-1)
        try:
            return Job([self._embedder.tokens(_text(value)) for value in values])
        except (TextTooLong, InvalidText) as fault:
            return Job(error=str(fault))


def _text(value: bytes) -> str:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        # The error's own text quotes the input.
        raise InvalidText("text is not UTF-8") from None
    if not text:
        raise InvalidText("text is empty")
    return text


def _response(job: Job, vectors: Sequence[Any]) -> Any:
    if job.error:
        return _refusal(job.error)
    if any(vector is None for vector in vectors):
        # Nobody reads it.
        return _refusal("cancelled")
    counts = np.array([[len(text)] for text in job.texts], dtype=np.int32)
    return pb.InferenceResponse([
        pb.Tensor("embedding", np.stack(vectors)),
        pb.Tensor("num_input_tokens", counts),
    ])  # fmt: skip


def _refusal(error: str) -> Any:
    return pb.InferenceResponse(error=pb.TritonError(error, pb.TritonError.INVALID_ARG))
