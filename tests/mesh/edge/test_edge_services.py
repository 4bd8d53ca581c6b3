"""Other services behind the gateway: who gets through to them, with what, and what everybody else is told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
import pytest_asyncio
from psycopg import sql

from gen.weir.error.v1 import Reason
from meshkit.tokens import mint
from tests.fakes.auth import token_of
from tests.mesh.edge.guarded import Guarded, guarded
from tests.mesh.edge.rig import LIMIT_S, until
from weirctl import postgres_server as postgres

pytestmark = pytest.mark.asyncio(loop_scope="module")

FORGED = {
    "x_weir_key_id": "forged", "x_weir_org": "forged", "x_weir_team": "forged", "x_weir_scopes": "forged",
    "x_weir_principal": "forged", "x_envoy_external_address": "203.0.113.9", "x_forwarded_for": "203.0.113.9",
}  # fmt: skip


@asynccontextmanager
async def database(server: postgres.PostgresFiles) -> AsyncIterator[str]:
    """The DSN of a fresh database."""
    name = f"test_{uuid4().hex}"
    async with await psycopg.AsyncConnection.connect(postgres.dsn(server), autocommit=True) as connection:
        await connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        yield postgres.dsn(server, name)
        await connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(
    postgres_server: postgres.PostgresFiles, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Guarded]:
    """One for the module."""
    folder = tmp_path_factory.mktemp("guarded")
    async with database(postgres_server) as dsn, guarded(folder, dsn) as found:
        yield found


@pytest.fixture
def mesh(running: Guarded) -> Guarded:
    """The same, with nothing seen yet."""
    running.docs.forget()
    running.open.forget()
    running.script.reset()
    return running


async def test_a_good_key_passes_and_is_told_upstream(mesh: Guarded) -> None:
    """The service sees who asks, never the key, and nothing of what the client says of itself."""
    token = await mesh.keys.make(scopes="{usage:read,chat}", org="żółw & Söhne")
    answer = await mesh.get("/docs/page?x=1", token, **FORGED)
    assert (answer.status, answer.body) == (200, b"ok")
    seen = mesh.docs
    assert seen.lines[0] == "get /docs/page?x=1 http/1.1"
    assert seen.header("x-weir-key-id") == [token.split("_")[1]]
    assert seen.header("x-weir-org") == ["%c5%bc%c3%b3%c5%82w & s%c3%b6hne"]
    assert seen.header("x-weir-team") == ["search"]
    assert seen.header("x-weir-scopes") == ["chat,usage:read"]
    assert seen.header("authorization") == []
    assert token.encode() not in seen.received
    assert b"forged" not in seen.received
    assert b"203.0.113.9" not in seen.received


async def test_a_service_may_see_the_key_and_not_its_prefix(mesh: Guarded) -> None:
    """As its settings say."""
    token = await mesh.keys.make(scopes="{chat}")
    assert (await mesh.get("/open/page", token)).status == 200
    assert mesh.open.lines[0] == "get /page http/1.1"
    assert mesh.open.header("authorization") == [f"bearer {token}".lower()]


async def test_a_body_goes_through_without_auth_seeing_it(mesh: Guarded) -> None:
    """Of any length, larger than the limit of the gateway's own bodies."""
    token = await mesh.keys.make()
    body = b"x" * 21_000_000
    answer = await mesh.edge.ask("POST", "/docs/", body, {"authorization": f"Bearer {token}"})
    assert answer.status == 200
    assert len(mesh.docs.received) > len(body)


@pytest.mark.parametrize(
    ("columns", "status", "code", "said"),
    [
        ({"expires_at": "2021-01-01Z"}, 401, "invalid_api_key", "expired"),
        ({"revoked_at": "2021-01-01Z"}, 401, "invalid_api_key", "revoked"),
        ({"scopes": "{chat,embed}"}, 403, "insufficient_permissions", "usage:read"),
        ({"networks": "{10.0.0.0/8}"}, 403, "insufficient_permissions", "address"),
    ],
)
async def test_keys_that_do_not_pass(
    mesh: Guarded, columns: dict[str, str], status: int, code: str, said: str
) -> None:
    """OpenAI's error object says why, and nothing reaches the service."""
    token = await mesh.keys.make(**columns)
    answer = await mesh.get("/docs/", token, x_request_id="mine")
    assert (answer.status, answer.error["code"]) == (status, code)
    assert said in answer.error["message"]
    assert answer.headers["x-request-id"] == "mine"
    assert not mesh.docs.received


@pytest.mark.parametrize("columns", [{"scopes": "{admin}"}, {"networks": "{10.0.0.0/8,127.0.0.0/8}"}])
async def test_keys_that_pass(mesh: Guarded, columns: dict[str, str]) -> None:
    """An administrator's, and one from an allowed network."""
    assert (await mesh.get("/docs/", await mesh.keys.make(**columns))).status == 200


async def test_an_address_cannot_be_claimed(mesh: Guarded) -> None:
    """A key for another network stays out, whatever address the client says is its own."""
    token = await mesh.keys.make(networks="{203.0.113.0/24}")
    assert (await mesh.get("/docs/", token, **FORGED)).status == 403
    assert not mesh.docs.received


async def test_refusals_are_in_the_audit(mesh: Guarded) -> None:
    """Who was recognised, which service, from where and why; nobody waits for the row."""
    token = await mesh.keys.make(scopes="{chat}")
    key_id = token.split("_")[1]
    assert (await mesh.get("/docs/", token)).status == 403
    query = "SELECT action, subject, address, refused FROM auth.audit WHERE key_id = %s"
    async with await psycopg.AsyncConnection.connect(mesh.keys.dsn, autocommit=True) as connection:

        async def rows() -> list[tuple[object, ...]]:
            return await (await connection.execute(query, (key_id,))).fetchall()

        async def there() -> bool:
            return bool(await rows())

        await until(there)
        assert await rows() == [("services.check", "docs", "127.0.0.1", int(Reason.FORBIDDEN))]


@pytest.mark.parametrize(
    ("authorization", "challenge"),
    [
        (None, 'Bearer realm="weir"'),
        ("Bearer", 'Bearer realm="weir"'),
        ("Basic dXNlcjpwYXNz", 'Bearer realm="weir", error="invalid_token"'),
        ("Bearer weir_nothing", 'Bearer realm="weir", error="invalid_token"'),
        (f"Bearer {mint(bytes).text}", 'Bearer realm="weir", error="invalid_token"'),
        ("Bearer eyJhbGciOiJub25lIn0.e30.", 'Bearer realm="weir", error="invalid_token"'),
    ],
)
async def test_no_key_and_bad_keys(mesh: Guarded, authorization: str | None, challenge: str) -> None:
    """401 with a challenge; an unknown key is looked up and told the same."""
    headers = {} if authorization is None else {"authorization": authorization}
    answer = await mesh.get("/docs/", **headers)
    assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")
    assert answer.headers["www-authenticate"] == challenge
    assert not mesh.docs.received


async def test_a_grpc_client_gets_a_status(mesh: Guarded) -> None:
    """The same in its own terms."""
    answer = await mesh.edge.ask("POST", "/docs/a.B/C", b"", {"content-type": "application/grpc"})
    assert (answer.status, answer.headers["grpc-status"]) == (200, "16")
    assert answer.headers["grpc-message"].startswith("no key was sent")
    assert not mesh.docs.received


async def test_the_gateways_own_routes_are_the_routers(mesh: Guarded) -> None:
    """The router sees the key and checks it itself; what is nowhere stays nowhere."""
    answer = await mesh.edge.chat(b"{}", authorization="Bearer k")
    assert answer.status == 200
    assert mesh.script.seen[-1]["authorization"] == "Bearer k"
    assert (await mesh.get("/nowhere")).status == 404
    assert (await mesh.get("/docs")).status == 404


async def test_a_revoked_key_is_refused_within_a_second(mesh: Guarded) -> None:
    """From the commit on, though the key was used a moment before."""
    token = await mesh.keys.make()
    assert (await mesh.get("/docs/", token)).status == 200
    await mesh.keys.revoke(token)
    begun = time.monotonic()
    while (await mesh.get("/docs/", token)).status == 200:
        assert time.monotonic() - begun < 3.0  # milliseconds, on a machine that is not busy
    assert (await mesh.get("/docs/", token)).status == 401


async def test_a_flood_of_unknown_keys_does_not_reach_the_store(mesh: Guarded) -> None:
    """Beyond the allowance they are told to wait; a good key passes meanwhile."""
    good = await mesh.keys.make()
    assert (await mesh.get("/docs/", good)).status == 200
    bad = [token_of(number).text for number in range(1_000, 1_200)]
    answers = await asyncio.gather(*(mesh.get("/docs/", token) for token in bad))
    assert {answer.status for answer in answers} == {401, 429}
    refused = next(answer for answer in answers if answer.status == 429)
    assert (refused.error["code"], refused.headers["retry-after"]) == ("rate_limit_exceeded", "1")
    assert (await mesh.get("/docs/", good)).status == 200


async def test_behind_a_proxy_of_ones_own_the_client_counts(
    postgres_server: postgres.PostgresFiles, tmp_path: Path
) -> None:
    """With `trusted_hops: 1` the network of a key is that of the client, as the proxy tells it."""
    async with database(postgres_server) as dsn, guarded(tmp_path, dsn, trusted_hops=1) as mesh:
        token = await mesh.keys.make(networks="{203.0.113.0/24}")
        async with asyncio.timeout(LIMIT_S):
            while (await mesh.get("/docs/", token, x_forwarded_for="203.0.113.9")).status != 200:
                pass
        assert (await mesh.get("/docs/", token, x_forwarded_for="198.51.100.1")).status == 403
        assert (await mesh.get("/docs/", token, x_forwarded_for="203.0.113.9, 198.51.100.1")).status == 403
        assert (await mesh.get("/docs/", token)).status == 403


async def test_without_auth_nothing_passes(postgres_server: postgres.PostgresFiles, tmp_path: Path) -> None:
    """A good key gets 503 while Auth is dead, at once, and passes when it is back."""
    async with database(postgres_server) as dsn, guarded(tmp_path, dsn) as mesh:
        token = await mesh.keys.make()
        assert (await mesh.get("/docs/", token)).status == 200
        mesh.docs.forget()
        await mesh.auth.kill()
        answer = await mesh.get("/docs/", token)
        assert (answer.status, answer.error["code"]) == (503, "no_healthy_target")
        assert answer.headers["retry-after"] == "1"
        assert (await mesh.get("/docs/")).status == 503
        assert not mesh.docs.received
        await mesh.auth.start()
        assert (await mesh.get("/docs/", token)).status == 200
