"""The classic TensorRT-LLM contract: tensors of a Triton request <-> values. See config.pbtxt for the names."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import guide
import numpy as np

# Exists only inside Triton's Python backend.
import triton_python_backend_utils as pb
from engine import Prompt

# What llama.cpp calls the penalties, and where each does nothing.
_PENALTIES = {
    "repetition_penalty": "repeat_penalty",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
}
_SEED_MASK = 0x7FFF_FFFF  # llama.cpp takes 32 bits and reads all ones as "random"


class InvalidRequest(Exception):
    """The request cannot be run; the text says which input is wrong and quotes no prompt."""


@dataclass(frozen=True)
class Wishes:
    """How the answer should look, as far as the model itself does not care."""

    stream: bool
    input_tokens: bool
    output_tokens: bool
    echo: str


def read(request: Any) -> tuple[Prompt, Wishes]:
    """Reads one request of batch size 1. Raises InvalidRequest."""
    tensors = {tensor.name(): tensor.as_numpy().reshape(-1) for tensor in request.inputs()}
    text = _text("text_input", tensors["text_input"][0])
    max_tokens = int(tensors["max_tokens"][0])
    if not text:
        raise InvalidRequest("text_input is empty")
    if max_tokens < 1:
        raise InvalidRequest(f"max_tokens must be at least 1, not {max_tokens}")
    stop_words = tuple(_text("stop_words", word) for word in tensors.get("stop_words", ()))
    prompt = Prompt(
        text, max_tokens, tuple(word for word in stop_words if word), _options(tensors), _schema(tensors)
    )
    return prompt, Wishes(
        stream=_flag(tensors, "stream"),
        input_tokens=_flag(tensors, "return_num_input_tokens"),
        output_tokens=_flag(tensors, "return_num_output_tokens"),
        echo="" if _flag(tensors, "exclude_input_in_output") else text,
    )


def write(text: str, input_tokens: int | None, output_tokens: int | None) -> Any:
    """One response; `output_tokens` counts this response alone, the client sums them."""
    tensors = [pb.Tensor("text_output", np.array([[text.encode()]], dtype=np.object_))]
    for name, count in (("num_input_tokens", input_tokens), ("num_output_tokens", output_tokens)):
        if count is not None:
            tensors.append(pb.Tensor(name, np.array([[count]], dtype=np.int32)))
    return pb.InferenceResponse(output_tensors=tensors)


def _options(tensors: Mapping[str, Any]) -> dict[str, float]:
    top_k = int(_number(tensors, "top_k", 0.0))
    top_p = _number(tensors, "top_p", 0.0)
    if top_k <= 0 and top_p <= 0.0:
        top_k = 1  # as TensorRT-LLM: greedy, whatever the temperature
    options = {
        "temperature": _number(tensors, "temperature", 1.0),
        "top_k": top_k,
        "top_p": top_p if 0.0 < top_p < 1.0 else 1.0,
        "min_p": 0.0,
        "seed": int(tensors["seed"][0]) & _SEED_MASK if "seed" in tensors else 0,
    }
    return options | {
        theirs: _number(tensors, name, 1.0 if name == "repetition_penalty" else 0.0)
        for name, theirs in _PENALTIES.items()
    }


def _schema(tensors: Mapping[str, Any]) -> Any:
    if "guided_decoding_guide_type" not in tensors:
        return None
    kind, *texts = [
        _text(name, tensors[name][0])
        for name in ("guided_decoding_guide_type", "guided_decoding_guide")
        if name in tensors
    ]
    try:
        return guide.read(kind, "".join(texts))
    except guide.InvalidGuide as fault:
        raise InvalidRequest(str(fault)) from None


def _number(tensors: Mapping[str, Any], name: str, default: float) -> float:
    value = float(tensors[name][0]) if name in tensors else default
    if not math.isfinite(value):
        raise InvalidRequest(f"{name} is not a finite number")
    return value


def _flag(tensors: Mapping[str, Any], name: str) -> bool:
    return name in tensors and bool(tensors[name][0])


def _text(name: str, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        # The error's own text quotes the input.
        raise InvalidRequest(f"{name} is not UTF-8") from None
