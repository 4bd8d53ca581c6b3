"""Messages of any type, made by protobuf itself from descriptors: the oracle of the codec's tests."""

import importlib
import sys
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from hypothesis import strategies as st

from meshkit.codec import Codec
from tools.generate import messages as generate_messages

Wire = Any  # an instance of a class that protobuf makes at run time

_MAX_DEPTH = 3
_TIMESTAMP_S = (-62_135_596_800, 253_402_300_799)  # the years 1 to 9999
_DURATION_S = 315_576_000_000  # ten thousand years
_INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}


class Oracle:
    """protobuf's own classes for a descriptor set, in a pool apart from the codec's."""

    def __init__(self, descriptor_set: bytes) -> None:
        self.files = descriptor_pb2.FileDescriptorSet.FromString(descriptor_set)
        self._pool = descriptor_pool.DescriptorPool()
        for file in self.files.file:
            self._pool.Add(file)

    def wire_class(self, full_name: str) -> Any:
        return message_factory.GetMessageClass(self._pool.FindMessageTypeByName(full_name))

    def messages(self, full_name: str) -> st.SearchStrategy[Wire]:
        """Any message of the type whose times are within protobuf's stated limits."""
        return st.composite(_message)(self.wire_class(full_name))


def _message(draw: Any, wire_class: Any, depth: int = 0) -> Wire:
    wire = wire_class()
    _fill(draw, wire, depth)
    return wire


def _fill(draw: Any, wire: Wire, depth: int) -> None:
    descriptor: Descriptor = wire.DESCRIPTOR
    if descriptor.full_name == "google.protobuf.Timestamp":
        wire.seconds = draw(st.integers(*_TIMESTAMP_S))
        wire.nanos = draw(st.integers(0, 999_999_999))
    elif descriptor.full_name == "google.protobuf.Duration":
        sign = draw(st.sampled_from((-1, 1)))
        wire.seconds = sign * draw(st.integers(0, _DURATION_S - 1))
        wire.nanos = sign * draw(st.integers(0, 999_999_999))
    else:
        for field in _chosen(draw, descriptor):
            _fill_field(draw, wire, field, depth)


def _chosen(draw: Any, descriptor: Descriptor) -> list[FieldDescriptor]:
    """Some of the fields, at most one of each oneof."""
    chosen = [field for field in descriptor.fields if field.containing_oneof is None and draw(st.booleans())]
    for oneof in descriptor.oneofs:
        member = draw(st.sampled_from((None, *oneof.fields)))
        chosen += [] if member is None else [member]
    return chosen


def _fill_field(draw: Any, wire: Wire, field: FieldDescriptor, depth: int) -> None:
    target = getattr(wire, field.name)
    if field.message_type is None:
        if field.is_repeated:
            target.extend(draw(st.lists(_scalar(field), max_size=3)))
        else:
            setattr(wire, field.name, draw(_scalar(field)))
    elif depth >= _MAX_DEPTH:
        return
    elif field.message_type.GetOptions().map_entry:
        _fill_map(draw, target, field.message_type, depth)
    elif field.is_repeated:
        for _ in range(draw(st.integers(0, 2))):
            _fill(draw, target.add(), depth + 1)
    else:
        target.SetInParent()
        _fill(draw, target, depth + 1)


def _fill_map(draw: Any, target: Any, entry: Descriptor, depth: int) -> None:
    value = entry.fields_by_name["value"]
    for key in draw(st.lists(_scalar(entry.fields_by_name["key"]), max_size=3, unique=True)):
        if value.message_type is None:
            target[key] = draw(_scalar(value))
        else:
            _fill(draw, target[key], depth + 1)


def _scalar(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    if field.enum_type is not None:
        known = st.sampled_from([value.number for value in field.enum_type.values])
        return known | st.integers(-(2**31), 2**31 - 1)
    if field.cpp_type in _INTEGERS:
        return st.integers(*_INTEGERS[field.cpp_type])
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return st.booleans()
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return st.binary(max_size=20) if field.type == FieldDescriptor.TYPE_BYTES else st.text(max_size=20)
    return st.floats(width=32 if field.cpp_type == FieldDescriptor.CPPTYPE_FLOAT else 64)


def fixed(wire: Wire) -> bytes:
    """The message's bytes with maps in order: equal for equal messages, NaN and -0.0 included.

    A signalling NaN of 32 bits counts as the quiet one that it becomes in any float of Python's.
    """
    copy = type(wire)()
    copy.CopyFrom(wire)
    _through_python(copy)
    data: bytes = copy.SerializeToString(deterministic=True)
    return data


def _through_python(wire: Wire) -> None:
    for field, value in wire.ListFields():
        if field.cpp_type != FieldDescriptor.CPPTYPE_FLOAT:
            continue
        if field.is_repeated:
            numbers = list(value)
            del value[:]
            value.extend(numbers)
        else:
            setattr(wire, field.name, value)
    for child in _children(wire):
        _through_python(child)


def has_lawful_times(wire: Wire) -> bool:
    """False where a Timestamp or Duration anywhere inside is beyond protobuf's stated limits."""
    name = wire.DESCRIPTOR.full_name
    if name == "google.protobuf.Timestamp":
        return bool(_TIMESTAMP_S[0] <= wire.seconds <= _TIMESTAMP_S[1] and 0 <= wire.nanos <= 999_999_999)
    if name == "google.protobuf.Duration":
        in_range = abs(wire.seconds) + (wire.nanos != 0) <= _DURATION_S and abs(wire.nanos) <= 999_999_999
        return bool(in_range and wire.seconds * wire.nanos >= 0)
    return all(has_lawful_times(child) for child in _children(wire))


def _children(wire: Wire) -> list[Wire]:
    found: list[Wire] = []
    for field, value in wire.ListFields():
        if field.message_type is None:
            continue
        if field.message_type.GetOptions().map_entry:
            found += [item for item in value.values() if hasattr(item, "DESCRIPTOR")]
        else:
            found += list(value) if field.is_repeated else [value]
    return found


def compile_probe(folder: Path) -> tuple[ModuleType, Codec, Oracle]:
    """tests/data/probe.proto with the project's own compilers: its dataclasses, a codec and an oracle."""
    name = f"probe_gen_{datetime.now().timestamp():.0f}"  # noqa: DTZ005 - only a name that no other import has
    out = folder / name
    out.mkdir()
    generate_messages(Path(__file__).parent.parent / "data", ["probe.proto"], out)
    sys.path.insert(0, str(folder))
    try:
        module = importlib.import_module(f"{name}.weir.probe.v1")
        pool = importlib.import_module(f"{name}.message_pool").default_message_pool
    finally:
        sys.path.remove(str(folder))
    data = (out / "weir.binpb").read_bytes()
    return module, Codec(data, pool), Oracle(data)
