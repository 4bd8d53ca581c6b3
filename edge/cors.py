"""Which web pages may use the edge from a browser: Cross-Origin Resource Sharing, off unless origins are named.

A browser sends a page's request to another origin only after a preflight allowed its headers, and shows the page only
the headers of the answer that are exposed. Neither list has a wildcard that covers `authorization`, so both are spelled
out.
"""

from __future__ import annotations

from typing import Any

from edge.settings import Cors

METHODS = ("GET", "POST", "OPTIONS")
REQUEST_HEADERS = (
    "authorization",
    "content-type",
    "user-agent",
    "x-request-id",
    "idempotency-key",
    "traceparent",
    "tracestate",
    # A request's own wishes.
    "x-weir-on-cut",
    "x-weir-targets",
    "x-weir-deadline-ms",
    # What the official JavaScript SDK says of an account and of itself.
    "openai-organization",
    "openai-project",
    "openai-beta",
    "x-stainless-arch",
    "x-stainless-custom-poll-interval",
    "x-stainless-helper-method",
    "x-stainless-lang",
    "x-stainless-os",
    "x-stainless-package-version",
    "x-stainless-poll-helper",
    "x-stainless-retry-count",
    "x-stainless-runtime",
    "x-stainless-runtime-version",
    "x-stainless-timeout",
    # gRPC-Web.
    "x-grpc-web",
    "x-user-agent",
    "grpc-timeout",
)
"""What a page may send."""
RESPONSE_HEADERS = (
    "x-request-id",
    "openai-processing-ms",
    "retry-after",
    "x-weir-target",
    "x-weir-route-reason",
    "x-weir-attempts",
    "x-ratelimit-limit-requests",
    "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-requests",
    "x-ratelimit-reset-tokens",
    "grpc-status",
    "grpc-message",
    "grpc-status-details-bin",
)
"""What a page may read of an answer."""
FILTER = "envoy.filters.http.cors"


def policy(cors: Cors) -> dict[str, Any]:
    """The virtual host's configuration by filter: empty where no origin is allowed."""
    if not cors.origins:
        return {}
    return {
        FILTER: {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy",
            "allow_origin_string_match": [{"exact": origin} for origin in cors.origins],
            "allow_methods": ",".join(METHODS),
            "allow_headers": ",".join((*REQUEST_HEADERS, *cors.request_headers)),
            "expose_headers": ",".join(RESPONSE_HEADERS),
            "max_age": str(cors.max_age_s),
            "allow_credentials": cors.credentials,
        }
    }


def response_additions(cors: Cors) -> list[dict[str, Any]]:
    """The header mutations of answers: with CORS an answer depends on the origin it is for, which caches must know."""
    if not cors.origins:
        return []
    return [
        {"append": {"header": {"key": "vary", "value": "origin"}, "append_action": "APPEND_IF_EXISTS_OR_ADD"}}
    ]
