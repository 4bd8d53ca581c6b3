"""Other services behind the gateway: their routes and clusters, and the filter that asks Auth before each request.

The filter guards every route that does not say otherwise; the gateway's own say so, since the router knows its callers
itself. Where no service is configured there is no such filter.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any

from edge.service_settings import GuardedService

Block = dict[str, Any]

AUTH_CLUSTER = "auth"
FILTER = "envoy.filters.http.ext_authz"
EXTENSION_SERVICE = "weir.service"
EXTENSION_SCOPE = "weir.scope"
EXTENSION_KEEP = "weir.keep_authorization"
"""What the edge tells Auth of a route: services/auth/ext_authz_servicer.py reads it."""

_FILTERS = "type.googleapis.com/envoy.extensions.filters.http"
_MAX_CHECKS = 1_024
# What Auth needs to know of a request: neither cookies nor bodies.
_SEEN_BY_AUTH = ("authorization", "content-type", "x-request-id", "x-envoy-external-address")
# They know the gateway's own paths alone: one would answer 404, the other turn a service's gRPC-Web into gRPC.
_NOT_FOR_SERVICES = ("envoy.filters.http.grpc_json_transcoder", "envoy.filters.http.grpc_web")


def authorization_filters(services: Mapping[str, GuardedService], timeout: str) -> list[Block]:
    """The filter that asks Auth, or none where nothing is to guard.

    Args:
        services: by name.
        timeout: how long Auth may take, as a protobuf duration.
    """
    if not services:
        return []
    config = {
        "@type": f"{_FILTERS}.ext_authz.v3.ExtAuthz",
        "transport_api_version": "V3",
        "grpc_service": {"envoy_grpc": {"cluster_name": AUTH_CLUSTER}, "timeout": timeout},
        "failure_mode_allow": False,
        "status_on_error": {"code": "ServiceUnavailable"},
        "allowed_headers": {"patterns": [{"exact": name} for name in _SEEN_BY_AUTH]},
    }
    return [{"name": FILTER, "typed_config": config}]


def unguarded(route: Block, services: Mapping[str, GuardedService]) -> Block:
    """One of the gateway's own routes, of which Auth is not asked."""
    if not services:
        return route
    off = {"@type": f"{_FILTERS}.ext_authz.v3.ExtAuthzPerRoute", "disabled": True}
    return {**route, "typed_per_filter_config": {**route.get("typed_per_filter_config", {}), FILTER: off}}


def service_routes(services: Mapping[str, GuardedService], stream_idle_timeout: str) -> list[Block]:
    """A route for each service; their prefixes exclude each other."""
    return [_route(name, service, stream_idle_timeout) for name, service in services.items()]


def service_clusters(services: Mapping[str, GuardedService], connect_timeout: str) -> list[Block]:
    """A cluster for each service."""
    return [_cluster(name, service, connect_timeout) for name, service in services.items()]


def auth_clusters(
    services: Mapping[str, GuardedService],
    endpoint: Block | None,
    connect_timeout: str,
    transport_socket: Block | None = None,
) -> list[Block]:
    """How the edge reaches Auth, where it has to.

    Args:
        services: by name.
        endpoint: Auth's, as in a load assignment.
        connect_timeout: as a protobuf duration.
        transport_socket: the cluster's, where Auth wants TLS.

    Raises ValueError if there are services and no endpoint.
    """
    if not services:
        return []
    if endpoint is None:
        raise ValueError("edge.services: Auth has no address here, and nobody could let a request pass")
    limits = {
        "max_connections": _MAX_CHECKS,
        "max_pending_requests": _MAX_CHECKS,
        "max_requests": _MAX_CHECKS,
    }
    kind = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    http2 = {"@type": f"type.googleapis.com/{kind}", "explicit_http_config": {"http2_protocol_options": {}}}
    cluster: Block = {
        "name": AUTH_CLUSTER,
        "type": "STATIC",
        "connect_timeout": connect_timeout,
        "typed_extension_protocol_options": {kind: http2},
        "circuit_breakers": {"thresholds": [limits]},
        "load_assignment": {"cluster_name": AUTH_CLUSTER, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    return [cluster if transport_socket is None else {**cluster, "transport_socket": transport_socket}]


def _route(name: str, service: GuardedService, stream_idle_timeout: str) -> Block:
    told = {EXTENSION_SERVICE: name}
    if service.scope is not None:
        told[EXTENSION_SCOPE] = service.scope
    if service.keep_authorization:
        told[EXTENSION_KEEP] = "true"
    target: Block = {
        "cluster": _cluster_name(name),
        "timeout": f"{service.timeout_s:.3f}s",
        "idle_timeout": stream_idle_timeout,
    }
    if service.strip_prefix:
        target["prefix_rewrite"] = "/"
    off = {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": True}
    guard = {
        "@type": f"{_FILTERS}.ext_authz.v3.ExtAuthzPerRoute",
        "check_settings": {"context_extensions": told},
    }
    return {
        "match": {"prefix": service.prefix},
        "route": target,
        "typed_per_filter_config": {FILTER: guard, **dict.fromkeys(_NOT_FOR_SERVICES, off)},
    }


def _cluster(name: str, service: GuardedService, connect_timeout: str) -> Block:
    host, _, port = service.address.rpartition(":")
    place = {"socket_address": {"address": host.strip("[]"), "port_value": int(port)}}
    return {
        "name": _cluster_name(name),
        "type": "STATIC" if _is_ip(host.strip("[]")) else "STRICT_DNS",
        "connect_timeout": connect_timeout,
        "load_assignment": {
            "cluster_name": _cluster_name(name),
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": place}}]}],
        },
    }


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _cluster_name(service: str) -> str:
    return f"service_{service}"
