"""Every knob of the cloud adapter: the `providers` and `cloud_adapter` blocks of weir.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from meshkit.settings import MeshSettings, Strict

_MIB = 1024 * 1024
_MOST_ANSWER_BYTES = 31 * _MIB  # an answer travels in one gRPC message, of which 32 MiB are allowed

Seconds = Annotated[float, Field(gt=0, le=3_600)]
ProviderName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]


class ProviderSettings(Strict):
    """One provider. At most one of api_key_file and api_key_env."""

    family: Literal["openai_compatible"] = "openai_compatible"
    """Which room of the adapter speaks to it."""
    base_url: str
    """http(s) URL up to and with the version, such as https://api.openai.com/v1; without credentials."""
    api_key_file: Path | None = None
    """File that holds the secret and nothing else; relative to the folder the process starts in."""
    api_key_env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    """Environment variable that holds the secret; only the adapter's process needs it."""
    organization: str | None = None
    """Sent as OpenAI-Organization."""
    project: str | None = None
    """Sent as OpenAI-Project."""
    sandbox: bool = False
    """A stand-in on loopback, marked as such wherever it answers; needs no secret."""
    connect_timeout_s: Seconds = 2.0
    """Seconds for a free connection, DNS, TCP and TLS together; a request may set its own."""
    max_answer_bytes: Annotated[int, Field(ge=1_024, le=_MOST_ANSWER_BYTES)] = 20 * _MIB
    """Bytes of an answer that is no stream; a larger one is an upstream error."""
    max_event_bytes: Annotated[int, Field(ge=1_024, le=_MOST_ANSWER_BYTES)] = 4 * _MIB
    """Bytes of one event of a stream; a larger one is an upstream error."""
    pool_size: Annotated[int, Field(ge=1, le=10_000)] = 512
    """Most connections at once, hence most requests at once: HTTP/1.1 carries one each."""
    keepalive_s: Annotated[float, Field(ge=0, le=3_600)] = 15.0
    """Seconds that an idle connection is kept; 0 makes one for each request. Below the provider's own limit, else
    requests meet closed ones."""
    ca_file: Path | None = None
    """PEM file of the certificate authorities to trust in place of the system's."""
    proxy_from_environment: bool = False
    """Honour HTTPS_PROXY and its kin; otherwise the environment has no say in where requests go."""

    @field_validator("base_url")
    @classmethod
    def _plain_url(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("must be an http or https URL")
        if parts.username is not None or parts.password is not None:
            raise ValueError("must hold no credentials: use api_key_file or api_key_env")
        if parts.query or parts.fragment:
            raise ValueError("must hold no query and no fragment")
        return url.rstrip("/")

    @model_validator(mode="after")
    def _consistent(self) -> ProviderSettings:
        if self.api_key_file is not None and self.api_key_env is not None:
            raise ValueError("set api_key_file or api_key_env, not both")
        if self.sandbox and not self.on_loopback:
            raise ValueError("sandbox: true is for providers on loopback")
        return self

    @property
    def on_loopback(self) -> bool:
        """True if the provider is on this machine."""
        host = urlsplit(self.base_url).hostname or ""
        try:
            return ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"

    @property
    def in_clear(self) -> bool:
        """True if the secret would cross a network unencrypted."""
        return self.base_url.startswith("http://") and not self.on_loopback


class CloudAdapterBlock(Strict):
    """What holds for every provider."""

    max_refusal_bytes: Annotated[int, Field(ge=1_024, le=_MIB)] = 64 * 1024
    """Bytes that are read of the body of a refusal."""
    release_wait_s: Annotated[float, Field(ge=0, le=5)] = 0.05
    """Seconds that the end of a stream may lag behind its `[DONE]` for its connection to be used again."""


class CloudAdapterSettings(MeshSettings):
    """What the cloud adapter reads of weir.yaml."""

    providers: Mapping[ProviderName, ProviderSettings] = Field(default_factory=dict)
    """By name, in the order in which they are listed."""
    cloud_adapter: CloudAdapterBlock = CloudAdapterBlock()
