"""Transports of a running Weir that take long to prove: renewed certificates, and sockets of this user alone."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime

import openai
import pytest
from cryptography import x509

from meshkit.identity import SERVICES
from tests.harness.cloud_weir import CHUNKS, MESSAGES, ask, ended, started
from tests.harness.running_weir import Provider, RunningWeir, running_provider, wait_for

SHORT_LIFE_H = 0.01
NOBODY = 65_534


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    """The cloud."""
    with running_provider() as running_one:
        yield running_one


def serial_of(weir: RunningWeir, service: str) -> int:
    """Of the certificate that lies there now."""
    pem = (weir.home / "tls" / service / "tls.crt").read_bytes()
    return x509.load_pem_x509_certificate(pem).serial_number


def ends_of(weir: RunningWeir) -> datetime:
    """When the router's present certificate ends."""
    pem = (weir.home / "tls" / "router" / "tls.crt").read_bytes()
    return x509.load_pem_x509_certificate(pem).not_valid_after_utc


class Load(threading.Thread):
    """Asks without a pause until told; or, for a stream, once."""

    def __init__(self, weir: RunningWeir, *, stream: bool) -> None:
        super().__init__(daemon=True)
        self._client = openai.OpenAI(base_url=weir.base_url, api_key=weir.key, max_retries=0, timeout=60)
        self._stream = stream
        self.done = threading.Event()
        self.answers = 0
        self.failures: list[str] = []

    def run(self) -> None:
        """Every failure counts."""
        while not self.done.is_set():
            try:
                self._ask()
            except openai.OpenAIError as error:
                self.failures.append(repr(error))

    def _ask(self) -> None:
        if not self._stream:
            self._client.chat.completions.create(model="cloud", messages=MESSAGES)
            self.answers += 1
            return
        for chunk in self._client.chat.completions.create(model="long", messages=MESSAGES, stream=True):
            self.answers += bool(chunk.choices and chunk.choices[0].delta.content)
        self.done.set()


def restarted(weir: RunningWeir, part: str) -> None:
    """Kills a part and returns when all are healthy again."""
    before = weir.kill(part)
    wait_for(f"a new {part}", lambda: weir.pids().get(part, before) != before)
    wait_for("healthy parts", lambda: set(weir.states().values()) == {"healthy"})


def test_renewal_in_a_running_mesh(provider: Provider) -> None:
    """Certificates of half a minute are renewed under load: no request fails, and a stream outlives the first ones.

    When these have ended, new connections stand at once, of the edge too: everybody has newer certificates.
    """
    weir = started(provider, mtls={"leaf_h": SHORT_LIFE_H})
    try:
        first, first_ends = {service: serial_of(weir, service) for service in SERVICES}, ends_of(weir)
        loads = [Load(weir, stream=stream) for stream in (False, True)]
        for load in loads:
            load.start()
        wait_for("the first ones to end", lambda: datetime.now(UTC) > first_ends, 45)
        loads[1].join(60)
        loads[0].done.set()
        loads[0].join(60)
        assert [load.failures for load in loads] == [[], []]
        assert (loads[0].answers > 20, loads[1].answers) == (True, CHUNKS)
        assert not set(first.values()) & {serial_of(weir, service) for service in SERVICES}
        assert weir.output.count("certificates renewed: ") >= 1
        for part in ("cloud_adapter", "auth", "router-0", "router-1"):
            restarted(weir, part)
        for number in range(4):
            ask(weir, f"after-{number}")
        assert weir.run("usage").returncode == 0
    finally:
        ended(weir)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_sockets_are_this_user_s_alone(provider: Provider) -> None:
    """Over transport uds another user of the machine cannot open one; PostgreSQL's user still reaches its own."""
    weir = started(provider, transport="uds")
    try:
        ask(weir, "uds-1")
        assert weir.entry("uds-1")["outcome"] == "ok"
        paths = sorted((weir.home / "run" / "mesh").glob("*.sock"))
        assert [path.name for path in paths] == [
            "auth-0.sock", "cloud_adapter-0.sock", "ledger-0.sock", "router-0.sock", "router-1.sock",
        ]  # fmt: skip
        os.seteuid(NOBODY)
        try:
            for path in paths:
                with socket.socket(socket.AF_UNIX) as plug, pytest.raises(PermissionError):
                    plug.connect(str(path))
        finally:
            os.seteuid(0)
    finally:
        ended(weir)
