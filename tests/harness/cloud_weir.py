"""A whole Weir that asks the cloud alone: small enough to start one per transport."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import openai

from tests.harness.running_weir import Provider, RunningWeir, free_configuration

MESSAGES: Any = [{"role": "user", "content": "Say hello."}]
CHUNKS = 80
"""Of the model `long`, half a second each: a stream that outlives a certificate of a hundredth of an hour."""


def started(provider: Provider, **more: Any) -> RunningWeir:
    """A Weir with two workers and the cloud alone."""
    home = Path(tempfile.mkdtemp(prefix="weir-who-"))
    home.chmod(0o711)
    document = free_configuration(
        workers=2, drain_s=5, default_model="cloud",
        providers={"fake": {"base_url": provider.base_url, "api_key_env": "FAKE_API_KEY"}},
        targets={
            "cloud": {"kind": "cloud", "provider": "fake", "model": "gpt-4o-mini"},
            "long": {"kind": "cloud", "provider": "fake", "model": f"instant:chunks={CHUNKS},gap_ms=500"},
        },
        **more,
    )  # fmt: skip
    weir = RunningWeir(home, document, environment={"FAKE_API_KEY": "sk-fake"})
    weir.start()
    return weir


def ended(weir: RunningWeir) -> None:
    """Stops it and removes what it kept."""
    status = weir.stop()
    shutil.rmtree(weir.home)
    assert status == 0


def ask(weir: RunningWeir, request_id: str) -> None:
    """One answer through the edge."""
    client = openai.OpenAI(base_url=weir.base_url, api_key=weir.key, max_retries=0, timeout=30)
    answer = client.chat.completions.create(
        model="cloud", messages=MESSAGES, extra_headers={"x-request-id": request_id}
    )
    assert answer.choices[0].message.content
