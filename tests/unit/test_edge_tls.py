"""The edge proves itself to Weir's services, knows each of them by its id, and takes renewed certificates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edge.render import render
from edge.settings import EdgeSettings
from edge.tls import EdgeTls
from meshkit.identity import CertificateFiles

OWN = CertificateFiles(Path("/h/tls/edge"), "spiffe://weir.local/edge")


@pytest.fixture
def tls() -> EdgeTls:
    """As `weir up` sets it up."""
    return EdgeTls(OWN, "weir.local", Path("/h/run"))


def clusters(tls: EdgeTls | None, **settings: Any) -> dict[str, Any]:
    """Of the bootstrap, by name."""
    text = render(
        EdgeSettings.model_validate(settings),
        port=1,
        admin_port=2,
        routers=["127.0.0.1:3"],
        auth="127.0.0.1:4",
        tls=tls,
    )
    return {cluster["name"]: cluster for cluster in json.loads(text)["static_resources"]["clusters"]}


def expected_of(cluster: dict[str, Any]) -> list[Any]:
    """Whom the edge wants to find there."""
    context = cluster["transport_socket"]["typed_config"]["common_tls_context"]["combined_validation_context"]
    found: list[Any] = context["default_validation_context"]["match_typed_subject_alt_names"]
    return found


def test_the_routers_are_known_by_their_id(tls: EdgeTls) -> None:
    """TLS 1.3 with HTTP/2, the edge's own certificate, and nobody but a router at the other end."""
    router = clusters(tls)["router"]
    assert expected_of(router) == [{"san_type": "URI", "matcher": {"exact": "spiffe://weir.local/router"}}]
    config = router["transport_socket"]["typed_config"]
    common = config["common_tls_context"]
    assert set(common["tls_params"].values()) == {"TLSv1_3"}
    assert common["alpn_protocols"] == ["h2"]
    (own,) = common["tls_certificate_sds_secret_configs"]
    assert own["sds_config"]["path_config_source"]["path"] == "/h/run/edge_certificate.json"
    assert config["sni"] == "router.weir"


@pytest.mark.parametrize("server", ["auth", "router"])
def test_auth_is_known_by_its_id(server: Any) -> None:
    """Also where router worker 0 answers for it."""
    services = {"files": {"prefix": "/files/", "address": "127.0.0.1:5"}}
    found = clusters(EdgeTls(OWN, "weir.local", Path("/h/run"), server), services=services)
    assert expected_of(found["auth"])[0]["matcher"] == {"exact": f"spiffe://weir.local/{server}"}


def test_certificates_come_from_files_that_are_watched(tls: EdgeTls) -> None:
    """Envoy reads them anew when the link in their folder is replaced; no key is in a file of ours."""
    files = {path.name: json.loads(text) for path, text in tls.secret_files().items()}
    (own,) = files["edge_certificate.json"]["resources"]
    (authority,) = files["edge_authority.json"]["resources"]
    assert own["tls_certificate"]["private_key"] == {"filename": "/h/tls/edge/tls.key"}
    assert own["tls_certificate"]["certificate_chain"] == {"filename": "/h/tls/edge/tls.crt"}
    assert authority["validation_context"]["trusted_ca"] == {"filename": "/h/tls/edge/ca.crt"}
    for part in (own["tls_certificate"], authority["validation_context"]):
        assert part["watched_directory"] == {"path": "/h/tls/edge"}


def test_without_it_all_is_plain() -> None:
    """Over loopback and sockets."""
    socket = clusters(None)["router"]["transport_socket"]
    assert socket["name"] == "envoy.transport_sockets.raw_buffer"
