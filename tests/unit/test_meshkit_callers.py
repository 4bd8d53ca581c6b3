"""The table of who may call what has a row for every RPC, and says what it must."""

from __future__ import annotations

from importlib import resources

import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from prometheus_client import CollectorRegistry

from meshkit.callers import CALLERS, HEALTH, REFLECTION, Gate, may_call
from meshkit.errors import Forbidden
from meshkit.identity import SERVICES
from meshkit.telemetry import Logger


def every_rpc() -> set[str]:
    """The path of each RPC that some service of ours serves: of our contracts, of health and of reflection."""
    files = list(
        descriptor_pb2.FileDescriptorSet.FromString(
            resources.files("gen").joinpath("weir.binpb").read_bytes()
        ).file
    )
    for foreign in (health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR):
        file = descriptor_pb2.FileDescriptorProto()
        foreign.CopyToProto(file)
        files.append(file)
    return {
        f"/{file.package}.{service.name}/{rpc.name}"
        for file in files
        for service in file.service
        for rpc in service.method
    }


def test_every_rpc_has_a_row_and_every_row_an_rpc() -> None:
    """A new RPC is nobody's until somebody thought of who may call it; a row for none is a slip of the pen."""
    rpcs = every_rpc()
    # grpcio also knows health's List, which ours does not serve.
    assert rpcs - set(CALLERS) <= {f"{HEALTH}List"}
    assert set(CALLERS) - rpcs == set()


def test_every_row_names_services_that_exist() -> None:
    """And at least one of them."""
    assert all(callers and callers <= set(SERVICES) for callers in CALLERS.values())


@pytest.mark.parametrize(
    "path",
    [path for path in CALLERS if "CloudAdapter" in path] + ["/weir.ledger.v1.Ledger/Record"],
)
def test_the_router_alone_spends(path: str) -> None:
    """Every method of CloudAdapter, and the ledger's Record."""
    assert CALLERS[path] == {"router"}


def test_who_may_ask_for_the_rest() -> None:
    """Administration is the operator's, requests come by the edge, health is everybody's."""
    auth = {path.rpartition("/")[2]: callers for path, callers in CALLERS.items() if ".Auth/" in path}
    assert {name for name, callers in auth.items() if callers == {"operator"}} == {
        "CreateKey", "ListKeys", "GetKey", "RotateKey", "RevokeKey", "SetKeySampling", "ListAudit", "ListSamples",
    }  # fmt: skip
    assert {name for name, callers in auth.items() if callers == {"router"}} == {
        "WatchKeys", "LeaseRate", "ReportRefusals", "KeepSamples",
    }  # fmt: skip
    for path, callers in CALLERS.items():
        if "weir.router." in path or "weir.openai." in path:
            assert callers == {"edge", "operator"}
    assert CALLERS[f"{HEALTH}Check"] == set(SERVICES)
    assert CALLERS[REFLECTION] == {"edge", "operator"}


def test_an_unknown_method_is_nobody_s() -> None:
    """Not even the operator's."""
    assert not any(may_call(service, "/weir.auth.v1.Auth/New") for service in SERVICES)


class Context:
    """Of a call."""

    def peer(self) -> str:
        """Where from."""
        return "ipv4:127.0.0.1:4711"


def test_the_gate_counts_and_tells_whom_it_refuses(capfd: pytest.CaptureFixture[str]) -> None:
    """The error names the caller and the method; so does the log, and the metric counts by method."""
    registry, record = CollectorRegistry(), "/weir.ledger.v1.Ledger/Record"
    gate = Gate(lambda _: "edge", registry, Logger("ledger"))
    with pytest.raises(Forbidden, match=r"edge may not call /weir\.ledger\.v1\.Ledger/Record"):
        gate.admit(Context(), record)
    assert registry.get_sample_value("weir_rpc_callers_refused_total", {"method": record}) == 1
    line = capfd.readouterr().err
    assert '"method":"/weir.ledger.v1.Ledger/Record"' in line
    assert '"caller":"edge"' in line
    assert "127.0.0.1:4711" in line


def test_a_caller_that_proves_nothing_where_proof_is_owed() -> None:
    """It may call nothing, except health where Kubernetes' own probes come."""
    strict = Gate(lambda _: "", CollectorRegistry(), Logger("x", -1))
    for path in CALLERS:
        with pytest.raises(Forbidden, match="proves no service"):
            strict.admit(Context(), path)
    probed = Gate(lambda _: "", CollectorRegistry(), Logger("x", -1), open_health=True)
    assert probed.admit(Context(), f"{HEALTH}Check") == ""
    with pytest.raises(Forbidden):
        probed.admit(Context(), REFLECTION)


def test_where_no_proof_is_owed_everybody_may_call() -> None:
    """Over Unix sockets the file system has let the caller in already; it is known as nobody."""
    gate = Gate(lambda _: None, CollectorRegistry(), Logger("x", -1))
    assert {gate.admit(Context(), path) for path in CALLERS} == {""}
