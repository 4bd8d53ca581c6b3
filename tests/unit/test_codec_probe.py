"""The codec on what no contract uses yet: maps of messages, recursion, every kind of scalar."""

from collections.abc import Iterator
from types import ModuleType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meshkit.codec import Codec, MalformedMessageError
from tests.fakes.wire import Oracle, compile_probe, fixed

NAME = "weir.probe.v1.Probe"
Probe = tuple[ModuleType, Codec, Oracle]


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Probe]:
    """The probe contract, compiled now."""
    yield compile_probe(tmp_path_factory.mktemp("probe"))  # noqa: PT022 - typed as the other fixtures


@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_round_trip(probe: Probe, data: st.DataObject) -> None:
    """Every kind of field crosses both ways as protobuf has it."""
    module, codec, oracle = probe
    wire = data.draw(oracle.messages(NAME))
    message = codec.decode(module.Probe, wire.SerializeToString())
    back = oracle.wire_class(NAME).FromString(codec.encode(message))
    assert fixed(back) == fixed(wire)
    assert codec.decode(module.Probe, codec.encode(message)) == message


def test_map_of_messages(probe: Probe) -> None:
    """A map's messages are dataclasses, an empty one among them."""
    module, codec, _ = probe
    message = module.Probe(leaves={"": module.Leaf(), "a": module.Leaf(number=-1, note="")})
    assert codec.decode(module.Probe, codec.encode(message)) == message


@pytest.mark.parametrize(
    "members",
    [{"text": "", "count": 0}, {"text": "a", "colour": 1}, {"count": 1, "leaf": "Leaf"}],
    ids=["defaults", "scalars", "message"],
)
def test_two_members_of_a_oneof(probe: Probe, members: dict[str, object]) -> None:
    """A message with two members of a oneof set has no bytes, even where both are at their default."""
    module, codec, _ = probe
    values = {name: module.Leaf() if value == "Leaf" else value for name, value in members.items()}
    with pytest.raises(MalformedMessageError, match="choice"):
        codec.encode(module.Probe(**values))


def test_the_last_member_of_a_oneof_wins(probe: Probe) -> None:
    """Bytes that hold two members are read as protobuf reads them."""
    module, codec, _ = probe
    data = codec.encode(module.Probe(text="a")) + codec.encode(module.Probe(count=7))
    message = codec.decode(module.Probe, data)
    assert (message.text, message.count) == (None, 7)


@pytest.mark.parametrize("depth", [1, 50, 99])
def test_depth_within_the_limit(probe: Probe, depth: int) -> None:
    """Messages nested as deep as protobuf allows cross."""
    module, codec, _ = probe
    message = module.Probe(text="leaf")
    for _ in range(depth):
        message = module.Probe(child=message)
    inner = codec.decode(module.Probe, codec.encode(message))
    for _ in range(depth):
        inner = inner.child
    assert inner.text == "leaf"


@pytest.mark.parametrize("depth", [101, 1_000])
def test_bytes_beyond_the_depth_limit(probe: Probe, depth: int) -> None:
    """Deeper bytes are refused."""
    module, codec, _ = probe
    data = b""
    for _ in range(depth):
        data = b"\x42" + _varint(len(data)) + data
    with pytest.raises(MalformedMessageError):
        codec.decode(module.Probe, data)


def test_dataclasses_too_deep_to_walk(probe: Probe) -> None:
    """A dataclass deeper than Python's stack has no bytes."""
    module, codec, _ = probe
    message = module.Probe()
    for _ in range(5_000):
        message = module.Probe(child=message)
    with pytest.raises(MalformedMessageError):
        codec.encode(message)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes((*out, number))
