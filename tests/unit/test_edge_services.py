"""Other services behind the gateway: what may be configured, and that no route of the edge is left unguarded."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from edge import services as edge_services
from edge.render import render
from edge.routes import IDENTITY_HEADERS
from edge.services import AUTH_CLUSTER, FILTER
from edge.settings import EdgeSettings
from services.auth import ext_authz_servicer

DOCS = {"prefix": "/docs/", "address": "127.0.0.1:9000", "scope": "usage:read", "timeout_s": 7}
WIKI = {
    "prefix": "/team/wiki/",
    "address": "wiki.internal:80",
    "strip_prefix": True,
    "keep_authorization": True,
}
OFF = {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": True}


def settings(**services: object) -> EdgeSettings:
    """The edge's settings with these services."""
    return EdgeSettings.model_validate({"services": services})


def bootstrap(chosen: EdgeSettings, auth: str | None = "127.0.0.1:50071") -> dict[str, Any]:
    """The bootstrap, parsed."""
    text = render(chosen, port=8080, admin_port=9901, routers=["127.0.0.1:50051"], auth=auth)
    found: dict[str, Any] = json.loads(text)
    return found


def manager(document: dict[str, Any]) -> dict[str, Any]:
    """The HTTP connection manager."""
    found: dict[str, Any] = document["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]
    return dict(found["typed_config"])


def routes(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Every route of every virtual host."""
    return [route for host in manager(document)["route_config"]["virtual_hosts"] for route in host["routes"]]


def clusters(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """By name."""
    return {each["name"]: each for each in document["static_resources"]["clusters"]}


def test_every_route_is_the_routers_or_guarded() -> None:
    """Whatever goes to another service passes the filter; what does not ends at the router or nowhere."""
    document = bootstrap(settings(docs=DOCS, wiki=WIKI))
    known = clusters(document)
    guarded = 0
    for route in routes(document):
        cluster = route["route"]["cluster"]
        guard = route["typed_per_filter_config"][FILTER]
        if cluster == "router" or cluster not in known:
            assert guard["disabled"] is True
        else:
            guarded += 1
            assert "disabled" not in guard
            assert guard["check_settings"]["context_extensions"]["weir.service"]
    assert guarded == 2


def test_the_filter_stands_before_all_that_answers_and_is_closed() -> None:
    """It is on by default, asks Auth about no body, and lets nothing pass when Auth cannot be asked."""
    filters = manager(bootstrap(settings(docs=DOCS)))["http_filters"]
    names = [each["name"] for each in filters]
    (guard,) = (each for each in filters if each["name"] == FILTER)
    assert "disabled" not in guard
    config = guard["typed_config"]
    assert config["failure_mode_allow"] is False
    assert config["status_on_error"] == {"code": "ServiceUnavailable"}
    assert config["grpc_service"] == {"envoy_grpc": {"cluster_name": AUTH_CLUSTER}, "timeout": "1.000s"}
    assert "with_request_body" not in config
    assert names.index(FILTER) < names.index("envoy.filters.http.lua")
    assert not {"failure_mode_allow_header_add", "filter_enabled", "deny_at_disable"} & set(config)


def test_without_services_nothing_is_there() -> None:
    """No filter, no cluster, nothing on a route; and no address of Auth is needed."""
    document = bootstrap(EdgeSettings(), auth=None)
    assert FILTER not in json.dumps(document)
    assert set(clusters(document)) == {"router"}


def test_services_need_an_auth() -> None:
    """Without its address there is no bootstrap."""
    with pytest.raises(ValueError, match="Auth has no address"):
        bootstrap(settings(docs=DOCS), auth=None)


def test_a_service_as_it_is_written() -> None:
    """Route, time limit, what Auth is told, and where the service is."""
    document = bootstrap(settings(docs=DOCS, wiki=WIKI))
    docs, wiki = (route for route in routes(document) if route["route"]["cluster"].startswith("service_"))
    assert docs["match"] == {"prefix": "/docs/"}
    assert docs["route"] == {"cluster": "service_docs", "timeout": "7.000s", "idle_timeout": "900.000s"}
    told = docs["typed_per_filter_config"][FILTER]["check_settings"]["context_extensions"]
    assert told == {"weir.service": "docs", "weir.scope": "usage:read"}
    assert wiki["route"]["prefix_rewrite"] == "/"
    told = wiki["typed_per_filter_config"][FILTER]["check_settings"]["context_extensions"]
    assert told == {"weir.service": "wiki", "weir.keep_authorization": "true"}
    assert docs["typed_per_filter_config"]["envoy.filters.http.grpc_json_transcoder"] == OFF
    assert [clusters(document)[f"service_{name}"]["type"] for name in ("docs", "wiki")] == [
        "STATIC",
        "STRICT_DNS",
    ]


@pytest.mark.parametrize(
    ("auth", "place"),
    [
        ("127.0.0.1:50071", {"socket_address": {"address": "127.0.0.1", "port_value": 50071}}),
        ("unix:/run/weir/auth-0.sock", {"pipe": {"path": "/run/weir/auth-0.sock"}}),
    ],
)
def test_auth_is_reached_as_the_transport_says(auth: str, place: dict[str, object]) -> None:
    """Over TCP or a Unix socket, by HTTP/2."""
    cluster = clusters(bootstrap(settings(docs=DOCS), auth))[AUTH_CLUSTER]
    ((locality),) = cluster["load_assignment"]["endpoints"]
    assert locality["lb_endpoints"] == [{"endpoint": {"address": place}}]
    assert "http2_protocol_options" in json.dumps(cluster["typed_extension_protocol_options"])


def test_edge_and_auth_agree_on_the_extensions() -> None:
    """What the edge writes is what Auth reads."""
    assert edge_services.EXTENSION_SERVICE == ext_authz_servicer.EXTENSION_SERVICE
    assert edge_services.EXTENSION_SCOPE == ext_authz_servicer.EXTENSION_SCOPE
    assert edge_services.EXTENSION_KEEP == ext_authz_servicer.EXTENSION_KEEP


def test_identity_that_auth_vouches_for_is_stripped_from_clients() -> None:
    """Every header of identity that a service is given is one that no client can send."""
    assert {"x-weir-key-id", "x-weir-org", "x-weir-team", "x-weir-scopes"} <= set(IDENTITY_HEADERS)


@pytest.mark.parametrize(
    ("prefix", "fault"),
    [
        ("/v1/", "gateway's own"),
        ("/v1/docs/", "gateway's own"),
        ("/healthz/", "gateway's own"),
        ("/weir.auth.v1.Auth/", "gateway's own"),
        ("/grpc.health.v1.Health/", "gateway's own"),
        ("/envoy.service.auth.v3.Authorization/", "gateway's own"),
        ("/", "pattern"),
        ("", "pattern"),
        ("docs/", "pattern"),
        ("/docs", "pattern"),
        ("//docs/", "pattern"),
        ("/docs//", "pattern"),
        ("/docs/../v1/", "pattern"),
        ("/./", "pattern"),
        ("/do%63s/", "pattern"),
        ("/docs/?x=/", "pattern"),
        ("/docs;a/", "pattern"),
        ("/d ocs/", "pattern"),
        ("/docs/\n", "pattern"),
    ],
)
def test_prefixes_that_are_refused(prefix: str, fault: str) -> None:
    """What is the gateway's, what is not whole segments, and what another reader would read otherwise."""
    with pytest.raises(ValidationError, match=fault) as caught:
        settings(docs={**DOCS, "prefix": prefix})
    assert caught.value.errors()[0]["loc"] == ("services", "docs", "prefix")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("address", "127.0.0.1"),
        ("address", "127.0.0.1:0"),
        ("address", "127.0.0.1:65536"),
        ("address", "http://127.0.0.1:80"),
        ("address", "user@host:80"),
        ("scope", "usage"),
        ("scope", ""),
        ("timeout_s", 0),
        ("unheard_of", 1),
    ],
)
def test_values_that_are_refused(name: str, value: object) -> None:
    """Each by its name."""
    with pytest.raises(ValidationError) as caught:
        settings(docs={**DOCS, name: value})
    assert caught.value.errors()[0]["loc"] == ("services", "docs", name)


@pytest.mark.parametrize("name", ["Docs", "1docs", "do-cs", "", "do cs"])
def test_names_that_are_refused(name: str) -> None:
    """Names of clusters and of statistics."""
    with pytest.raises(ValidationError):
        settings(**{name: DOCS})


@pytest.mark.parametrize("other", ["/docs/", "/docs/inner/"])
def test_services_do_not_share_paths(other: str) -> None:
    """Neither twice the same prefix nor one within the other: who guards what would hang on the order."""
    with pytest.raises(
        ValidationError, match=r"other: its prefix .* lies within that of docs|docs: its prefix"
    ):
        settings(docs=DOCS, other={**DOCS, "prefix": other})


def test_neighbours_are_no_overlap() -> None:
    """A prefix ends with its slash, so these are apart."""
    assert (
        len(
            settings(docs=DOCS, other={**DOCS, "prefix": "/docs2/"}, v=({**DOCS, "prefix": "/v1x/"})).services
        )
        == 3
    )
