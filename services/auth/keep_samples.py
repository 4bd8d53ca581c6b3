"""KeepSamples: stores what routers kept of sampled requests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from gen.weir.auth.v1 import KeepSamplesRequest, KeepSamplesResponse, Key, Sample
from meshkit.errors import InvalidRequest
from services.auth.ports import SampleStore

MAX_SAMPLES = 100
MAX_TEXT_BYTES = 64 * 1024
MAX_NAME_CHARS = 256


class KeepSamples:
    """Stores samples of keys whose sampling is on now: one switched off a moment ago leaves nothing more behind.

    Args:
        store: takes them.
        find: the key as it is now, from Auth's own copy.
    """

    def __init__(self, store: SampleStore, find: Callable[[str], Key | None]) -> None:
        self._store = store
        self._find = find

    async def __call__(self, request: KeepSamplesRequest) -> KeepSamplesResponse:
        """Raises InvalidRequest, and UpstreamError while the store is away."""
        if len(request.samples) > MAX_SAMPLES:
            raise InvalidRequest(
                f"samples: {len(request.samples)}; {MAX_SAMPLES} are allowed", param="samples"
            )
        for sample in request.samples:
            _check(sample)
        wanted = [sample for sample in request.samples if self._is_on(sample.key_id)]
        if wanted:
            await self._store.add([_fitting(sample) for sample in wanted])
        return KeepSamplesResponse()

    def _is_on(self, key_id: str) -> bool:
        key = self._find(key_id)
        return key is not None and key.sampling > 0


def _check(sample: Sample) -> None:
    if sample.at is None:
        raise InvalidRequest("samples: one has no time", param="samples")
    for name in ("request_id", "key_id", "model", "target"):
        if len(getattr(sample, name)) > MAX_NAME_CHARS:
            raise InvalidRequest(f"samples: {name} is over {MAX_NAME_CHARS} characters", param="samples")


def _fitting(sample: Sample) -> Sample:
    prompt, answer = _cut(sample.prompt), _cut(sample.answer)
    cut = (prompt, answer) != (sample.prompt, sample.answer)
    return replace(sample, prompt=prompt, answer=answer, partial=sample.partial or cut)


def _cut(text: str) -> str:
    # PostgreSQL's text holds everything but NUL.
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode()[:MAX_TEXT_BYTES].decode(errors="ignore")
