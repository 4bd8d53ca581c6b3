"""The audit: what its rows may hold, who may read it, and that no flood fills it."""

import asyncio
from collections.abc import Mapping
from datetime import timedelta

import pytest

from gen.rpc import Metadata, Peer
from gen.weir.auth.v1 import AuditEvent, ListAuditRequest, ReportRefusalsRequest, Scope
from gen.weir.error.v1 import Reason
from gen.weir.type.v1 import Principal
from meshkit.errors import Forbidden, InvalidRequest, KeyInvalid, KeyMissing, KeyRevoked, UpstreamError
from meshkit.telemetry import Logger
from services.auth.administer import Administer
from services.auth.authenticate import Authenticate
from services.auth.authorize import Authorize
from services.auth.domain.admin import Admin
from services.auth.domain.audit import clean
from services.auth.list_audit import ListAudit
from services.auth.prune import Prune
from services.auth.record_refusal import RecordRefusal
from services.auth.report_refusals import ReportRefusals
from tests.fakes.auth import ADMIN, MOMENT, FakeAuditLog, FakeKeyStore, key_of, revoked, token_of, writer

_TOKEN = token_of(1)


class _Context:
    """A call with this Authorization header (gen.rpc.RpcContext)."""

    def __init__(self, authorization: str | None, address: str = "ipv4:10.1.2.3:4711") -> None:
        self.peer = Peer("operator", address)
        self.request_id = "r"
        self.metadata: Mapping[str, str | bytes] = (
            {} if authorization is None else {"authorization": authorization}
        )

    def time_remaining(self) -> timedelta | None:
        return None

    async def send_initial_metadata(self, metadata: Metadata) -> None:
        raise AssertionError(metadata)


def _event(reason: Reason = Reason.KEY_INVALID, subject: str = "") -> AuditEvent:
    return AuditEvent(at=MOMENT, who=Principal(), refused=reason, action="/a/B", subject=subject)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (_TOKEN.text, f"weir_{_TOKEN.key_id}_..."),
        (f"sent {_TOKEN.text}, twice {_TOKEN.text}", f"sent weir_{_TOKEN.key_id}_..., twice weir_{_TOKEN.key_id}_..."),
        (_TOKEN.secret, "..."),
        (_TOKEN.secret_sha256.hex(), "..."),
        ("Bearer eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJ4In0.c2ln-_x", "Bearer ..."),
        ("two\nlines\x00\x1b[31m", "two lines  [31m"),
        ("x y" * 500, ("x y" * 500)[:200]),
        ("half a \ud800 character", "half a ? character"),
        ("weir_short and 550e8400-e29b-41d4-a716-446655440000", "weir_short and 550e8400-e29b-41d4-a716-446655440000"),
    ],
)  # fmt: skip
def test_no_secret_and_no_control_character_is_kept(text: str, kept: str) -> None:
    """Whatever field a caller or a router put it in."""
    who = Principal(key_id=text, org=text, team=text)
    row = clean(AuditEvent(who=who, action=text, subject=text, address=text, peer=text, detail=text))
    assert [row.action, row.subject, row.address, row.peer] == [kept] * 4
    assert row.who == Principal(key_id=kept, org=kept, team=kept)
    assert row.detail[:200] == kept
    assert row.count == 1


async def _refused(
    audit: FakeAuditLog, store: FakeKeyStore, context: _Context, key_id: str, error: type[Exception]
) -> None:
    async def use_case(admin: Admin) -> None:
        raise Forbidden(f"not {admin.principal.key_id}")

    record = RecordRefusal(audit, 60, lambda: 0.0, Logger("test"))
    administer = Administer(Authorize(Authenticate(store, lambda: MOMENT)), record, lambda: MOMENT)
    with pytest.raises(error):
        await administer("keys.show", key_id, use_case, context)


@pytest.mark.parametrize(
    ("authorization", "error", "who"),
    [
        (None, KeyMissing, ""),
        ("Bearer nonsense", KeyInvalid, ""),
        (f"Basic {_TOKEN.text}", KeyInvalid, ""),
        (f"Bearer {token_of(2).text}", KeyInvalid, ""),
        (f"Bearer {_TOKEN.text}", Forbidden, _TOKEN.key_id),
    ],
)
async def test_a_refused_call_leaves_a_row(
    authorization: str | None, error: type[Exception], who: str
) -> None:
    """With the key as far as it was recognised, where from, and why; never what was sent."""
    store, audit = FakeKeyStore(), FakeAuditLog()
    await store.add(key_of(_TOKEN))
    await _refused(audit, store, _Context(authorization), _TOKEN.key_id, error)
    (row,) = audit.events
    assert row.who is not None
    assert (row.who.key_id, row.action, row.subject) == (who, "keys.show", _TOKEN.key_id)
    assert (row.address, row.peer) == ("10.1.2.3", "operator")
    assert row.refused != Reason.UNSPECIFIED
    assert _TOKEN.secret not in repr(row)


async def test_a_revoked_administrator_and_a_token_for_an_id_are_told_without_the_secret() -> None:
    """A token sent where an id belongs is no subject."""
    store, audit = FakeKeyStore(), FakeAuditLog()
    await store.add(revoked(key_of(_TOKEN)))
    await _refused(audit, store, _Context(f"Bearer {_TOKEN.text}"), _TOKEN.text, KeyRevoked)
    (row,) = audit.events
    assert (row.refused, row.subject) == (Reason.KEY_REVOKED, "")
    assert _TOKEN.secret not in repr(row)


@pytest.mark.parametrize(
    ("address", "may"),
    [
        ("ipv4:10.1.2.3:4711", True),
        ("ipv6:%5B::ffff:10.1.2.3%5D:4711", True),
        ("ipv4:11.1.2.3:4711", False),
        ("ipv6:[2001:db8::1]:1", False),
        ("unix:", False),
        ("", False),
    ],
)
async def test_an_administrators_key_keeps_to_its_networks(address: str, *, may: bool) -> None:
    """From elsewhere, and from where nobody knows, it is refused."""
    store = FakeKeyStore()
    key = key_of(_TOKEN, scopes=[Scope.ADMIN])
    key.networks = ["10.0.0.0/8"]
    await store.add(key)
    authorize = Authorize(Authenticate(store, lambda: MOMENT))
    context = _Context(f"bearer  {_TOKEN.text} ", address)
    if may:
        assert (await authorize(context)).scopes == {Scope.ADMIN}
    else:
        with pytest.raises(Forbidden):
            await authorize(context)


class _Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


async def test_a_flood_of_refusals_is_counted_and_not_kept() -> None:
    """As many rows as allowed; later rows say how many went before, each kind for itself; none is lost."""
    audit, clock = FakeAuditLog(), _Clock()
    record = RecordRefusal(audit, 6, clock, Logger("test"))
    for _ in range(1_000):
        await record(_event())
    assert len(audit.events) == 6
    await record(_event(Reason.FORBIDDEN))
    clock.now_s += 60
    for reason in (Reason.KEY_INVALID, Reason.FORBIDDEN):
        await record(_event(reason))
    assert [(row.refused, row.count) for row in audit.events[6:]] == [
        (Reason.KEY_INVALID, 995),
        (Reason.FORBIDDEN, 2),
    ]


async def test_a_refusal_while_the_store_is_away_is_counted_later() -> None:
    """The caller is refused all the same."""
    audit = FakeAuditLog()
    record = RecordRefusal(audit, 60, lambda: 0.0, Logger("test"))
    audit.away = True
    await record(_event())
    audit.away = False
    await record(_event())
    assert [row.count for row in audit.events] == [2]


async def test_routers_rows_are_kept_in_bounds() -> None:
    """A time that can be, texts of their length, and a name where several kinds share a row."""
    audit = FakeAuditLog()
    report = ReportRefusals(audit, lambda: MOMENT)
    sent = [
        AuditEvent(refused=Reason.FORBIDDEN, action="/a/B " * 60, detail=_TOKEN.text, count=-5),
        AuditEvent(at=MOMENT + timedelta(days=9), refused=Reason.KEY_INVALID, action="", count=7),
        AuditEvent(at=MOMENT - timedelta(days=9), id=5, refused=Reason.RATE_LIMITED, action="/a/B", count=2**62),
    ]  # fmt: skip
    await report(ReportRefusalsRequest(events=sent))
    assert [row.at for row in audit.events] == [MOMENT, MOMENT, MOMENT - timedelta(days=1)]
    assert [row.count for row in audit.events] == [1, 7, 2**53]
    assert audit.events[0].action == "/a/B " * 40
    assert (audit.events[1].action, audit.events[2].id) == ("*", 3)
    assert _TOKEN.secret not in repr(audit.events)


@pytest.mark.parametrize(
    "events", [[_event()] * 1_001, [_event(), _event(Reason.UNSPECIFIED)]], ids=["too many", "done"]
)
async def test_what_is_no_sample_of_refusals_is_refused_whole(events: list[AuditEvent]) -> None:
    """Too many at once; and a router says of nothing that it was done."""
    audit = FakeAuditLog()
    with pytest.raises(InvalidRequest):
        await ReportRefusals(audit, lambda: MOMENT)(ReportRefusalsRequest(events=events))
    assert audit.events == []


async def test_pages_lead_through_the_audit() -> None:
    """Newest first, each row once, though the reading itself leaves rows."""
    audit = FakeAuditLog()
    await audit.add([_event(subject=str(number)) for number in range(5)])
    show = ListAudit(audit, lambda: MOMENT)
    found: list[str] = []
    page_token = ""
    while True:
        page = await show(ListAuditRequest(page_size=2, page_token=page_token, refused=True), ADMIN)
        found += [row.subject for row in page.events]
        page_token = page.next_page_token
        if not page_token:
            break
    assert found == ["4", "3", "2", "1", "0"]
    assert [row.action for row in audit.events[5:]] == ["audit.list"] * 3


async def test_the_audit_is_for_administrators_of_everything() -> None:
    """keys:write does not see it; nonsense for a page is named."""
    show = ListAudit(FakeAuditLog(), lambda: MOMENT)
    with pytest.raises(Forbidden):
        await show(ListAuditRequest(), writer(Scope.USAGE_READ))
    for request, param in (
        (ListAuditRequest(page_token="a2V5OjE6YQ=="), "page_token"),
        (ListAuditRequest(page_size=1001), "page_size"),
    ):
        with pytest.raises(InvalidRequest) as refused:
            await show(request, ADMIN)
        assert refused.value.param == param


async def test_old_rows_end() -> None:
    """Those older than the keeping, all of them; a store that is away ends nothing and not the job."""
    audit = FakeAuditLog()
    for days in (3, 2, 1):
        await audit.add([AuditEvent(at=MOMENT - timedelta(days=days), who=Principal(), action="a")])
    prune = Prune(
        "audit", audit, lambda: MOMENT, Logger("test"), keep=timedelta(days=2), interval=timedelta()
    )
    assert await prune.once() == 1
    audit.away = True
    with pytest.raises(UpstreamError):
        await prune.once()
    job = asyncio.create_task(prune.forever())
    await asyncio.sleep(0)
    audit.away = False
    await audit.add([AuditEvent(at=MOMENT - timedelta(days=9), who=Principal(), action="a")])
    async with asyncio.timeout(5):
        while len(audit.events) > 2:  # noqa: ASYNC110 - the job signals nobody
            await asyncio.sleep(0)
    assert not job.done()
    job.cancel()
