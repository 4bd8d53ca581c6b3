"""Which methods the HTTP paths of the contract have, as its `google.api.http` options say."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources

from google.api import annotations_pb2
from google.protobuf import descriptor_pb2

HTTP_SERVICE = "weir.openai.v1.OpenAI"


def http_methods() -> dict[str, tuple[str, ...]]:
    """Path template, such as `/v1/models/{model=**}` -> its methods in upper case, sorted."""
    found: dict[str, set[str]] = {}
    for method, path in _rules():
        found.setdefault(path, set()).add(method)
    return {path: tuple(sorted(methods)) for path, methods in found.items()}


def _rules() -> Iterator[tuple[str, str]]:
    """Method and path template of every rule. The contract has no rules with further bindings."""
    data = resources.files("gen").joinpath("weir.binpb").read_bytes()
    for file in descriptor_pb2.FileDescriptorSet.FromString(data).file:
        for service in file.service:
            if f"{file.package}.{service.name}" == HTTP_SERVICE:
                for rpc in service.method:
                    rule = rpc.options.Extensions[annotations_pb2.http]
                    kind = rule.WhichOneof("pattern")
                    yield kind.upper(), getattr(rule, kind)
