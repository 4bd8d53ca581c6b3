"""Who may call what: the one table of RPCs and the services that may call them, and the gate that keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter

from meshkit.errors import Forbidden
from meshkit.identity import SERVICES, Who
from meshkit.telemetry import Logger

_EVERYBODY: Final = frozenset(SERVICES)
_ROUTER: Final = frozenset({"router"})
_OPERATOR: Final = frozenset({"operator"})
_FRONT: Final = frozenset({"edge", "operator"})
_CHECKERS: Final = frozenset({"router", "ledger", "operator"})

HEALTH: Final = "/grpc.health.v1.Health/"
REFLECTION: Final = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"


def _rows(service: str, callers: frozenset[str], *methods: str) -> dict[str, frozenset[str]]:
    return {f"/{service}/{method}": callers for method in methods}


CALLERS: Final[Mapping[str, frozenset[str]]] = MappingProxyType({
    # The adapter spends money with the providers' secrets, and a record is what somebody pays.
    **_rows("weir.cloud.v1.CloudAdapter", _ROUTER, "Generate", "Embed", "ListProviders"),
    **_rows("weir.ledger.v1.Ledger", _ROUTER, "Record"),
    # An administrator's key is needed as well.
    **_rows("weir.ledger.v1.Ledger", _OPERATOR, "Usage"),
    **_rows("weir.auth.v1.Auth", _ROUTER, "WatchKeys", "LeaseRate", "ReportRefusals", "KeepSamples"),
    **_rows("weir.auth.v1.Auth", _CHECKERS, "Authenticate"),
    **_rows(
        "weir.auth.v1.Auth", _OPERATOR,
        "CreateKey", "ListKeys", "GetKey", "RotateKey", "RevokeKey", "SetKeySampling", "ListAudit", "ListSamples",
    ),
    **_rows("envoy.service.auth.v3.Authorization", frozenset({"edge"}), "Check"),
    **_rows("weir.router.v1.Router", _FRONT, "Generate", "Embed", "ListModels"),
    **_rows(
        "weir.openai.v1.OpenAI", _FRONT,
        "ChatCompletions", "Completions", "Responses", "Embeddings", "ListModels", "GetModel",
    ),
    **_rows("grpc.health.v1.Health", _EVERYBODY, "Check", "Watch"),
    # Clients of the typed contract read it through the edge, which reaches routers alone.
    REFLECTION: _FRONT,
})  # fmt: skip
"""By the RPC's path. What has no row may be called by nobody."""


def may_call(caller: str, path: str) -> bool:
    """Whether the service may call the RPC."""
    return caller in CALLERS.get(path, frozenset())


class Gate:
    """Lets in whom the table names, where the transport proves callers.

    Args:
        who: what a call's context proves of its caller.
        open_health: whether health is told to callers that prove nothing: Kubernetes' own probes have no certificate.
    """

    def __init__(
        self, who: Who, registry: CollectorRegistry, log: Logger, *, open_health: bool = False
    ) -> None:
        self._who = who
        self._log = log
        self._open_health = open_health
        self._refused = Counter(
            "weir_rpc_callers_refused", "RPCs refused to the service that called.", ("method",), registry=registry
        )  # fmt: skip

    def admit(self, context: Any, path: str) -> str:
        """The service that calls; empty where the transport proves nothing. Raises Forbidden."""
        caller = self._who(context)
        if caller is None:
            return ""
        if may_call(caller, path) or (self._open_health and path.startswith(HEALTH)):
            return caller
        self._refused.labels(path).inc()
        self._log.warning("caller refused", method=path, caller=caller, address=context.peer())
        raise refusal(caller, path)


def refusal(caller: str, path: str) -> Forbidden:
    """What a service is told that may not call an RPC."""
    return Forbidden(f"{caller or 'a caller that proves no service of this mesh'} may not call {path}")
