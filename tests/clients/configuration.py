"""The Weir that clients are tested with."""

from __future__ import annotations

from typing import Any

from tests.clients.polite_provider import PoliteProvider
from tests.harness.running_weir import free_configuration

PAGE = "https://app.example.com"
"""The origin of the web page that may call."""
_PATIENT = {"first_token_s": 20, "inter_token_s": 20, "total_s": 60}
_ONCE = {"attempts": 1, "error_attempts": 1}
_NEVER = {"failures": 1_000}


def configuration(provider: PoliteProvider) -> dict[str, Any]:
    """Local and cloud targets for chat and vectors, and models with a fault each."""
    return free_configuration(
        providers={"polite": {"base_url": provider.base_url, "api_key_env": "POLITE_API_KEY"}},
        targets={
            "local": {"kind": "triton", "default_max_output_tokens": 24, "limits": _PATIENT},
            "local-embed": {"kind": "triton", "task": "embed", "model": "minilm", "limits": _PATIENT},
            "cloud": _cloud("gpt-4.1-mini", capabilities={"responses": True, "context_window": 1_000_000}),
            "chat-only": _cloud("gpt-4.1-nano"),
            "cloud-embed": _cloud("text-embedding-3-small", task="embed"),
            **{name: _cloud(name) for name in ("limited", "bad-param", "down", "slow", "trickle")},
        },
        models={
            "gpt-4": {"plan": ["cloud"]},
            "org/model:tag": {"plan": ["cloud"]},
            "text-embedding-3-small": {"plan": ["cloud-embed"]},
        },
        default_model="gpt-4",
        edge={"cors": {"origins": [PAGE]}},
    )


def _cloud(model: str, **settings: object) -> dict[str, object]:
    """A target at the polite provider. Failures of one test are none of the next one's business."""
    return {
        "kind": "cloud", "provider": "polite", "model": model, "limits": _PATIENT, "retry": _ONCE, "breaker": _NEVER,
        **settings,
    }  # fmt: skip
