"""Triton's Python backend entry point: requests in, answers out through the courier. Logs no prompt and no answer."""

import json
import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import contract

# Exists only inside Triton's Python backend.
import triton_python_backend_utils as pb
from answers import Answer, Courier
from engine import Engine, GenerationFailed, Piece, Prompt

# How often a request that waits for a slot asks whether its client has gone.
CANCEL_POLL_S = 0.05
# How often the server is looked for.
SERVER_POLL_S = 0.5


class TritonPythonModel:
    """Triton creates one of these, calls `initialize` once, `execute` from one thread, and `finalize` at the end."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Loads the model; the values are config.pbtxt's parameters."""
        parameters = {
            key: value["string_value"]
            for key, value in json.loads(args["model_config"])["parameters"].items()
        }
        slots = int(parameters["slots"])
        self._engine = Engine(
            parameters["gguf"],
            slots=slots,
            threads=int(parameters["threads"]),
            context_tokens=int(parameters["context_tokens"]),
        )
        self._free_slots = threading.Semaphore(slots)
        self._workers = ThreadPoolExecutor(slots, thread_name_prefix="slot")
        self._courier = Courier()
        self._ended = threading.Event()
        threading.Thread(target=self._outlive_nobody, args=(os.getppid(),), daemon=True).start()
        pb.Logger.log_info(
            f"{args['model_name']} ready: {slots} slots of {parameters['context_tokens']} tokens"
        )

    def execute(self, requests: Sequence[Any]) -> None:
        """Takes each request as soon as a slot is free; until then Triton's queue holds the others."""
        for request in requests:
            self._take(request)

    def finalize(self) -> None:
        """Called when every answer has ended: Triton waits for them."""
        self._ended.set()
        self._workers.shutdown()
        self._courier.close()
        del self._engine

    def _outlive_nobody(self, server: int) -> None:
        """Ends this process when the server has died.

        Triton's stub notices that too, but where a question to the server is open (is_cancelled) it then waits for
        ever, and keeps the model in memory.
        """
        while not self._ended.wait(SERVER_POLL_S):
            if os.getppid() != server:
                os._exit(1)

    def _take(self, request: Any) -> None:
        sender = request.get_response_sender()
        try:
            prompt, wishes = contract.read(request)
        except contract.InvalidRequest as refusal:
            error = pb.TritonError(str(refusal), pb.TritonError.INVALID_ARG)
            sender.send(pb.InferenceResponse(error=error), flags=pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
            return
        while not self._free_slots.acquire(timeout=CANCEL_POLL_S):
            if sender.is_cancelled():
                sender.send(flags=pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
                return
        self._workers.submit(self._answer, prompt, Answer(sender, wishes))

    def _answer(self, prompt: Prompt, answer: Answer) -> None:
        def on_piece(piece: Piece) -> bool:
            answer.add(piece)
            self._courier.notify(answer)
            return answer.cancelled

        error: str | None = None
        try:
            self._engine.generate(prompt, on_piece)
        except GenerationFailed as failure:
            error = str(failure)
        except Exception as failure:  # noqa: BLE001 - the client gets an answer whatever broke; its text may hold the prompt
            error = f"generation failed: {type(failure).__name__}"
            pb.Logger.log_error(error)
        self._free_slots.release()
        answer.end(error)
        self._courier.notify(answer)
