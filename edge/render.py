"""Settings -> Envoy's bootstrap. Pure: nothing is read but the template beside this file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from edge.cors import policy, response_additions
from edge.replies import local_replies
from edge.routes import request_removals, response_removals, routes
from edge.services import auth_clusters, authorization_filters, service_clusters
from edge.settings import EdgeSettings
from edge.tls import EdgeTls, transport_socket

_NAME = re.compile(r"\$\{(?P<name>[a-z_]+)\}")
_KIB = 1_024
_MIB = 1_024 * _KIB
_GRPC_FRAMING_BYTES = 64 * _KIB
"""More than what HttpBody and gRPC add to a body."""


def render(
    settings: EdgeSettings,
    *,
    port: int,
    admin_port: int,
    routers: Sequence[str],
    auth: str | None = None,
    tls: EdgeTls | None = None,
) -> str:
    """The bootstrap as JSON, for a file that ends in `.json`.

    Args:
        settings: the block `edge` of weir.yaml.
        port: where clients connect, on `settings.host`.
        admin_port: Envoy's admin interface, on loopback.
        routers: the address of every router worker, `host:port` or `unix:path`.
        auth: Auth's address in the same form; needed where there are `edge.services`.
        tls: how the edge and Weir's services prove themselves to each other; None: plain text.
    """
    values = {
        "port": port,
        "admin_port": admin_port,
        "routers": [_endpoint(address) for address in routers],
        "router_socket": transport_socket(tls, "router"),
        "error_body_lua": _path("edge", "error_body.lua"),
        "descriptor_set": _path("gen", "weir.binpb"),
        "remove_request_headers": request_removals(settings.trusted_hops),
        "change_response_headers": [*response_removals(), *response_additions(settings.cors)],
        "remove_response_trailers": response_removals(),
        "cors": policy(settings.cors),
        "local_replies": local_replies(settings.max_body_bytes),
        "routes": routes(settings.connect_retries, _duration(settings.stream_idle_s), settings.services),
        "authorization": authorization_filters(settings.services, _duration(settings.check_s)),
        "further_clusters": _further_clusters(settings, auth, tls),
        **_limits(settings),
        **_times(settings),
    }
    template = yaml.safe_load(resources.files("edge").joinpath("envoy.yaml").read_text(encoding="utf-8"))
    return json.dumps(_fill(template, values), indent=1)


def _further_clusters(settings: EdgeSettings, auth: str | None, tls: EdgeTls | None) -> list[dict[str, Any]]:
    """What is reached beside the routers: other services, and Auth for their sake."""
    limit = _duration(settings.connect_s)
    endpoint = None if auth is None else _endpoint(auth)
    socket = None if tls is None else tls.socket(tls.auth_server)
    return [
        *auth_clusters(settings.services, endpoint, limit, socket),
        *service_clusters(settings.services, limit),
    ]


def _limits(settings: EdgeSettings) -> dict[str, Any]:
    return {
        "host": settings.host,
        "trusted_hops": settings.trusted_hops,
        "max_body_bytes": settings.max_body_bytes,
        "retry_buffer_bytes": settings.max_body_bytes + _GRPC_FRAMING_BYTES,
        "max_headers_kib": settings.max_headers_kib,
        "max_headers": settings.max_headers,
        "buffer_bytes": settings.buffer_kib * _KIB,
        "max_connections": settings.max_connections,
        "max_streams": settings.max_streams,
        "max_requests": settings.max_requests,
        "max_heap_bytes": settings.max_heap_mib * _MIB,
        "health_unhealthy_threshold": settings.health_check.unhealthy_threshold,
        "outlier_failures": settings.outlier_detection.failures,
    }


def _times(settings: EdgeSettings) -> dict[str, str]:
    health, outlier = settings.health_check, settings.outlier_detection
    seconds = {
        "connection_idle_timeout": settings.connection_idle_s,
        "request_headers_timeout": settings.request_headers_s,
        "request_timeout": settings.request_s,
        "stream_idle_timeout": settings.stream_idle_s,
        "ping": settings.ping_s,
        "connect_timeout": settings.connect_s,
        "health_interval": health.interval_s,
        "health_unhealthy_interval": health.unhealthy_interval_s,
        "health_timeout": health.timeout_s,
        "outlier_ejection": outlier.ejection_s,
        "outlier_max_ejection": outlier.max_ejection_s,
    }
    return {name: _duration(value) for name, value in seconds.items()}


def _duration(seconds: float) -> str:
    """A protobuf duration in JSON."""
    return f"{seconds:.3f}s"


def _endpoint(address: str) -> dict[str, Any]:
    if address.startswith("unix:"):
        place: dict[str, Any] = {"pipe": {"path": address.removeprefix("unix:")}}
    else:
        host, _, port = address.rpartition(":")
        place = {"socket_address": {"address": host.strip("[]"), "port_value": int(port)}}
    return {"endpoint": {"address": place}}


def _path(package: str, name: str) -> str:
    return str(Path(str(resources.files(package).joinpath(name))).resolve())


def _fill(node: Any, values: Mapping[str, Any]) -> Any:
    """`node` with every text that is one `${name}` replaced. Raises KeyError for a name without a value.

    A list that would be an element of a list gives it its elements instead, so that it may be empty.
    """
    if isinstance(node, dict):
        return {key: _fill(value, values) for key, value in node.items()}
    if isinstance(node, list):
        return [each for value in node for each in _elements(_fill(value, values))]
    found = _NAME.fullmatch(node) if isinstance(node, str) else None
    return values[found["name"]] if found else node


def _elements(filled: Any) -> list[Any]:
    return filled if isinstance(filled, list) else [filled]
