"""How a Triton backend wants to be asked and how it answers: one profile per contract.

`trtllm_bls` is TensorRT-LLM's classic `tensorrt_llm_bls`/`ensemble` model (up to container 25.12). Tensors: inputs
`text_input` STRING [1,1] and `max_tokens` INT32 [1,1] and optional sampling; outputs `text_output` STRING, a delta when
`stream`, `num_input_tokens` INT32 (the first counts), `num_output_tokens` INT32 (they add up). It names no finish
reason: as many tokens as the cap means the cap was reached. The stop text stays in the text.
"""

from __future__ import annotations

import struct
from typing import Any, Final

from tritonclient.grpc import service_pb2

from gen.weir.router.v1 import GenerateRequest
from gen.weir.type.v1 import FinishReason, Sampling, Usage
from services.router.domain.stop_filter import StopFilter
from services.router.ports import Piece

EMPTY_FINAL: Final = "triton_enable_empty_final_response"
FINAL: Final = "triton_final_response"
_GREEDY_TOP_K: Final = 1
_SEED_MASK: Final = 2**64 - 1


class TrtllmBls:
    """One request in the classic contract, and the reading of its answers.

    Args:
        model: the Triton model's name.
        prompt: the templated conversation.
        request: the sampling to honour.
        default_max_output_tokens: the cap where the request names none.
    """

    def __init__(
        self,
        model: str,
        prompt: str,
        request: GenerateRequest,
        request_id: str,
        default_max_output_tokens: int,
    ) -> None:
        self._model = model
        self._prompt = prompt
        self._sampling = Sampling() if request.sampling is None else request.sampling
        self._request_id = request_id
        self._cap = self._sampling.max_output_tokens or default_max_output_tokens
        self._stop = StopFilter(self._sampling.stop)
        self._input_tokens = 0
        self._output_tokens = 0

    def infer_request(self) -> Any:
        """The ModelInferRequest."""
        request = service_pb2.ModelInferRequest(model_name=self._model, id=self._request_id)
        request.parameters[EMPTY_FINAL].bool_param = True
        _bytes(request, "text_input", [self._prompt])
        _scalar(request, "max_tokens", "INT32", "<i", self._cap)
        for flag in (
            "stream",
            "return_num_input_tokens",
            "return_num_output_tokens",
            "exclude_input_in_output",
        ):
            _scalar(request, flag, "BOOL", "<?", value=True)
        self._add_sampling(request)
        return request

    def _add_sampling(self, request: Any) -> None:
        sampling = self._sampling
        if sampling.stop:
            _bytes(request, "stop_words", sampling.stop)
        if sampling.temperature == 0:
            _scalar(request, "top_k", "INT32", "<i", _GREEDY_TOP_K)
        elif sampling.temperature is not None or sampling.top_p is not None:
            # With neither top_k nor top_p the backend is greedy whatever the temperature.
            _scalar(
                request,
                "temperature",
                "FP32",
                "<f",
                1.0 if sampling.temperature is None else sampling.temperature,
            )
            _scalar(request, "top_p", "FP32", "<f", 1.0 if sampling.top_p is None else sampling.top_p)
        if sampling.seed is not None:
            _scalar(request, "seed", "UINT64", "<Q", sampling.seed & _SEED_MASK)

    def read(self, response: Any) -> Piece:
        """One ModelInferResponse as a piece; the final one is `finished`."""
        texts = ""
        for output, raw in zip(response.outputs, response.raw_output_contents, strict=False):
            if output.name == "text_output":
                texts += "".join(_strings(raw))
            elif output.name == "num_input_tokens":
                self._input_tokens = self._input_tokens or _int32(raw)
            elif output.name == "num_output_tokens":
                self._output_tokens += _int32(raw)
        final = FINAL in response.parameters and response.parameters[FINAL].bool_param
        text = self._stop.feed(texts)
        if final:
            text += self._stop.rest()
        return Piece(
            text=text,
            finished=final,
            finish_reason=self._finish() if final else FinishReason.UNSPECIFIED,
            usage=Usage(input_tokens=self._input_tokens, output_tokens=self._output_tokens)
            if self._input_tokens
            else None,
        )

    def _finish(self) -> FinishReason:
        if not self._stop.stopped and self._output_tokens >= self._cap:
            return FinishReason.LENGTH
        return FinishReason.STOP


def _scalar(request: Any, name: str, datatype: str, code: str, value: float) -> None:
    request.inputs.add(name=name, datatype=datatype, shape=[1, 1])
    request.raw_input_contents.append(struct.pack(code, value))


def _bytes(request: Any, name: str, texts: list[str]) -> None:
    """A STRING tensor [1, n]: each element behind its length as 4 bytes little-endian."""
    encoded = [text.encode() for text in texts]
    request.inputs.add(name=name, datatype="BYTES", shape=[1, len(encoded)])
    request.raw_input_contents.append(b"".join(struct.pack("<I", len(text)) + text for text in encoded))


def _strings(raw: bytes) -> list[str]:
    texts, at = [], 0
    while at < len(raw):
        (size,) = struct.unpack_from("<I", raw, at)
        texts.append(raw[at + 4 : at + 4 + size].decode("utf-8", errors="replace"))
        at += 4 + size
    return texts


def _int32(raw: bytes) -> int:
    (value,) = struct.unpack_from("<i", raw)
    return int(value)
