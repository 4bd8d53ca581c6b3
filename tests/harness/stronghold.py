"""A Weir with every kind of caller: keys of each scope, tokens of an issuer, and what attackers would try."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psycopg

from tests.fakes.oidc import AUDIENCE, ISSUER, FakeIssuer, part
from tests.harness.running_weir import (
    Provider,
    RunningWeir,
    free_configuration,
    running_provider,
)
from weirctl.__main__ import main
from weirctl.postgres_prepare import SUPERUSER
from weirctl.postgres_server import DATABASE

PROVIDER_SECRET = "sk-fake-secret-of-the-stronghold"
MODEL, VECTORS, PRIVATE = "chatty", "vectors", "private"
"""Models of every key, for text and for embeddings; and one that only some keys may ask for."""


@dataclass
class Stronghold:
    """What a security test holds."""

    weir: RunningWeir
    provider: Provider
    issuer: FakeIssuer

    def create_key(self, *arguments: str, org: str = "acme", team: str = "search") -> str:
        """A new key's token, once every router knows it."""
        return self.administer("keys", "create", "--org", org, "--team", team, *arguments).strip()

    def revoke(self, token: str) -> None:
        """Ends a key; returns when Auth has said so, and not later."""
        self.administer("keys", "revoke", "--yes", token.split("_")[1])

    def administer(self, *arguments: str) -> str:
        """What a `weir` command on this mesh prints. Run inside this process: another one takes a second to start."""
        out, errors, home = io.StringIO(), io.StringIO(), {"WEIR_HOME": str(self.weir.home)}
        with patch.dict(os.environ, home), redirect_stdout(out), redirect_stderr(errors):
            status = main(arguments)
        assert status == 0, errors.getvalue()
        return out.getvalue()

    def expire(self, token: str) -> None:
        """Ends a key's time, by hand, as no RPC can."""
        self.alter("UPDATE auth.key SET expires_at = now() - interval '1 second' WHERE id = %s", token)

    def alter(self, statement: str, token: str) -> None:
        """Changes the row of a key, by hand."""
        with self.database() as connection:
            connection.execute(statement.encode(), (token.split("_")[1],))

    def database(self) -> psycopg.Connection[tuple[Any, ...]]:
        """A connection as PostgreSQL's own superuser; leaving its context commits and closes it."""
        dsn = psycopg.conninfo.make_conninfo(
            host=str(self.weir.home.resolve() / "run" / "postgres"), user=SUPERUSER, dbname=DATABASE
        )
        return psycopg.connect(dsn)

    def jwt(self, alg: str = "ES256", **changes: Any) -> str:
        """A token of the issuer, good now but for the changes."""
        header = changes.pop("header", None)
        claims = {"iat": int(time.time()), "nbf": int(time.time()), "exp": int(time.time()) + 300, **changes}
        return self.issuer.token(alg, header=header, **claims)

    def unsigned(self) -> str:
        """A token that says of itself that it needs no signature."""
        claims = {**self.issuer.claims(), "exp": int(time.time()) + 300, "iat": int(time.time())}
        return f"{part({'alg': 'none', 'typ': 'JWT', 'kid': 'es256'})}.{part(claims)}."

    def asked_since(self, count: int) -> list[dict[str, Any]]:
        """What the provider was asked after its first `count` requests."""
        return self.provider.log()[count:]


def document(provider: Provider, jwks: Path, topology: str, flood_answers_per_s: float) -> dict[str, Any]:
    """Of weir.yaml: cloud targets alone, two workers, one issuer."""
    targets: dict[str, Any] = {
        name: {"kind": "cloud", "provider": "fake", "model": "instant"} for name in (MODEL, PRIVATE)
    }
    targets[VECTORS] = {"kind": "cloud", "task": "embed", "provider": "fake", "model": "vectors"}
    issuer = {
        "issuer": ISSUER,
        "audiences": [AUDIENCE],
        "jwks_file": str(jwks),
        "org": {"claim": "org"},
        "team": "search",
        "scopes": {
            "claim": "realm_access.roles",
            "map": {"weir-users": ["chat", "embed"], "weir-readers": ["usage:read"]},
        },
    }
    return free_configuration(
        topology=topology,
        workers=2,
        providers={"fake": {"base_url": provider.base_url, "api_key_env": "FAKE_API_KEY"}},
        targets=targets,
        default_model=MODEL,
        auth={"issuers": {"work": issuer}},
        router={"identity": {"flood_answers_per_s": flood_answers_per_s, "report_s": 1}},
        # Tests that send a byte at a time see the end of it sooner.
        edge={"request_headers_s": 2, "request_s": 5},
    )


@contextmanager
def running_stronghold(
    topology: str = "separate", *, flood_answers_per_s: float = 50.0
) -> Iterator[Stronghold]:
    """Starts and stops it."""
    home = Path(tempfile.mkdtemp(prefix="weir-security-"))
    home.chmod(0o711)
    issuer = FakeIssuer()
    jwks = home / "jwks.json"
    jwks.write_bytes(issuer.text())
    with running_provider() as provider:
        weir = RunningWeir(
            home,
            document(provider, jwks, topology, flood_answers_per_s),
            environment={"FAKE_API_KEY": PROVIDER_SECRET},
        )
        weir.start()
        try:
            yield Stronghold(weir, provider, issuer)
        finally:
            weir.stop()
            shutil.rmtree(home)
