"""Every knob of the cloud adapter: the `providers` and `cloud_adapter` blocks of weir.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from ipaddress import ip_address
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from meshkit.settings import MeshSettings, Strict

LIVE: Final = frozenset({"providers", "cloud_adapter"})
"""What a running adapter takes over when weir.yaml changes, with the secrets in files; all else needs a restart."""

_MIB = 1024 * 1024
_MOST_ANSWER_BYTES = 31 * _MIB  # an answer travels in one gRPC message, of which 32 MiB are allowed

_SECRETS = ("api_key_file", "api_key_env", "api_keys", "azure_ad_token_file")
_OF_OTHER_FAMILIES: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "openai_compatible": ("api_version", "deployments", "azure_ad_token_file"),
    "azure_openai": ("organization", "project"),
})  # fmt: skip

Seconds = Annotated[float, Field(gt=0, le=3_600)]
VariableName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
ProviderName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]


class KeySettings(Strict):
    """One of several keys. Exactly one of file and env."""

    file: Path | None = None
    """As api_key_file."""
    env: VariableName | None = None
    """As api_key_env."""
    weight: Annotated[int, Field(ge=1, le=1_000)] = 1
    """Its share of the requests, by the sum of all weights."""

    @model_validator(mode="after")
    def _from_one_place(self) -> KeySettings:
        if (self.file is None) == (self.env is None):
            raise ValueError("set exactly one of file and env")
        return self


class ProviderSettings(Strict):
    """One provider. At most one of api_key_file, api_key_env, api_keys and azure_ad_token_file."""

    family: Literal["openai_compatible", "azure_openai"] = "openai_compatible"
    """Which room of the adapter speaks to it."""
    base_url: str
    """http(s) URL, without credentials. Up to and with the version, such as https://api.openai.com/v1; of azure_openai
    the resource alone, such as https://my-resource.openai.azure.com."""
    api_key_file: Path | None = None
    """File that holds the secret and nothing else; relative to the folder the process starts in."""
    api_key_env: VariableName | None = None
    """Environment variable that holds the secret; only the adapter's process needs it."""
    api_keys: Annotated[tuple[KeySettings, ...], Field(max_length=64)] = ()
    """Several keys in place of one; each request takes one of them at random, by weight."""
    key_refused_rest_s: Seconds = 60.0
    """Seconds that a key is left alone after the provider refused it (HTTP 401 or 403), if there are others."""
    key_limited_rest_s: Seconds = 1.0
    """The same after HTTP 429 without retry-after."""
    api_version: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,32}$")] | None = None
    """Of azure_openai, which needs it, such as 2024-10-21."""
    deployments: Mapping[str, str] = Field(default_factory=dict)
    """Of azure_openai: model -> the deployment that serves it. One that is not listed is its own deployment."""
    azure_ad_token_file: Path | None = None
    """Of azure_openai: file with an Entra token in place of a key. Whoever renews it writes it anew, best by renaming;
    it is read again when it changes."""
    azure_ad_token_reread_s: Seconds = 60.0
    """Seconds after which that file is read again although it looks the same."""
    organization: str | None = None
    """Of openai_compatible: sent as OpenAI-Organization."""
    project: str | None = None
    """Of openai_compatible: sent as OpenAI-Project."""
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

    @field_validator("api_version", mode="before")
    @classmethod
    def _as_written(cls, version: object) -> object:
        """YAML takes 2024-10-21 for a date."""
        return version.isoformat() if isinstance(version, date) else version

    @model_validator(mode="after")
    def _consistent(self) -> ProviderSettings:
        if len(named := [name for name in _SECRETS if getattr(self, name)]) > 1:
            raise ValueError(f"set {' or '.join(named)}, not both")
        if foreign := [name for name in _OF_OTHER_FAMILIES[self.family] if getattr(self, name)]:
            raise ValueError(f"{' and '.join(foreign)}: not of family {self.family}")
        if self.family == "azure_openai" and self.api_version is None:
            raise ValueError("azure_openai needs api_version")
        if self.family == "azure_openai" and self.base_url.endswith("/openai"):
            raise ValueError("base_url: the resource alone, without /openai")
        if self.sandbox and not self.on_loopback:
            raise ValueError("sandbox: true is for providers on loopback")
        return self

    @property
    def secret_variables(self) -> frozenset[str]:
        """The environment variables that hold its secrets."""
        named = (self.api_key_env, *(key.env for key in self.api_keys))
        return frozenset(name for name in named if name is not None)

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
