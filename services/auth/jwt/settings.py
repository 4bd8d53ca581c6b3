"""Issuers of tokens: the keys `auth.issuers` and `auth.jwt` of weir.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Final, Self
from urllib.parse import SplitResult, urlsplit

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    field_validator,
    model_validator,
)

from gen.weir.auth.v1 import Scope
from meshkit.bearer import MAX_JWT_CHARS
from meshkit.scopes import scope_of
from meshkit.settings import Strict

_MAX_NAME_CHARS: Final = 100
_KIB: Final = 1_024


def _plain(text: str) -> str:
    if text != text.strip() or not text.isprintable():
        raise ValueError("has spaces at an end, or control characters")
    return text


def _known_scope(name: str) -> str:
    scope_of(name)
    return name


def _some(values: tuple[str, ...]) -> tuple[str, ...]:
    if not values:
        raise ValueError("must name at least one")
    return values


def _form(value: object) -> str:
    """Which form of two a value has, so that faults are told of that one alone."""
    return "by_claim" if isinstance(value, dict | Strict) else "fixed"


IssuerName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
Text = Annotated[str, StringConstraints(min_length=1, max_length=_MAX_NAME_CHARS), AfterValidator(_plain)]
Exact = Annotated[str, StringConstraints(min_length=1, max_length=512), AfterValidator(_plain)]
ClaimPath = Annotated[str, StringConstraints(pattern=r"^[!-~]{1,200}$")]
Pattern = Annotated[str, StringConstraints(pattern=r"^[!-~]{1,128}$")]
Patterns = Annotated[tuple[Pattern, ...], Field(max_length=100)]
ScopeName = Annotated[str, AfterValidator(_known_scope)]
ScopeNames = Annotated[tuple[ScopeName, ...], AfterValidator(_some)]


class Claim(Strict):
    """A value that the token itself says."""

    claim: ClaimPath
    """Its name. A name with `/` or `:` in it is one claim; in others dots lead into objects: `realm_access.roles`."""


Said = Annotated[Annotated[Text, Tag("fixed")] | Annotated[Claim, Tag("by_claim")], Discriminator(_form)]


class ScopeMap(Strict):
    """What a token's holder may do, by what one of its claims lists."""

    claim: ClaimPath
    """A list of texts, or one text with spaces between its words as OAuth's `scope`."""
    map: Annotated[Mapping[Exact, ScopeNames], Field(min_length=1)]
    """From each of the claim's values, as it is, to scopes; all that fit add up."""

    @property
    def by_value(self) -> dict[str, tuple[Scope, ...]]:
        """The map in the contract's scopes."""
        return {value: tuple(map(scope_of, names)) for value, names in self.map.items()}


Scopes = Annotated[
    Annotated[ScopeNames, Tag("fixed")] | Annotated[ScopeMap, Tag("by_claim")], Discriminator(_form)
]


class IssuerSettings(Strict):
    """One issuer that is trusted to say who its users are."""

    issuer: Exact
    """The claim `iss` of its tokens, to the letter."""
    audiences: Annotated[tuple[Exact, ...], Field(max_length=20), AfterValidator(_some)]
    """One of them must be in the claim `aud`: what the issuer calls this gateway."""
    jwks_url: str | None = None
    """Where its public keys are: https, or http on loopback; no redirect is followed."""
    jwks_file: Path | None = None
    """Or the file that has them, read again when it changes."""
    ca_file: Path | None = None
    """Of jwks_url: PEM file of the certificate authorities to trust in place of the system's."""
    proxy_from_environment: bool = False
    """Of jwks_url: honour HTTPS_PROXY and its kin; otherwise the environment has no say in where requests go."""
    org: Said
    """The organisation that pays: a name for all, or the claim that says it."""
    team: Said
    """The team within it, in the same way."""
    owner: Said = Claim(claim="sub")
    """Who answers for it, in the same way."""
    scopes: Scopes
    """What its tokens' holders may do: the same for all, or by a claim. One without any scope is refused."""
    models: Patterns = ()
    """The models that they may ask for, as shell patterns; empty means all."""
    targets: Patterns = ()
    """The targets that may answer them, in the same way."""

    @field_validator("jwks_url")
    @classmethod
    def _safe_url(cls, url: str | None) -> str | None:
        if url is not None:
            _check_url(url)
        return url

    @model_validator(mode="after")
    def _keys_from_one_place(self) -> Self:
        if (self.jwks_url is None) == (self.jwks_file is None):
            raise ValueError("set exactly one of jwks_url and jwks_file")
        if self.jwks_file is not None and (self.ca_file is not None or self.proxy_from_environment):
            raise ValueError("ca_file and proxy_from_environment go with jwks_url")
        return self


class JwtBlock(Strict):
    """The key `auth.jwt`: what holds for the tokens and keys of every issuer."""

    clock_skew_s: Annotated[float, Field(ge=0, le=300)] = 30.0
    """Seconds that an issuer's clock may be off."""
    max_lifetime_s: Annotated[float, Field(ge=60, le=31_536_000)] = 86_400.0
    """Seconds from a token's making to its end at most; one made for longer is refused."""
    max_token_bytes: Annotated[int, Field(ge=256, le=MAX_JWT_CHARS)] = MAX_JWT_CHARS
    """Bytes of a token at most."""
    keys_fresh_s: Annotated[float, Field(ge=10, le=86_400)] = 600.0
    """Seconds after which an issuer's keys are fetched again from its URL."""
    keys_stale_s: Annotated[float, Field(ge=60, le=604_800)] = 86_400.0
    """Seconds that they are used at most while the issuer is away, or its file cannot be read."""
    keys_refetch_s: Annotated[float, Field(ge=1, le=600)] = 10.0
    """Seconds between two fetches from one issuer at least, however many tokens name an unknown key."""
    file_poll_s: Annotated[float, Field(ge=0.1, le=60)] = 1.0
    """Seconds between two looks at whether a file of keys has changed."""
    fetch_connect_s: Annotated[float, Field(gt=0, le=60)] = 2.0
    """Seconds for a connection to an issuer: DNS, TCP and TLS together."""
    fetch_total_s: Annotated[float, Field(gt=0, le=60)] = 5.0
    """Seconds for a whole fetch."""
    max_jwks_bytes: Annotated[int, Field(ge=_KIB, le=16 * _KIB * _KIB)] = 512 * _KIB
    """Bytes of an issuer's keys at most; longer ones are a failed fetch."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.keys_stale_s < self.keys_fresh_s:
            raise ValueError("keys_stale_s must not be below keys_fresh_s")
        return self

    @property
    def clock_skew(self) -> timedelta:
        """See clock_skew_s."""
        return timedelta(seconds=self.clock_skew_s)

    @property
    def max_lifetime(self) -> timedelta:
        """See max_lifetime_s."""
        return timedelta(seconds=self.max_lifetime_s)


def check_issuers(issuers: Mapping[str, IssuerSettings]) -> None:
    """Raises ValueError where two issuers have the same claim `iss`: a token would have two meanings."""
    names: dict[str, str] = {}
    for name, issuer in issuers.items():
        if issuer.issuer in names:
            raise ValueError(f"issuers.{name}: the same issuer as {names[issuer.issuer]}")
        names[issuer.issuer] = name


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in {"https", "http"} or not _has_place(parts):
        raise ValueError("must be an https URL")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must hold no user name and no password")
    if parts.fragment or not url.isprintable() or " " in url:
        raise ValueError("must hold no fragment, no spaces and no control characters")
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise ValueError("must be https; http is for this machine alone")


def _has_place(parts: SplitResult) -> bool:
    try:
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def is_loopback(host: str) -> bool:
    """Whether a URL's host is this machine by its name or number."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
