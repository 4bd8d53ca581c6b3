"""How the edge proves itself to Weir's services and knows them, where the transport is mtls.

The certificates come by Envoy's secret discovery from files, so that it takes renewed ones without a restart.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from meshkit.identity import CertificateFiles, dns_name, spiffe_id

_TYPES: Final = "type.googleapis.com/envoy.extensions.transport_sockets"
_SECRET: Final = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"  # noqa: S105 - the name of a message
_OWN: Final = "edge_certificate"
_AUTHORITY: Final = "edge_authority"
_PLAIN: Final[Mapping[str, Any]] = {
    "name": "envoy.transport_sockets.raw_buffer",
    "typed_config": {"@type": f"{_TYPES}.raw_buffer.v3.RawBuffer"},
}


@dataclass(frozen=True)
class EdgeTls:
    """The edge's part in transport mtls."""

    own: CertificateFiles
    trust_domain: str
    folder: Path
    """Where the files of `secret_files` lie."""
    auth_server: str = "auth"
    """The service that answers for Auth; in the compact topology `router`."""

    def secret_files(self) -> dict[Path, str]:
        """What Envoy reads its certificates by: path -> content."""
        watched = {"watched_directory": {"path": str(self.own.directory)}}
        own = {
            "certificate_chain": {"filename": str(self.own.certificate)},
            "private_key": {"filename": str(self.own.key)},
            **watched,
        }
        authority = {"trusted_ca": {"filename": str(self.own.authorities)}, **watched}
        return {
            self._file(_OWN): _secret(_OWN, "tls_certificate", own),
            self._file(_AUTHORITY): _secret(_AUTHORITY, "validation_context", authority),
        }

    def socket(self, server: str) -> dict[str, Any]:
        """The `transport_socket` of a cluster whose endpoints must all be `server`."""
        expected = {"san_type": "URI", "matcher": {"exact": spiffe_id(self.trust_domain, server)}}
        common = {
            # As a client Envoy offers 1.2 at most unless told.
            "tls_params": {
                "tls_minimum_protocol_version": "TLSv1_3",
                "tls_maximum_protocol_version": "TLSv1_3",
            },
            "alpn_protocols": ["h2"],
            "tls_certificate_sds_secret_configs": [self._source(_OWN)],
            "combined_validation_context": {
                "default_validation_context": {"match_typed_subject_alt_names": [expected]},
                "validation_context_sds_secret_config": self._source(_AUTHORITY),
            },
        }
        return {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": f"{_TYPES}.tls.v3.UpstreamTlsContext",
                "sni": dns_name(server),
                # A resumed session would prove an old certificate.
                "max_session_keys": 0,
                "common_tls_context": common,
            },
        }

    def _source(self, name: str) -> dict[str, Any]:
        path = {"path": str(self._file(name))}
        return {"name": name, "sds_config": {"path_config_source": path, "resource_api_version": "V3"}}

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.json"


def transport_socket(tls: EdgeTls | None, server: str) -> Mapping[str, Any]:
    """The `transport_socket` of a cluster of one of Weir's services: plain where there is no TLS between them."""
    return _PLAIN if tls is None else tls.socket(server)


def _secret(name: str, kind: str, content: Mapping[str, Any]) -> str:
    return json.dumps({"resources": [{"@type": _SECRET, "name": name, kind: content}]}, indent=1)
