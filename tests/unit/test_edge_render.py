"""The edge's bootstrap as it is written, and that what it names exists."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from google.api import annotations_pb2
from google.protobuf import descriptor_pb2
from pydantic import ValidationError

from edge.command import command
from edge.cors import REQUEST_HEADERS, RESPONSE_HEADERS
from edge.methods import http_methods
from edge.render import render
from edge.replies import BY_STATUS, generic_bodies, local_replies
from edge.routes import GRPC_SERVICES, HTTP_PREFIX, IDENTITY_HEADERS, INTERNAL_RESPONSE_HEADERS
from edge.settings import Cors, EdgeSettings
from gen.weir.error.v1 import Reason
from meshkit.errors import TABLE

WORKERS = ["127.0.0.1:50051", "unix:/run/weir/router-1.sock", "[::1]:50053"]
METHODS = ("get", "put", "post", "delete", "patch")


def bootstrap(settings: EdgeSettings | None = None) -> dict[str, Any]:
    """The bootstrap, parsed."""
    text = render(
        settings or EdgeSettings(), port=8080, admin_port=9901, routers=WORKERS, auth="127.0.0.1:50071"
    )
    found: dict[str, Any] = json.loads(text)
    return found


def manager(document: dict[str, Any]) -> dict[str, Any]:
    """The HTTP connection manager."""
    found: dict[str, Any] = document["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]
    return dict(found["typed_config"])


def test_every_placeholder_is_filled() -> None:
    """No `${name}` is left."""
    text = render(EdgeSettings(), port=8080, admin_port=9901, routers=WORKERS)
    assert "${" not in text


def test_every_value_has_a_place() -> None:
    """What the template asks for is what render offers: a knob that changes nothing is a defect."""
    changed = {
        "host": "127.0.0.2", "trusted_hops": 1, "max_body_bytes": 2_048, "max_headers_kib": 7, "max_headers": 7,
        "buffer_kib": 17, "connection_idle_s": 7.5, "request_headers_s": 7.5, "request_s": 7.5,
        "stream_idle_s": 7.5, "ping_s": 7.5, "max_connections": 7, "max_streams": 7, "max_requests": 7,
        "max_heap_mib": 129, "connect_s": 7.5, "connect_retries": 7,
        "health_check": {"interval_s": 7.5}, "outlier_detection": {"failures": 7},
        "cors": {"origins": ["https://app.example.com"]},
    }  # fmt: skip
    plain = bootstrap()
    for name, value in changed.items():
        assert bootstrap(EdgeSettings.model_validate({name: value})) != plain, name
    services = {"docs": {"prefix": "/docs/", "address": "127.0.0.1:9000"}}
    guarded = bootstrap(EdgeSettings.model_validate({"services": services}))
    assert guarded != plain
    assert bootstrap(EdgeSettings.model_validate({"services": services, "check_s": 7.5})) != guarded
    by_command = {"threads": 2, "log_level": "info", "drain_s": 7}
    for name, value in by_command.items():
        other = EdgeSettings.model_validate({name: value})
        assert command(Path("x"), other) != command(Path("x"), EdgeSettings()), name
    assert {*changed, *by_command, "services", "check_s"} == set(EdgeSettings.model_fields)


@pytest.mark.parametrize("wrong", [{"max_body_bytes": 64 * 1024 * 1024}, {"drain_s": 0}, {"unheard_of": 1}])
def test_settings_refuse(wrong: dict[str, int]) -> None:
    """Bodies above the mesh's message limit, a drain that is over at once, unknown keys."""
    with pytest.raises(ValidationError):
        EdgeSettings.model_validate(wrong)


@pytest.mark.parametrize(
    "origins",
    [
        ["*"],
        [
            "https://app.example.com",
            "http://localhost:3000",
            "http://[::1]:3000",
            "chrome-extension://abcdef",
        ],
    ],
)
def test_origins(origins: list[str]) -> None:
    """Origins as browsers send them."""
    policy = bootstrap(EdgeSettings(cors=Cors(origins=tuple(origins))))
    (host,) = manager(policy)["route_config"]["virtual_hosts"]
    matches = host["typed_per_filter_config"]["envoy.filters.http.cors"]["allow_origin_string_match"]
    assert matches == [{"exact": origin} for origin in origins]


@pytest.mark.parametrize(
    "wrong",
    [
        {"origins": ["https://app.example.com/"]},
        {"origins": ["https://App.example.com"]},
        {"origins": ["https://*.example.com"]},
        {"origins": ["app.example.com"]},
        {"origins": ["null"]},
        {"origins": [""]},
        {"origins": ["*", "https://app.example.com"]},
        {"origins": ["*"], "credentials": True},
        {"origins": ["https://a.example"], "request_headers": ["X-App"]},
        {"origins": ["https://a.example"], "request_headers": ["a,b"]},
        {"origins": ["https://a.example"], "max_age_s": -1},
    ],
)
def test_cors_refuses(wrong: dict[str, object]) -> None:
    """What no browser sends as an origin, `*` beside others or with credentials, lists in disguise."""
    with pytest.raises(ValidationError):
        Cors.model_validate(wrong)


def test_cors_allows_what_the_sdk_sends() -> None:
    """Every header of a request that this Weir reads, and those of the SDK and gRPC-Web; no identity among them."""
    assert set(REQUEST_HEADERS) >= {
        "authorization",
        "content-type",
        "x-request-id",
        "x-grpc-web",
        "grpc-timeout",
    }
    assert not set(REQUEST_HEADERS) & set(IDENTITY_HEADERS)
    assert not set(RESPONSE_HEADERS) & set(INTERNAL_RESPONSE_HEADERS)
    for names in (REQUEST_HEADERS, RESPONSE_HEADERS):
        assert len(set(names)) == len(names)
        assert all(name == name.lower() for name in names)


def test_without_cors_there_is_no_policy() -> None:
    """Off means that no header is added."""
    (host,) = manager(bootstrap())["route_config"]["virtual_hosts"]
    assert host["typed_per_filter_config"] == {}
    assert "vary" not in json.dumps(bootstrap())


def test_methods_are_those_of_the_contract() -> None:
    """One method each, and a path that none has is not there."""
    assert http_methods() == {
        "/v1/chat/completions": ("POST",),
        "/v1/completions": ("POST",),
        "/v1/responses": ("POST",),
        "/v1/embeddings": ("POST",),
        "/v1/models": ("GET",),
        "/v1/models/{model=**}": ("GET",),
    }


def test_workers_become_endpoints() -> None:
    """TCP, Unix socket and IPv6; one endpoint each."""
    (cluster,) = bootstrap()["static_resources"]["clusters"]
    (locality,) = cluster["load_assignment"]["endpoints"]
    assert [each["endpoint"]["address"] for each in locality["lb_endpoints"]] == [
        {"socket_address": {"address": "127.0.0.1", "port_value": 50051}},
        {"pipe": {"path": "/run/weir/router-1.sock"}},
        {"socket_address": {"address": "::1", "port_value": 50053}},
    ]


def test_routes_name_what_exists() -> None:
    """Every Weir service that passes is in the descriptor set, and every HTTP route of the contract passes."""
    files = descriptor_pb2.FileDescriptorSet.FromString(
        resources.files("gen").joinpath("weir.binpb").read_bytes()
    )
    services = {f"{file.package}.{service.name}": service for file in files.file for service in file.service}
    assert {name for name in GRPC_SERVICES if name.startswith("weir.")} <= set(services)
    rules = [
        method.options.Extensions[annotations_pb2.http]
        for name, service in services.items()
        for method in service.method
        if name == "weir.openai.v1.OpenAI"
    ]
    assert rules
    for rule in rules:
        assert any(getattr(rule, method).startswith(HTTP_PREFIX) for method in METHODS), rule


def test_services_of_the_mesh_stay_inside() -> None:
    """Auth, Ledger and CloudAdapter are on no route."""
    routes = json.dumps(manager(bootstrap())["route_config"])
    for package in ("weir.auth", "weir.ledger", "weir.cloud"):
        assert package not in routes


def test_only_unreached_requests_are_retried() -> None:
    """Anything else may be paid for twice."""
    (host,) = manager(bootstrap())["route_config"]["virtual_hosts"]
    *passed, _ = (route["route"] for route in host["routes"])
    assert {route["retry_policy"]["retry_on"] for route in passed} == {"connect-failure,refused-stream"}


def test_what_may_not_pass_goes_nowhere() -> None:
    """The last route takes all that is left to a cluster that is not there: a 404."""
    document = bootstrap()
    (host,) = manager(document)["route_config"]["virtual_hosts"]
    *_, last = host["routes"]
    assert last["match"] == {"prefix": "/"}
    assert last["route"]["cluster"] not in {each["name"] for each in document["static_resources"]["clusters"]}
    assert last["route"]["cluster_not_found_response_code"] == "NOT_FOUND"


def test_forwarded_for_of_a_proxy_of_ones_own_is_kept() -> None:
    """Else it is stripped like any header of identity."""
    own = json.dumps(manager(bootstrap(EdgeSettings(trusted_hops=1)))["early_header_mutation_extensions"])
    stranger = json.dumps(manager(bootstrap())["early_header_mutation_extensions"])
    assert ("x-forwarded-for" in own, "x-forwarded-for" in stranger) == (False, True)


@pytest.mark.parametrize("status", BY_STATUS)
def test_replies_are_openai_errors(status: int) -> None:
    """Each body parses, and its type and code are a row of the error table."""
    error = json.loads(generic_bodies()[str(status)])["error"]
    rows = {(row.openai_type, row.openai_code) for row in TABLE.values()}
    assert (error["type"], error["code"]) in rows
    assert error["param"] is None


def test_the_statuses_of_the_table_have_a_reply() -> None:
    """Whatever status the router's reasons map to, a status without our object has words too."""
    assert {row.http_status for row in TABLE.values()} <= set(BY_STATUS)


def test_replies_agree_with_the_table() -> None:
    """A reply for a reason's own status says that reason's type; 413 and 504 say its code."""
    assert TABLE[BY_STATUS[413].reason] == TABLE[Reason.BODY_TOO_LARGE]
    assert TABLE[BY_STATUS[504].reason] == TABLE[Reason.UPSTREAM_TIMEOUT]
    for status, reply in BY_STATUS.items():
        same_class = TABLE[reply.reason].http_status // 100 == status // 100
        assert same_class or status == 501, status


def test_the_limit_is_named_in_the_reply() -> None:
    """A 413 tells the client how much is allowed."""
    assert "larger than 2048 bytes" in json.dumps(local_replies(2_048))
