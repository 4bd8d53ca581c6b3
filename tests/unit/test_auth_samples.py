"""What Auth makes of samples: only of keys whose sampling is on, cut to size, shown to admins alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gen.weir.auth.v1 import KeepSamplesRequest, Key, ListSamplesRequest, Sample, Scope
from gen.weir.type.v1 import Principal
from meshkit.errors import Forbidden, InvalidRequest
from services.auth.domain.admin import Admin
from services.auth.keep_samples import MAX_SAMPLES, MAX_TEXT_BYTES, KeepSamples
from services.auth.list_samples import ListSamples
from tests.fakes.auth import MOMENT, FakeAuditLog
from tests.fakes.auth_samples import FakeSampleStore

SAMPLE = Sample(at=MOMENT, request_id="req_1", key_id="on", model="auto", prompt="{}", answer="yes")
KEYS = {"on": Key(id="on", sampling=0.5), "off": Key(id="off")}
ADMIN = Admin(Principal(key_id="a"), frozenset({Scope.ADMIN}))


async def test_only_keys_with_sampling_leave_something_behind() -> None:
    """A router that has not heard of the switch yet cannot store a prompt any more, nor can one that invents keys."""
    store = FakeSampleStore()
    keep = KeepSamples(store, KEYS.get)
    await keep(KeepSamplesRequest(samples=[replace(SAMPLE, key_id=key) for key in ("off", "none", "on")]))
    assert store.kept == [SAMPLE]


async def test_texts_are_cut() -> None:
    """At 64 KiB of whole characters, and marked; what PostgreSQL's text cannot hold is replaced."""
    store = FakeSampleStore()
    await KeepSamples(store, KEYS.get)(
        KeepSamplesRequest(samples=[replace(SAMPLE, prompt="\N{EURO SIGN}" * 30_000, answer="a\0b")])
    )
    (kept,) = store.kept
    assert len(kept.prompt.encode()) == MAX_TEXT_BYTES - MAX_TEXT_BYTES % 3
    assert kept.answer == "a\N{REPLACEMENT CHARACTER}b"
    assert kept.partial


@pytest.mark.parametrize(
    "samples",
    [[SAMPLE] * (MAX_SAMPLES + 1), [replace(SAMPLE, at=None)], [replace(SAMPLE, model="m" * 257)]],
    ids=["too many", "no time", "long name"],
)
async def test_bad_samples_are_refused_whole(samples: list[Sample]) -> None:
    """Nothing of the message is kept."""
    store = FakeSampleStore()
    with pytest.raises(InvalidRequest, match="samples"):
        await KeepSamples(store, KEYS.get)(KeepSamplesRequest(samples=[SAMPLE, *samples]))
    assert store.kept == []


async def test_listing_needs_the_scope_admin() -> None:
    """Prompts of a team are not its key makers' to read."""
    store = FakeSampleStore()
    await store.add([SAMPLE])
    listing = ListSamples(store, FakeAuditLog(), lambda: MOMENT)
    assert (await listing(ListSamplesRequest(), ADMIN)).samples == [SAMPLE]
    with pytest.raises(Forbidden):
        await listing(ListSamplesRequest(), replace(ADMIN, scopes=frozenset({Scope.KEYS_WRITE})))
    for page_size in (-1, 101):
        with pytest.raises(InvalidRequest):
            await listing(ListSamplesRequest(page_size=page_size), ADMIN)


async def test_who_reads_prompts_leaves_a_row() -> None:
    """Of whom and how many, and no row where nothing was shown for want of the right."""
    store, audit = FakeSampleStore(), FakeAuditLog()
    await store.add([SAMPLE])
    listing = ListSamples(store, audit, lambda: MOMENT)
    with pytest.raises(Forbidden):
        await listing(ListSamplesRequest(), replace(ADMIN, scopes=frozenset()))
    await listing(ListSamplesRequest(key_id="abcdefghij23"), ADMIN)
    await listing(ListSamplesRequest(), ADMIN)
    assert [(row.action, row.who, row.subject, row.detail) for row in audit.events] == [
        ("samples.list", Principal(key_id="a"), "abcdefghij23", "0 shown, of one key"),
        ("samples.list", Principal(key_id="a"), "", "1 shown, of all keys"),
    ]
