"""Every knob of the edge: the block `edge` of weir.yaml. Its ports are `ports.edge` and `ports.edge_admin`."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from edge.service_settings import GuardedService, ServiceName, overlaps
from meshkit.settings import Strict

Seconds = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
ANY_ORIGIN = "*"
Origin = Annotated[
    str, StringConstraints(pattern=r"^(\*|[a-z][a-z0-9+.-]*://[^/?#@\sA-Z*]+)$", max_length=300)
]
"""As a browser sends it: scheme, host and port where it is not the scheme's own, in lower case, without a path."""
HeaderName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]+$", max_length=100)]


class HealthCheck(Strict):
    """How the edge asks each router worker for its health (grpc.health.v1)."""

    interval_s: Seconds = 1.0
    """Between two questions to a healthy worker, in seconds."""
    unhealthy_interval_s: Seconds = 0.5
    """Between two questions to an unhealthy worker, in seconds: a restarted one is back after at most this long."""
    timeout_s: Seconds = 2.0
    """How long an answer may take, in seconds. Longer than any pause of a busy event loop."""
    unhealthy_threshold: Count = 2
    """Failures in a row until a worker gets no more requests. A dead worker refuses connections and is passed over
    before that; this one is for the worker that hangs."""


class OutlierDetection(Strict):
    """When a worker that breaks connections is left out.

    Its answers never count: an error that a router reports says something of a target, not of the router.
    """

    failures: Count = 3
    """Failed connects or resets in a row that eject a worker."""
    ejection_s: Seconds = 1.0
    """How long the first ejection lasts, in seconds; each further one is longer by as much. A passed health check ends
    it at once."""
    max_ejection_s: Seconds = 10.0
    """The longest ejection, in seconds."""


class Cors(Strict):
    """Which web pages may call from a browser, with a key of their own. Without origins: none, and no CORS headers."""

    origins: Annotated[tuple[Origin, ...], Field(max_length=1_000)] = ()
    """The pages' origins, exactly as the browser sends them, such as `https://app.example.com`; or `*` alone for every
    page there is. A browser's user can read the key that a page sends."""
    credentials: bool = False
    """Whether the browser may add cookies and its own authentication. Weir needs neither; a proxy before it may."""
    max_age_s: Annotated[int, Field(ge=0, le=86_400)] = 7_200
    """How long a browser may remember what it was allowed, in seconds. Chromium takes at most two hours."""
    request_headers: Annotated[tuple[HeaderName, ...], Field(max_length=100)] = ()
    """Headers that pages may send beyond those of edge/cors.py, in lower case."""

    @model_validator(mode="after")
    def _any_origin_stands_alone(self) -> Self:
        if ANY_ORIGIN in self.origins and (len(self.origins) > 1 or self.credentials):
            raise ValueError('origins: "*" stands alone and never goes with credentials: name the origins')
        return self


class EdgeSettings(Strict):
    """The block `edge`."""

    host: str = "127.0.0.1"
    """The address to listen on. Anything but loopback puts API keys on the network in clear text: put TLS before it."""
    threads: Annotated[int, Field(ge=1, le=256)] = 1
    """Envoy's worker threads. A request takes some 0.5 ms of one, so one serves many router workers. A second costs
    more CPU per request: each thread has connections of its own to every worker."""
    log_level: Literal["trace", "debug", "info", "warning", "error", "critical"] = "warning"
    """What Envoy writes to standard error. `debug` and `trace` show headers, so API keys too."""
    trusted_hops: Annotated[int, Field(ge=0, le=10)] = 0
    """How many proxies of your own stand before the edge. 0: a client's x-forwarded-for is dropped."""

    max_body_bytes: Annotated[int, Field(ge=1_024, le=28 * 1024 * 1024)] = 20 * 1024 * 1024
    """The largest body of an HTTP/JSON request and of a whole JSON answer, in bytes; more is a 413. Below the mesh's
    message limit of 32 MiB. A streamed answer may be of any length."""
    max_headers_kib: Annotated[int, Field(ge=1, le=8_192)] = 60
    """All headers of a request together, in KiB; more is a 431."""
    max_headers: Count = 100
    """How many headers a request may have; more is a 431."""
    buffer_kib: Annotated[int, Field(ge=16, le=16_384)] = 128
    """What is held for a slow reader on one connection, in KiB, before the router is made to wait."""

    connection_idle_s: Seconds = 300.0
    """A connection without a request is closed after this long, in seconds."""
    request_headers_s: Seconds = 10.0
    """How long a client may take to send a request's headers, in seconds; then 408."""
    request_s: Seconds = 300.0
    """How long a client may take to send a whole request, in seconds; then 408. Client-streaming RPCs end with it."""
    stream_idle_s: Seconds = 900.0
    """A request on which nothing moves is ended after this long, in seconds. Longer than the router's own total limit
    for an answer in one piece (600 s), so that the router speaks first."""
    ping_s: Seconds = 60.0
    """How often an HTTP/2 client is asked whether it still lives, in seconds; it has as long to answer."""

    max_connections: Count = 10_000
    """Client connections at once; more are closed as they come."""
    max_streams: Annotated[int, Field(ge=1, le=100_000)] = 256
    """Requests at once on one HTTP/2 connection."""
    max_requests: Count = 20_000
    """Requests at once to all routers together; more is a 503."""
    max_heap_mib: Annotated[int, Field(ge=128)] = 2_048
    """Envoy's memory, in MiB: from 95 % on new requests get a 503 until it falls."""

    connect_s: Seconds = 1.0
    """How long connecting to a router worker may take, in seconds."""
    connect_retries: Annotated[int, Field(ge=0, le=10)] = 3
    """How many more workers are tried for a request that reached none. Nothing else is ever retried here."""
    health_check: HealthCheck = HealthCheck()
    outlier_detection: OutlierDetection = OutlierDetection()
    cors: Cors = Cors()
    services: Annotated[dict[ServiceName, GuardedService], Field(max_length=100)] = Field(
        default_factory=dict
    )
    """Other services behind the gateway, by name: Auth is asked before each request to them."""
    check_s: Seconds = 1.0
    """How long Auth may take to say whether a request to such a service may pass, in seconds; then 503."""
    drain_s: Annotated[int, Field(ge=1, le=3_600)] = 1
    """While draining: how long new connections are still served, in seconds; then they are refused."""

    @model_validator(mode="after")
    def _services_have_paths_of_their_own(self) -> Self:
        faults = list(overlaps(self.services))
        if faults:
            raise ValueError("services: " + "; ".join(faults))
        return self
