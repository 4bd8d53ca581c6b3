"""Runs a GGUF model through llama.cpp: a prompt in, pieces of text out. Knows nothing of Triton."""

import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

# The wheel carries no type information.
import xllamacpp

# A text that no JSON begins with.
_NO_JSON = "hello"
# Prompt tokens worked on at once. Other streams stand still and a cancel waits while one such batch runs: 64
# take about 0.7 s on one slow core; larger batches are no faster there, smaller ones are slower.
PROMPT_BATCH_TOKENS = 64


_RAW: Mapping[str, Any] = MappingProxyType({
    "stream": True,
    # A cached prefix changes the size of the batches, hence the rounding, hence the answer of a fixed seed;
    # and its speed would tell one caller what another has asked.
    "cache_prompt": False,
    "samplers": ["penalties", "top_k", "top_p", "temperature"],
})  # fmt: skip


class GenerationFailed(Exception):
    """The model refused or broke off; the text is safe to show and contains nothing of the prompt."""


@dataclass(frozen=True)
class Prompt:
    """One generation. `options` are llama.cpp's sampling options, `schema` binds the answer; both already checked."""

    text: str
    max_tokens: int
    stop_words: tuple[str, ...] = ()
    options: Mapping[str, float] = field(default_factory=dict)
    schema: Any = None


@dataclass(frozen=True)
class Piece:
    """Text made since the last piece (perhaps none), and the tokens counted so far."""

    text: str
    input_tokens: int
    output_tokens: int


class StopScanner:
    """Finds the first stop word in a growing text, also one that spans pieces.

    As TensorRT-LLM does, it lets the stop word through and drops only what follows it; nothing is held back.
    """

    def __init__(self, words: tuple[str, ...]) -> None:
        self._words = words
        self._tail_length = max((len(word) for word in words), default=1) - 1
        self._tail = ""

    def feed(self, text: str) -> tuple[str, bool]:
        """Returns what may be shown of `text`, and whether a stop word ended the answer."""
        window = self._tail + text
        ends = [at + len(word) for word in self._words if (at := window.find(word)) >= 0]
        if ends:
            return text[: min(ends) - len(self._tail)], True
        self._tail = window[-self._tail_length :] if self._tail_length else ""
        return text, False


class Engine:
    """llama.cpp with continuous batching. Thread-safe: one `generate` per slot at a time.

    Lifetime: the model is loaded by the constructor (about a second) and freed with the object.
    """

    def __init__(self, gguf: str, *, slots: int, threads: int, context_tokens: int) -> None:
        params = xllamacpp.CommonParams()
        params.model.path = gguf
        params.n_parallel = slots
        params.n_ctx = slots * context_tokens
        params.n_batch = params.n_ubatch = PROMPT_BATCH_TOKENS
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
        # 8-bit keys and values: a third less memory for 5 % of speed.
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_Q8_0
        params.cache_ram_mib = 0
        params.verbosity = 0
        params.warmup = False
        self._shut_http(params)
        self._context_tokens = context_tokens
        self._server = xllamacpp.Server(params)

    @staticmethod
    def _shut_http(params: Any) -> None:
        """The library always opens an HTTP port on loopback: nobody gets to know its key, and no page is served."""
        params.api_keys = [secrets.token_hex(32)]
        params.cors_origins = ""
        params.endpoint_slots = False
        params.ui = False
        params.n_threads_http = 1

    def generate(self, prompt: Prompt, on_piece: Callable[[Piece], bool]) -> None:
        """Calls `on_piece` for every token and every batch of prompt worked through; True from it stops the model.

        Blocks until the answer is complete or stopped. Raises GenerationFailed.
        """
        if prompt.schema is not None and not self._takes(prompt.schema):
            raise GenerationFailed("guided_decoding_guide: a schema of this kind is not supported")
        scanner = StopScanner(prompt.stop_words)
        failures: list[Exception] = []
        answer: list[str] = []
        input_tokens = output_tokens = 0
        stopped = False

        def take(event: Mapping[str, Any]) -> bool:
            nonlocal input_tokens, output_tokens, stopped
            if "error" in event:
                raise GenerationFailed(_describe(event["error"]))
            if progress := event.get("prompt_progress"):
                input_tokens = progress["total"]
            text, found = scanner.feed(event["choices"][0]["text"])
            answer.append(text)
            output_tokens = event["timings"]["predicted_n"]
            stopped = on_piece(Piece(text, input_tokens, output_tokens)) or found
            return stopped

        def on_event(event: Mapping[str, Any]) -> bool:
            try:
                return take(event)
            except Exception as failure:  # noqa: BLE001 - the library swallows it and would go on generating
                failures.append(failure)
                return True

        self._server.handle_completions(self._llama_request(prompt), on_event)
        if failures:
            raise failures[0]
        room = min(prompt.max_tokens, self._context_tokens - input_tokens)
        whole = not stopped and output_tokens < room
        if prompt.schema is not None and whole and not _is_json("".join(answer)):
            raise GenerationFailed("generation failed: the answer does not follow its guide")

    def _takes(self, schema: Any) -> bool:
        """Whether llama.cpp follows `schema`: it goes on without one that it does not understand, and tells nobody.

        So it is tempted to say one token that no JSON begins with: some 20 ms, and the schema is compiled once more.
        """
        tokens: list[str] = []

        def on_event(event: Mapping[str, Any]) -> bool:
            tokens.append(_NO_JSON if "error" in event else event["choices"][0]["text"])
            return False

        request = {**_RAW, "prompt": _NO_JSON, "max_tokens": 1, "json_schema": schema, "top_k": 1}
        self._server.handle_completions({**request, "logit_bias": [[_NO_JSON, 1000.0]]}, on_event)
        return bool(tokens) and not any(_NO_JSON.startswith(token) for token in tokens if token)

    def _llama_request(self, prompt: Prompt) -> dict[str, Any]:
        request = {
            **_RAW,
            "prompt": prompt.text,
            "max_tokens": prompt.max_tokens,
            "timings_per_token": True,
            "return_progress": True,
            # The penalties look back over everything, as OpenAI's and TensorRT-LLM's do.
            "repeat_last_n": self._context_tokens,
            **prompt.options,
        }
        return request if prompt.schema is None else {**request, "json_schema": prompt.schema}


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _describe(error: Mapping[str, Any]) -> str:
    """In TensorRT-LLM's words where it has some. llama.cpp's own may quote the prompt: only its type is kept."""
    if error.get("type") == "exceed_context_size_error":
        return f"Prompt length ({error['n_prompt_tokens']}) exceeds maximum input length ({error['n_ctx']})."
    return f"generation failed: {error.get('type', 'unknown error')}"
