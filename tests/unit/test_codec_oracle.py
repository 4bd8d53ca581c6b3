"""The codec against protobuf itself, for every message type of the contracts."""

from dataclasses import fields, is_dataclass
from importlib import import_module, resources
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gen.message_pool import default_message_pool
from meshkit.codec import MalformedMessageError, mesh_codec
from meshkit.packed import Packed
from tests.fakes.wire import Oracle, fixed, has_lawful_times

ORACLE = Oracle(resources.files("gen").joinpath("weir.binpb").read_bytes())
NAMES = sorted(
    f"{file.package}.{message.name}"
    for file in ORACLE.files.file
    for message in file.message_type
    if file.package.startswith("weir.") or message.name == "HttpBody"
)
for package in {name.rpartition(".")[0] for name in NAMES}:
    import_module(f"gen.{package}")  # registers its types
_TYPES = {url.rpartition("/")[2]: kind for url, kind in default_message_pool.url_to_type.items()}
every_message = pytest.mark.parametrize("name", NAMES)
quick = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def _decoded(name: str, data: bytes) -> Any:
    """The message, every packed list of it unpacked."""
    message = mesh_codec().decode(_TYPES[name], data)
    _unpack(message)
    return message


def _unpack(message: Any) -> None:
    for field in fields(message):
        value = getattr(message, field.name)
        if isinstance(value, Packed):
            setattr(message, field.name, list(value))
        elif is_dataclass(value):
            _unpack(value)


def _check(name: str, data: bytes) -> None:
    """The codec refuses what protobuf refuses, and reads the rest as protobuf does."""
    try:
        wire = ORACLE.wire_class(name).FromString(data)
    except DecodeError:
        wire = None
    if wire is None or not has_lawful_times(wire):
        with pytest.raises(MalformedMessageError):
            _decoded(name, data)
        return
    wire.DiscardUnknownFields()
    back = ORACLE.wire_class(name).FromString(mesh_codec().encode(_decoded(name, data)))
    assert fixed(back) == fixed(wire)


def test_the_contracts_are_there() -> None:
    """The parametrised tests below cover every file of proto/weir."""
    packages = {name.rpartition(".")[0] for name in NAMES}
    assert {"weir.router.v1", "weir.auth.v1", "weir.cloud.v1", "weir.ledger.v1", "weir.type.v1"} <= packages


def _in_words(value: Any) -> str:
    """A message in words, for a NaN in a list equals nothing, not even itself; its maps sorted."""
    if is_dataclass(value):
        inner = ((field.name, _in_words(getattr(value, field.name))) for field in fields(value))
        return f"{type(value).__name__}({dict(inner)})"
    if isinstance(value, dict):
        return f"{sorted((key, _in_words(item)) for key, item in value.items())}"
    return f"{[_in_words(item) for item in value]}" if isinstance(value, list) else repr(value)


@every_message
@given(data=st.data())
@quick
def test_round_trip(name: str, data: st.DataObject) -> None:
    """Bytes -> dataclass -> bytes is what protobuf wrote; dataclass -> bytes -> dataclass is the same dataclass."""
    wire = data.draw(ORACLE.messages(name))
    _check(name, wire.SerializeToString())
    message = _decoded(name, wire.SerializeToString())
    assert _in_words(_decoded(name, mesh_codec().encode(message))) == _in_words(message)


@every_message
@given(data=st.data())
@settings(quick, max_examples=5)
def test_every_truncated_prefix(name: str, data: st.DataObject) -> None:
    """Every prefix that protobuf refuses is refused; those that it accepts read the same."""
    whole = data.draw(ORACLE.messages(name)).SerializeToString()
    for length in range(min(len(whole), 400)):
        _check(name, whole[:length])


@every_message
@given(data=st.data())
@quick
def test_damaged_bytes(name: str, data: st.DataObject) -> None:
    """One byte altered anywhere: refused or read as protobuf reads it, and nothing else is raised."""
    whole = bytearray(data.draw(ORACLE.messages(name)).SerializeToString() or b"\0")
    whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    _check(name, bytes(whole))


@every_message
@given(noise=st.binary(max_size=64))
@quick
def test_noise(name: str, noise: bytes) -> None:
    """Random bytes: refused or read as protobuf reads them, and nothing else is raised."""
    _check(name, noise)
