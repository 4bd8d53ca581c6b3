"""One running Weir per topology for all mesh tests that share one."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.running_weir import (
    Provider,
    RunningWeir,
    free_configuration,
    running_provider,
)

TOPOLOGIES = ("separate", "compact")
PATIENT = {"first_token_s": 20, "inter_token_s": 20}
LIMITS = {"connect_s": 1, "first_token_s": 2, "inter_token_s": 2, "total_s": 60}


@pytest.fixture(scope="session")
def provider() -> Iterator[Provider]:
    """The provider that misbehaves on purpose, for the whole session."""
    with running_provider() as running:
        yield running


def cloud(model: str) -> dict[str, object]:
    """A target whose provider does what the model's name says."""
    return {"kind": "cloud", "provider": "fake", "model": model, "limits": LIMITS}


def configuration(provider: Provider, topology: str) -> dict[str, object]:
    """Targets for each kind of trouble, and models that begin with them."""
    return free_configuration(
        topology=topology,
        workers=2,
        drain_s=10,
        router={"probe_s": 3},  # also how long a probe may take: the machine is busy
        providers={"fake": {"base_url": provider.base_url, "api_key_env": "FAKE_API_KEY"}},
        targets={
            "local": {"kind": "triton", "default_max_output_tokens": 24, "limits": PATIENT},
            "hasty": {"kind": "triton", "limits": LIMITS},
            "refused": {"kind": "triton", "endpoint": "127.0.0.1:1", "limits": LIMITS},
            "cloud": cloud("gpt-4o-mini"),
            "silent": cloud("silent"),
            "cut": cloud("cut:after=3"),
            "down": cloud("status:code=503"),
            "stalled": cloud("stall:after=3"),
        },
        models={
            "gpt-4": {"plan": ["local", "cloud"]},
            "auto": {"policy": "auto", "plan": ["cloud", "local"]},
            "hasty-first": {"plan": ["hasty", "cloud"]},
            "refused-first": {"plan": ["refused", "cloud"]},
            "silent-first": {"plan": ["silent", "cloud"]},
            "down-first": {"plan": ["down", "local"]},
        },
        default_model="gpt-4",
    )  # fmt: skip


@pytest.fixture(scope="session", params=TOPOLOGIES)
def weir(request: pytest.FixtureRequest, provider: Provider) -> Iterator[RunningWeir]:
    """A Weir with two router workers, real Triton, PostgreSQL and Envoy; one per topology."""
    home = Path(tempfile.mkdtemp(prefix="weir-mesh-"))
    home.chmod(0o711)
    running = RunningWeir(
        home, configuration(provider, request.param), environment={"FAKE_API_KEY": "sk-fake-secret"}
    )
    running.start()
    running.await_local()
    yield running
    running.stop()
    shutil.rmtree(home)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of one topology share one Weir, so they go to one pytest worker."""
    for item in items:
        callspec = getattr(item, "callspec", None)
        if callspec is not None and "weir" in callspec.params:
            item.add_marker(pytest.mark.xdist_group(f"weir-{callspec.params['weir']}"))
