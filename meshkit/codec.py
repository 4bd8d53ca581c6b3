"""Wire bytes <-> betterproto2 dataclasses, through protobuf's C codec.

betterproto2's own codec takes 100 times as long and accepts malformed input, so bytes are read and written by
protobuf classes made in a private pool from the one committed descriptor set; this module maps those to dataclasses.
Unknown fields are dropped, unknown enum values kept. Nothing here is on a socket.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib import resources
from typing import Any, NamedTuple, Self, TypeVar

from betterproto2 import Message
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError

from gen.message_pool import default_message_pool

MessageT = TypeVar("MessageT", bound=Message)
_Wire = Any  # an instance of a class that protobuf makes at run time

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NANOS_PER_MICRO = 1_000
_NANOS_PER_SECOND = 1_000_000_000


class MalformedMessageError(ValueError):
    """Bytes that are not the message they should be, or a message that no bytes can stand for."""


class NanoDatetime(datetime):
    """A point in time whose nanoseconds `datetime` alone would lose; `sub_micro_ns` is 1 to 999."""

    sub_micro_ns: int = 0

    @classmethod
    def extend(cls, moment: datetime, sub_micro_ns: int) -> Self:
        """The same moment, `sub_micro_ns` later."""
        extended = cls.fromtimestamp(0, tz=UTC).replace(
            year=moment.year, month=moment.month, day=moment.day, hour=moment.hour,
            minute=moment.minute, second=moment.second, microsecond=moment.microsecond,
        )  # fmt: skip
        extended.sub_micro_ns = sub_micro_ns
        return extended


class NanoTimedelta(timedelta):
    """A span whose nanoseconds `timedelta` alone would lose; `sub_micro_ns` is -999 to 999."""

    sub_micro_ns: int = 0


class _Field(NamedTuple):
    """How one field crosses the bridge. `read` and `write` are None where the value crosses as it is."""

    name: str
    oneof: str | None
    is_list: bool
    is_map: bool
    fill: Callable[[Any, _Wire], None] | None
    """Fills a sub-message; None for scalars."""
    read: Callable[[Any], Any] | None
    skip_falsy: bool
    """True where a falsy value is the default and needs no setting (not so for floats: -0.0)."""


class _Shape(NamedTuple):
    dataclass: type[Message]
    wire_class: type[_Wire]
    fields: tuple[_Field, ...]
    readers: dict[str, Callable[[Any], Any]]


class Codec:
    """Encodes and decodes every message of one descriptor set.

    Args:
        descriptor_set: a serialised google.protobuf.FileDescriptorSet, imports before importers.
    """

    def __init__(self, descriptor_set: bytes) -> None:
        files = descriptor_pb2.FileDescriptorSet.FromString(descriptor_set)
        self.pool = descriptor_pool.DescriptorPool()
        for file in files.file:
            self.pool.Add(file)
        self._shapes: dict[type[Message], _Shape] = {}

    def encode(self, message: Message) -> bytes:
        """The message's bytes. Raises MalformedMessageError if a value does not fit its field."""
        shape = self._shape(type(message))
        wire = shape.wire_class()
        try:
            _fill(shape, message, wire)
            data: bytes = wire.SerializeToString()
        except (TypeError, ValueError, OverflowError) as error:
            raise MalformedMessageError(f"{type(message).__name__}: {error}") from error
        return data

    def decode(self, message_type: type[MessageT], data: bytes) -> MessageT:
        """The message in `data`. Raises MalformedMessageError on anything protobuf itself would refuse."""
        shape = self._shape(message_type)
        try:
            return _read(shape, shape.wire_class.FromString(data))
        except (DecodeError, ValueError, OverflowError) as error:
            raise MalformedMessageError(f"{message_type.__name__}: {error}") from error

    def _shape(self, message_type: type[Message]) -> _Shape:
        shape = self._shapes.get(message_type)
        if shape is None:
            name = default_message_pool.type_to_url[message_type].rpartition("/")[2]
            descriptor = self.pool.FindMessageTypeByName(name)
            shape = _Shape(message_type, message_factory.GetMessageClass(descriptor), (), {})
            self._shapes[message_type] = shape  # before its fields, which may be of the same type
            fields = tuple(self._field(message_type, field) for field in descriptor.fields)
            readers = {field.name: field.read for field in fields if field.read is not None}
            shape = self._shapes[message_type] = shape._replace(fields=fields, readers=readers)
        return shape

    def _field(self, message_type: type[Message], field: FieldDescriptor) -> _Field:
        is_map = _is_map(field)
        value = field.message_type.fields_by_name["value"] if is_map else field
        fill, read_one = self._converters(message_type, field.name, value)
        read: Callable[[Any], Any] | None = read_one
        if is_map:
            read = (
                dict if read_one is None else lambda wire: {key: read_one(item) for key, item in wire.items()}
            )
        elif field.is_repeated:
            read = list if read_one is None else lambda wire: [read_one(item) for item in wire]
        return _Field(
            name=field.name,
            oneof=field.containing_oneof.name if field.containing_oneof else None,
            is_list=field.is_repeated and not is_map,
            is_map=is_map,
            fill=fill,
            read=read,
            skip_falsy=not field.has_presence
            and field.cpp_type not in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE),
        )

    def _converters(
        self, owner: type[Message], name: str, field: FieldDescriptor
    ) -> tuple[Callable[[Any, _Wire], None] | None, Callable[[Any], Any] | None]:
        if field.enum_type is not None:
            return None, _python_class(owner, name)
        if field.message_type is None:
            return None, None
        special = _WELL_KNOWN.get(field.message_type.full_name)
        if special is not None:
            return special
        inner = _python_class(owner, name)
        return (
            lambda message, wire: _fill(self._shape(inner), message, wire),
            lambda wire: _read(self._shape(inner), wire),
        )


def _python_class(owner: type[Message], name: str) -> Any:
    """The enum or message class of a field, of a map's values where it is a map."""
    classes = owner._betterproto.cls_by_field  # no public way to it; the minor version is pinned
    return classes.get(f"{name}.value", classes[name])


def _is_map(field: FieldDescriptor) -> bool:
    message: Descriptor | None = field.message_type
    return bool(field.is_repeated and message is not None and message.GetOptions().map_entry)


def _fill(shape: _Shape, message: Message, wire: _Wire) -> None:
    chosen: set[str] = set()
    for field in shape.fields:
        value = getattr(message, field.name)
        if value is None or (field.skip_falsy and not value):
            continue
        if field.oneof is not None:
            if field.oneof in chosen:
                raise ValueError(f"more than one member of {field.oneof} is set")
            chosen.add(field.oneof)
        _set(field, value, wire)


def _set(field: _Field, value: Any, wire: _Wire) -> None:
    if field.is_map:
        target = getattr(wire, field.name)
        for key, item in value.items():
            if field.fill is None:
                target[key] = item
            else:
                field.fill(item, target[key])
    elif field.is_list:
        target = getattr(wire, field.name)
        if field.fill is None:
            target.extend(value)
        else:
            for item in value:
                field.fill(item, target.add())
    elif field.fill is None:
        setattr(wire, field.name, value)
    else:
        child = getattr(wire, field.name)
        child.SetInParent()
        field.fill(value, child)


def _read(shape: _Shape, wire: _Wire) -> Any:
    values = {}
    readers = shape.readers
    for descriptor, value in wire.ListFields():
        name = descriptor.name
        read = readers.get(name)
        values[name] = value if read is None else read(value)
    return shape.dataclass(**values)


def _fill_timestamp(moment: datetime, wire: _Wire) -> None:
    if moment.tzinfo is None:
        raise ValueError("a timestamp needs a time zone")
    micros = (moment - _EPOCH) // timedelta(microseconds=1)
    wire.seconds, rest = divmod(micros, 1_000_000)
    wire.nanos = rest * _NANOS_PER_MICRO + getattr(moment, "sub_micro_ns", 0)


def _read_timestamp(wire: _Wire) -> datetime:
    if not 0 <= wire.nanos < _NANOS_PER_SECOND:
        raise ValueError(f"Timestamp.nanos out of range: {wire.nanos}")
    micros, rest = divmod(wire.nanos, _NANOS_PER_MICRO)
    moment = _EPOCH + timedelta(seconds=wire.seconds, microseconds=micros)
    return NanoDatetime.extend(moment, rest) if rest else moment


def _fill_duration(span: timedelta, wire: _Wire) -> None:
    nanos = (span // timedelta(microseconds=1)) * _NANOS_PER_MICRO + getattr(span, "sub_micro_ns", 0)
    sign = -1 if nanos < 0 else 1
    seconds, rest = divmod(abs(nanos), _NANOS_PER_SECOND)
    wire.seconds, wire.nanos = sign * seconds, sign * rest


def _read_duration(wire: _Wire) -> timedelta:
    if abs(wire.nanos) >= _NANOS_PER_SECOND or wire.seconds * wire.nanos < 0:
        raise ValueError(f"Duration out of range: {wire.seconds} s {wire.nanos} ns")
    sign = -1 if wire.nanos < 0 else 1
    micros, rest = divmod(abs(wire.nanos), _NANOS_PER_MICRO)
    if not rest:
        return timedelta(seconds=wire.seconds, microseconds=sign * micros)
    span = NanoTimedelta(seconds=wire.seconds, microseconds=sign * micros)
    span.sub_micro_ns = sign * rest
    return span


_WELL_KNOWN: dict[str, tuple[Callable[[Any, _Wire], None], Callable[[Any], Any]]] = {
    "google.protobuf.Timestamp": (_fill_timestamp, _read_timestamp),
    "google.protobuf.Duration": (_fill_duration, _read_duration),
}


@cache
def mesh_codec() -> Codec:
    """The codec of Weir's own contracts (gen/weir.binpb); made once per process because it is immutable."""
    return Codec(resources.files("gen").joinpath("weir.binpb").read_bytes())
