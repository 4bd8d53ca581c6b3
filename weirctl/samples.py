"""`weir samples`: what was kept of the requests of keys whose sampling is switched on."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import msgspec

from gen.rpc import Metadata, Transport
from gen.weir.auth.v1 import ListSamplesRequest, Sample
from gen.weir.auth.v1.service import AuthClient
from weirctl import spans
from weirctl.admin_calls import administer

_LIMIT = timedelta(seconds=10)
_FIRST_CHARACTER = 0x20
_CONTROL = {
    code: f"\\x{code:02x}"
    for code in (*range(_FIRST_CHARACTER), *range(0x7F, 0xA0))
    if code not in {ord("\n"), ord("\t")}
}
"""A text that somebody else wrote must not steer the reader's terminal."""


def run(arguments: argparse.Namespace) -> int:
    """Prints them, newest first."""
    request = ListSamplesRequest(key_id=arguments.key_id, page_size=arguments.limit)

    async def ask(transport: Transport, metadata: Metadata) -> Sequence[Sample]:
        answer = await AuthClient(transport).list_samples(request, timeout=_LIMIT, metadata=metadata)
        return answer.samples

    print(report(administer("auth", ask), as_json=arguments.json))
    return 0


def report(samples: Sequence[Sample], *, as_json: bool) -> str:
    """Each as a paragraph, or all as JSON."""
    if as_json:
        return msgspec.json.format(msgspec.json.encode([_document(sample) for sample in samples])).decode()
    return "\n\n".join(map(_paragraph, samples)) or "No samples are kept."


def _paragraph(sample: Sample) -> str:
    head = (
        f"{spans.shown(sample.at)}  key {sample.key_id}  model {sample.model}  "
        f"target {sample.target or '-'}  request {sample.request_id}{'  (not whole)' if sample.partial else ''}"
    )
    texts = (f"  {name}:\n{_indented(text)}" for name, text in _texts(sample))
    return "\n".join((head.translate(_CONTROL), *texts))


def _texts(sample: Sample) -> tuple[tuple[str, str], ...]:
    return ("prompt", sample.prompt), ("answer", sample.answer)


def _indented(text: str) -> str:
    return textwrap.indent(text.translate(_CONTROL), "    ")


def _document(sample: Sample) -> dict[str, Any]:
    return {
        "at": None if sample.at is None else sample.at.isoformat(timespec="milliseconds"),
        "request_id": sample.request_id,
        "key_id": sample.key_id,
        "model": sample.model,
        "target": sample.target,
        "prompt": sample.prompt,
        "answer": sample.answer,
        "partial": sample.partial,
    }
