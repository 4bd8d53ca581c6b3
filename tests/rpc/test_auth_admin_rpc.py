"""Administration over the wire: real Auth over PostgreSQL, and the audit that it leaves."""

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from prometheus_client import CollectorRegistry

from gen.rpc import Metadata
from gen.weir.auth.v1 import (
    AuditEvent,
    CreateKeyRequest,
    GetKeyRequest,
    ListAuditRequest,
    ListKeysRequest,
    ReportRefusalsRequest,
    RevokeKeyRequest,
    RotateKeyRequest,
    Scope,
    SetKeySamplingRequest,
)
from gen.weir.auth.v1.service import AuthClient
from gen.weir.error.v1 import Reason
from meshkit.errors import Forbidden, InvalidRequest, KeyInvalid, KeyMissing, KeyRevoked
from meshkit.inprocess import InProcessTransport
from meshkit.telemetry import Logger
from meshkit.tokens import parse
from services.auth.bootstrap import build
from services.auth.settings import AuthSettings
from tests.fakes.auth import token_of


@dataclass
class _Auth:
    client: AuthClient
    router: AuthClient
    admin: str
    log: Path
    dsn: str

    async def dump(self) -> str:
        """The whole audit as text."""
        async with await psycopg.AsyncConnection.connect(self.dsn) as connection:
            rows = await (await connection.execute("SELECT a::text FROM auth.audit a")).fetchall()
        return str(rows)


def _bearer(token: str) -> Metadata:
    return (("authorization", f"Bearer {token}"),)


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="weir-admin-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
async def auth(postgres_dsn: str, folder: Path) -> AsyncIterator[_Auth]:
    async with AsyncExitStack() as exits:
        descriptor = os.open(folder / "log", os.O_CREAT | os.O_WRONLY)
        exits.callback(os.close, descriptor)
        log = Logger("auth", descriptor)
        service = build(AuthSettings(postgres_dsn=postgres_dsn, home=folder), CollectorRegistry(), log)
        exits.push_async_callback(service.stop)
        await service.start()
        admin = (folder / "admin-key").read_text().strip()
        operator, router = (
            AuthClient(InProcessTransport(service.servicer, log, caller)) for caller in ("operator", "router")
        )
        yield _Auth(operator, router, admin, folder / "log", postgres_dsn)


async def test_everything_done_and_refused_is_in_the_audit_and_no_secret(auth: _Auth) -> None:
    """One row each, in their order; neither tokens nor digests in any of them, nor in the log."""
    admin = _bearer(auth.admin)
    made = await auth.client.create_key(
        CreateKeyRequest(org="acme", team="search", label="ci", scopes=[Scope.KEYS_WRITE]), metadata=admin
    )
    assert made.key is not None
    key_id = made.key.id
    await auth.client.list_keys(ListKeysRequest(), metadata=admin)
    await auth.client.get_key(GetKeyRequest(key_id=key_id), metadata=admin)
    rotation = RotateKeyRequest(key_id=key_id, overlap=timedelta(minutes=5))
    rotated = await auth.client.rotate_key(rotation, metadata=admin)
    # Both secrets administer while the rotation overlaps.
    for token in (made.token, rotated.token):
        listed = await auth.client.list_keys(ListKeysRequest(), metadata=_bearer(token))
        assert [key.id for key in listed.keys] == [key_id]
    with pytest.raises(Forbidden):
        await auth.client.list_audit(ListAuditRequest(), metadata=_bearer(made.token))
    await auth.client.set_key_sampling(SetKeySamplingRequest(key_id=key_id, share=0.5), metadata=admin)
    await auth.client.revoke_key(RevokeKeyRequest(key_id=key_id), metadata=admin)
    with pytest.raises(KeyRevoked):
        await auth.client.list_keys(ListKeysRequest(), metadata=_bearer(rotated.token))
    with pytest.raises(InvalidRequest):
        await auth.client.get_key(GetKeyRequest(key_id=rotated.token), metadata=admin)
    with pytest.raises(KeyMissing):
        await auth.client.list_keys(ListKeysRequest())
    with pytest.raises(KeyInvalid):
        await auth.client.list_keys(ListKeysRequest(), metadata=_bearer(token_of(3).text))
    report = AuditEvent(action=f"/x/{made.token}", refused=Reason.KEY_INVALID, detail=made.token)
    await auth.router.report_refusals(ReportRefusalsRequest(events=[report]))

    rows = list((await auth.client.list_audit(ListAuditRequest(), metadata=admin)).events)[::-1]
    assert [(row.action, row.refused) for row in rows[:-1]] == [
        ("keys.create", 0), ("keys.create", 0), ("keys.list", 0), ("keys.show", 0), ("keys.rotate", 0),
        ("keys.list", 0), ("keys.list", 0), ("audit.list", Reason.FORBIDDEN), ("keys.sample", 0),
        ("keys.revoke", 0), ("keys.list", Reason.KEY_REVOKED), ("keys.show", Reason.INVALID_REQUEST),
        ("keys.list", Reason.KEY_MISSING), ("keys.list", Reason.KEY_INVALID),
    ]  # fmt: skip
    assert {row.peer for row in rows[1:-1]} == {"operator"}
    everything = await auth.dump() + auth.log.read_text()
    assert "keys.rotate" in everything
    for text in (auth.admin, made.token, rotated.token, token_of(3).text):
        secret = parse(text)
        assert secret.secret not in everything
        assert secret.secret_sha256.hex() not in everything


async def test_a_second_start_keeps_the_admin_key(auth: _Auth, postgres_dsn: str, folder: Path) -> None:
    """Another process over the same store and folder makes none, and the key goes on."""
    log = Logger("auth", os.open(os.devnull, os.O_WRONLY))
    second = build(AuthSettings(postgres_dsn=postgres_dsn, home=folder), CollectorRegistry(), log)
    try:
        await second.start()
        assert (folder / "admin-key").read_text().strip() == auth.admin
        keys = (await auth.client.list_keys(ListKeysRequest(), metadata=_bearer(auth.admin))).keys
        assert [key.id for key in keys] == [parse(auth.admin).key_id]
    finally:
        await second.stop()
