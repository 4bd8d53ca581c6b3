"""Limits of requests and tokens as weir.yaml says them: the key `auth.limits`, read by Auth and by the router."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field, StringConstraints

from meshkit.settings import Strict

Most = Annotated[int, Field(ge=1, le=10**12)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=256)]


class LimitSettings(Strict):
    """How much somebody may do; absent means without limit."""

    requests_per_minute: Most | None = None
    """Requests within any 60 seconds."""
    tokens_per_minute: Most | None = None
    """Tokens, of prompts and answers, within any 60 seconds."""
    concurrent_requests: Most | None = None
    """Requests at the same time."""
    context_tokens: Most | None = None
    """Tokens of one request: its prompt and the answer that it asks for."""


class LimitsBlock(Strict):
    """The key `auth.limits`. A key's own limits are kept with the key; all that apply to a request hold together."""

    keys: LimitSettings = LimitSettings()
    """For each key that has no limits of its own."""
    orgs: dict[Name, LimitSettings] = Field(default_factory=dict)
    """By the org's name; `*` for each of the others."""
    teams: dict[Name, LimitSettings] = Field(default_factory=dict)
    """By `<org>/<team>`; `*` for each of the others."""
    models: dict[Name, LimitSettings] = Field(default_factory=dict)
    """By the model's name, over all keys; `*` for each of the others. A request counts for the model whose target is
    asked first, which may be one of its fallbacks."""


class AuthLimits(Strict):
    """The key `auth` as a service other than Auth reads it; its other keys are Auth's to check."""

    model_config = ConfigDict(extra="ignore")

    limits: LimitsBlock = LimitsBlock()
