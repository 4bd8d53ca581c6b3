"""Whether prompts and answers of some key are being stored."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from gen.rpc import Metadata, Transport
from gen.weir.auth.v1 import Key, ListKeysRequest
from gen.weir.auth.v1.service import AuthClient
from weirctl import key_view, pages, spans
from weirctl.doctor_finding import Finding, ok, warning

_WHAT = "sampling"
_SHOWN = 20
_LIMIT = timedelta(seconds=10)


def sampling(keys: Sequence[Key]) -> list[Finding]:
    """One line for each key whose requests are stored; one line where there is none."""
    sampled = [key for key in keys if key.sampling]
    found = [_sampled(key) for key in sampled[:_SHOWN]]
    if len(sampled) > _SHOWN:
        found.append(
            warning(_WHAT, f"{len(sampled) - _SHOWN} more keys are sampled", "`weir keys list` shows them")
        )
    return found or [ok(_WHAT, "nobody's prompts and answers are stored")]


def unknown(why: str) -> list[Finding]:
    """Where the keys cannot be listed."""
    return [warning(_WHAT, f"the keys cannot be listed: {why}", "then run `weir doctor` again")]


async def sampled_keys(transport: Transport, metadata: Metadata) -> Sequence[Key]:
    """Every key that has not ended and is sampled. Raises WeirError."""
    auth, token = AuthClient(transport), ""
    found: list[Key] = []
    while True:
        request = ListKeysRequest(page_size=pages.LONGEST_PAGE, page_token=token)
        answer = await auth.list_keys(request, timeout=_LIMIT, metadata=metadata)
        found += [key for key in answer.keys if key.sampling]
        token = answer.next_page_token
        if not token:
            return found


def _sampled(key: Key) -> Finding:
    text = (
        f"{spans.percent(key.sampling)} of the requests of key {key.id} ({key_view.holder(key)}) are stored, "
        "with prompts and answers"
    )
    return warning(_WHAT, text, f"`weir keys sample {key.id} off`, unless it is meant")
