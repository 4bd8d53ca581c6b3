"""What may pass: OpenAI's HTTP paths and the gRPC services that clients may call. Everything else is a 404."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from edge.methods import HTTP_SERVICE
from edge.replies import generic_bodies
from edge.service_settings import GuardedService
from edge.services import service_routes, unguarded
from meshkit.status import HTTP_STATUS_TRAILER, OPENAI_ERROR_TRAILER

Route = dict[str, Any]

HTTP_PREFIX = "/v1/"
GRPC_SERVICES = (
    "weir.router.v1.Router",
    HTTP_SERVICE,
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
)
"""Auth, CloudAdapter and Ledger are never routed at the edge."""

IDENTITY_HEADERS = (
    "x-weir-principal",
    "x-weir-org",
    "x-weir-team",
    "x-weir-key-id",
    "x-weir-scopes",
    "x-forwarded-client-cert",
    "x-forwarded-host",
    "x-real-ip",
    "forwarded",
)
"""What only the mesh may say of a caller."""
FORWARDED_FOR = "x-forwarded-for"
INTERNAL_RESPONSE_HEADERS = (
    OPENAI_ERROR_TRAILER,
    HTTP_STATUS_TRAILER,
    "x-envoy-upstream-healthchecked-cluster",
)
# To a gRPC server they mean a deadline and an encoding; from an HTTP/JSON client they mean nothing.
_GRPC_REQUEST_HEADERS = (
    "grpc-timeout",
    "grpc-encoding",
    "grpc-accept-encoding",
    "grpc-previous-rpc-attempts",
    "grpc-tags-bin",
    "grpc-trace-bin",
)
_GRPC_RESPONSE_HEADERS = (
    "grpc-status",
    "grpc-message",
    "grpc-status-details-bin",
    "grpc-encoding",
    "grpc-accept-encoding",
    "trailer",
)
_FILTERS = "type.googleapis.com/envoy.extensions.filters.http"
_GRPC_CONTENT = {"name": "content-type", "string_match": {"prefix": "application/grpc"}}
# A GET has no content type, and a header that is missing would match nothing, inverted or not.
_NO_GRPC_CONTENT = {**_GRPC_CONTENT, "invert_match": True, "treat_missing_header_as_empty": True}
# No cluster has that name. A direct_response would do but for the cors filter, which passes over it.
_NOTHING_THERE: Route = {
    "match": {"prefix": "/"},
    "route": {"cluster": "nowhere", "cluster_not_found_response_code": "NOT_FOUND"},
}


def routes(
    connect_retries: int,
    stream_idle_timeout: str,
    services: Mapping[str, GuardedService] = MappingProxyType({}),
) -> list[Route]:
    """The routes of the edge, the first that matches wins.

    Args:
        connect_retries: how many more workers are tried for a request that reached none.
        stream_idle_timeout: when a silent request ends, as a protobuf duration.
        services: other services behind the gateway, by name.
    """
    to_router = {
        "cluster": "router",
        # Without limit: an answer may be long. What does not move ends.
        "timeout": "0s",
        "idle_timeout": stream_idle_timeout,
        "retry_policy": {
            # Only what never reached a worker: whatever else is tried again may be paid for twice.
            "retry_on": "connect-failure,refused-stream",
            "num_retries": connect_retries,
            "retry_host_predicate": [_previous_hosts()],
            "host_selection_retry_max_attempts": 5,
        },
    }
    passed = [_grpc(service, to_router) for service in GRPC_SERVICES]
    own = [unguarded(route, services) for route in (_http(to_router), *passed)]
    guarded = service_routes(services, stream_idle_timeout)
    return [*own, *guarded, unguarded(_NOTHING_THERE, services)]


def request_removals(trusted_hops: int) -> list[dict[str, str]]:
    """The header mutations that strip what a client may not say of itself."""
    return _removals(IDENTITY_HEADERS if trusted_hops else (*IDENTITY_HEADERS, FORWARDED_FOR))


def response_removals() -> list[dict[str, str]]:
    """The header mutations that strip what no client needs, from answers' headers and trailers."""
    return _removals(INTERNAL_RESPONSE_HEADERS)


def _removals(names: Sequence[str]) -> list[dict[str, str]]:
    return [{"remove": name} for name in names]


def _http(to_router: Route) -> Route:
    no_grpc = _removals(_GRPC_RESPONSE_HEADERS)
    return {
        "match": {"prefix": HTTP_PREFIX, "headers": [_NO_GRPC_CONTENT]},
        "route": to_router,
        "request_headers_to_remove": list(_GRPC_REQUEST_HEADERS),
        "typed_per_filter_config": {
            "envoy.filters.http.header_mutation": {
                "@type": f"{_FILTERS}.header_mutation.v3.HeaderMutationPerRoute",
                "mutations": {"response_mutations": no_grpc, "response_trailers_mutations": no_grpc},
            },
            "envoy.filters.http.lua": {
                "@type": f"{_FILTERS}.lua.v3.LuaPerRoute",
                "filter_context": generic_bodies(),
            },
        },
    }


def _grpc(service: str, to_router: Route) -> Route:
    # Not the matcher `grpc: {}`: it does not know gRPC-Web.
    return {"match": {"prefix": f"/{service}/", "headers": [_GRPC_CONTENT]}, "route": to_router}


def _previous_hosts() -> Route:
    kind = "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
    return {"name": "envoy.retry_host_predicates.previous_hosts", "typed_config": {"@type": kind}}
