"""How a Triton backend wants to be asked and how it answers: one profile per contract.

`trtllm_bls` is TensorRT-LLM's classic `tensorrt_llm_bls`/`ensemble` model (up to container 25.12). Tensors: inputs
`text_input` STRING [1,1] and `max_tokens` INT32 [1,1] and optional sampling; outputs `text_output` STRING, a delta when
`stream`, `num_input_tokens` INT32 (the first counts), `num_output_tokens` INT32 (they add up). It names no finish
reason: as many tokens as the cap means the cap was reached. The stop text stays in the text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from tritonclient.grpc import service_pb2

from gen.weir.type.v1 import FinishReason, Sampling, Usage
from services.router.adapters.triton_seam import Seam
from services.router.adapters.triton_tensors import add_scalar, add_strings, int32s, outputs, strings
from services.router.domain.stop_filter import StopFilter
from services.router.ports import Piece

EMPTY_FINAL: Final = "triton_enable_empty_final_response"
FINAL: Final = "triton_final_response"
ANY_OBJECT: Final = '{"type":"object","additionalProperties":true}'
"""The guide for any JSON object: TensorRT-LLM's own guide for any JSON takes arrays and numbers too."""
_GREEDY_TOP_K: Final = 1
_SEED_MASK: Final = 2**64 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What a model is asked for."""

    model: str
    """Triton's name for it."""
    request_id: str
    prompt: str
    """The text to continue, as the model is to read it."""
    seam: Seam
    """Where the prompt ends in an answer that has begun."""
    sampling: Sampling
    guide: str | None
    """The JSON schema that the answer must follow."""
    max_tokens: int
    """Cap of the answer."""
    context_window: int | None
    """Tokens of prompt and answer together; None where that is not known."""


class TrtllmBls:
    """One request in the classic contract, and the reading of its answers."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._stop = StopFilter(ask.sampling.stop)
        self._input_tokens = 0
        self._output_tokens = 0

    def infer_request(self) -> Any:
        """The ModelInferRequest."""
        ask = self._ask
        request = service_pb2.ModelInferRequest(model_name=ask.model, id=ask.request_id)
        request.parameters[EMPTY_FINAL].bool_param = True
        add_strings(request, "text_input", [ask.prompt], [1, 1])
        add_scalar(request, "max_tokens", "INT32", "<i", ask.max_tokens)
        for flag in (
            "stream",
            "return_num_input_tokens",
            "return_num_output_tokens",
            "exclude_input_in_output",
        ):
            add_scalar(request, flag, "BOOL", "<?", value=True)
        _add_sampling(request, ask.sampling)
        if ask.guide is not None:
            add_strings(request, "guided_decoding_guide_type", ["json_schema"], [1, 1])
            add_strings(request, "guided_decoding_guide", [ask.guide], [1, 1])
        return request

    def read(self, response: Any) -> Piece:
        """One ModelInferResponse as a piece; the final one is `finished`. Raises UpstreamError if it is none."""
        arrived = ""
        for name, raw in outputs(response):
            if name == "text_output":
                arrived += "".join(strings(raw))
            elif name == "num_input_tokens":
                self._input_tokens = self._input_tokens or next(iter(int32s(raw)), 0)
            elif name == "num_output_tokens":
                self._output_tokens += sum(int32s(raw))
        final = FINAL in response.parameters and response.parameters[FINAL].bool_param
        text = self._stop.feed(self._ask.seam.feed(arrived))
        if final:
            text += self._stop.rest()
        return Piece(
            text=text,
            content=final or bool(text),
            finished=final,
            finish_reason=self._finish() if final else FinishReason.UNSPECIFIED,
            usage=Usage(input_tokens=self._input_tokens, output_tokens=self._output_tokens)
            if self._input_tokens
            else None,
        )

    def _finish(self) -> FinishReason:
        if self._stop.stopped:
            return FinishReason.STOP
        window = self._ask.context_window
        full = window is not None and self._input_tokens + self._output_tokens >= window
        return (
            FinishReason.LENGTH if full or self._output_tokens >= self._ask.max_tokens else FinishReason.STOP
        )


def _add_sampling(request: Any, sampling: Sampling) -> None:
    if sampling.stop:
        add_strings(request, "stop_words", sampling.stop, [1, len(sampling.stop)])
    if sampling.temperature == 0:
        add_scalar(request, "top_k", "INT32", "<i", _GREEDY_TOP_K)
    elif sampling.temperature is not None or sampling.top_p is not None:
        # With neither top_k nor top_p the backend is greedy whatever the temperature.
        for name, value in (("temperature", sampling.temperature), ("top_p", sampling.top_p)):
            add_scalar(request, name, "FP32", "<f", 1.0 if value is None else value)
    for name, value in (
        ("presence_penalty", sampling.presence_penalty),
        ("frequency_penalty", sampling.frequency_penalty),
    ):
        if value is not None:
            add_scalar(request, name, "FP32", "<f", value)
    if sampling.seed is not None:
        add_scalar(request, "seed", "UINT64", "<Q", sampling.seed & _SEED_MASK)
