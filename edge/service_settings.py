"""Other services behind the gateway: the entries of `edge.services`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated

from pydantic import Field, StringConstraints, field_validator

from meshkit.scopes import scope_of
from meshkit.settings import Strict

_OURS = re.compile(r"/(v1|healthz|(weir|grpc|envoy)\.[^/]*)/")
"""Whose paths are the gateway's own: HTTP/JSON, health, and gRPC's of its own packages."""
_LARGEST_PORT = 65_535

ServiceName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$", max_length=63)]
Prefix = Annotated[str, StringConstraints(pattern=r"^/([A-Za-z0-9_~.-]*[A-Za-z0-9_~-]/)+$", max_length=200)]
"""Whole segments with a slash at both ends, none of them `.` or `..`."""
Address = Annotated[
    str, StringConstraints(pattern=r"^([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}$", max_length=260)
]


class GuardedService(Strict):
    """A service of yours that speaks HTTP/1.1, each of whose requests Auth has to let pass first.

    It gets `x-weir-key-id`, `x-weir-org`, `x-weir-team` and `x-weir-scopes` of the key, never those that a client sent.
    """

    prefix: Prefix
    """The paths that are the service's, with a slash at both ends: `/docs/`. Nothing of the gateway's own."""
    address: Address
    """Where the service listens, `host:port`, as the edge reaches it. Let nobody else reach it."""
    scope: str | None = None
    """The scope that a key needs, such as `usage:read`; one with `admin` passes too where it is not `chat` or `embed`.
    Absent: any key that is good."""
    keep_authorization: bool = False
    """Whether the service sees the key itself. It could then use it elsewhere."""
    strip_prefix: bool = False
    """Whether the service sees `/page` where the client asked for `/docs/page`."""
    timeout_s: Annotated[float, Field(gt=0, le=86_400)] = 60.0
    """How long its whole answer may take, in seconds; then 504."""

    @field_validator("scope")
    @classmethod
    def _there_is_such_a_scope(cls, scope: str | None) -> str | None:
        if scope is not None:
            scope_of(scope)
        return scope

    @field_validator("prefix")
    @classmethod
    def _the_gateways_own_paths_stay(cls, prefix: str) -> str:
        if _OURS.match(prefix):
            raise ValueError(f"{prefix} lies within the gateway's own paths (/v1/, /healthz, gRPC's)")
        return prefix

    @field_validator("address")
    @classmethod
    def _there_is_such_a_port(cls, address: str) -> str:
        if not 0 < int(address.rpartition(":")[2]) <= _LARGEST_PORT:
            raise ValueError(f"{address} has no port from 1 to {_LARGEST_PORT}")
        return address


def overlaps(services: Mapping[str, GuardedService]) -> Iterator[str]:
    """A line for every two services of which one would get requests that are the other's."""
    ordered = sorted(services.items(), key=lambda item: item[1].prefix)
    for index, (name, service) in enumerate(ordered):
        for other, longer in ordered[index + 1 :]:
            if longer.prefix.startswith(service.prefix):
                yield f"{other}: its prefix {longer.prefix} lies within that of {name}, {service.prefix}"
