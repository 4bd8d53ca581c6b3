"""Wire bytes <-> betterproto2 dataclasses, through protobuf's C codec.

betterproto2's own codec takes 100 times as long and accepts malformed input, so bytes are read and written by
protobuf classes made in a private pool from the one committed descriptor set; this module maps those to dataclasses.
Unknown fields are dropped, unknown enum values kept. Nothing here is on a socket.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import cache, partial
from importlib import resources
from typing import Any, Final, NamedTuple, TypeVar

from betterproto2 import Message, MessagePool
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, EncodeError

from gen.message_pool import default_message_pool
from meshkit.packed import Packed
from meshkit.wire_time import fill_duration, fill_timestamp, read_duration, read_timestamp

MessageT = TypeVar("MessageT", bound=Message)
_PACKED: Final = frozenset({"weir.auth.v1.KeySnapshot.keys"})
_UNFIT = (AttributeError, TypeError, ValueError, OverflowError, RecursionError, EncodeError)
_Wire = Any  # an instance of a class that protobuf makes at run time


class MalformedMessageError(ValueError):
    """Bytes that are not the message they should be, or a message that no bytes can stand for."""


class _Field(NamedTuple):
    """How one field crosses the bridge."""

    name: str
    oneof: str | None
    is_list: bool
    is_map: bool
    has_presence: bool
    fill: Callable[[Any, _Wire], None] | None
    """Fills a sub-message; None for scalars."""
    read: Callable[[Any], Any] | None
    """Makes the dataclass's value of the wire's; None where it crosses as it is."""
    pack: Callable[[Sequence[Any]], Sequence[bytes]] | None
    """The wire form of each item of a packed list; None for every other field."""
    skip_falsy: bool
    """True where a falsy value is the default and needs no setting (not so for floats: -0.0)."""


class _Shape:
    """One message type on both sides of the bridge."""

    def __init__(self, dataclass: type[Message], descriptor: Descriptor) -> None:
        self.wire_class: type[_Wire] = message_factory.GetMessageClass(descriptor)
        self.fields: tuple[_Field, ...] = ()
        self._dataclass = dataclass

    def fill(self, message: Message, wire: _Wire) -> None:
        chosen: set[str] = set()
        for field in self.fields:
            value = getattr(message, field.name)
            if value is None or (field.skip_falsy and not value):
                continue
            if field.oneof is not None:
                if field.oneof in chosen:
                    raise ValueError(f"more than one member of {field.oneof} is set")
                chosen.add(field.oneof)
            _set(field, value, wire)

    def read(self, wire: _Wire) -> Any:
        values = {}
        for field in self.fields:
            name = field.name
            if field.has_presence and not wire.HasField(name):
                continue
            value = getattr(wire, name)
            values[name] = value if field.read is None else field.read(value)
        return self._dataclass(**values)


class Codec:
    """Encodes and decodes every message of one descriptor set.

    Args:
        descriptor_set: a serialised google.protobuf.FileDescriptorSet, imports before importers.
        types: knows the full name of each dataclass, as betterproto2 generates it.
        packed: the full names of fields, lists of messages, whose items stay in their wire form: a decoded message has
            a meshkit.packed.Packed there, and one to be encoded may have.
    """

    def __init__(self, descriptor_set: bytes, types: MessagePool, packed: Collection[str] = ()) -> None:
        self._types = types
        self._packed = frozenset(packed)
        self._files = descriptor_pb2.FileDescriptorSet.FromString(descriptor_set)
        self.pool = descriptor_pool.DescriptorPool()
        for file in self._files.file:
            self.pool.Add(_with_packed(file, self._packed))
        self._shapes: dict[type[Message], _Shape] = {}

    def new_pool(self) -> descriptor_pool.DescriptorPool:
        """A pool of the same contracts that the caller may add to."""
        pool = descriptor_pool.DescriptorPool()
        for file in self._files.file:
            pool.Add(file)
        return pool

    def encode(self, message: Message) -> bytes:
        """The message's bytes. Raises MalformedMessageError if a value does not fit its field."""
        shape = self._shape(type(message))
        wire = shape.wire_class()
        try:
            shape.fill(message, wire)
            data: bytes = wire.SerializeToString()
        except _UNFIT as error:
            raise MalformedMessageError(f"{type(message).__name__}: {error}") from error
        return data

    def decode(self, message_type: type[MessageT], data: bytes) -> MessageT:
        """The message in `data`. Raises MalformedMessageError on anything that protobuf itself would refuse.

        Also on a Timestamp or Duration beyond the limits that protobuf states for them and does not check.
        """
        shape = self._shape(message_type)
        try:
            message: MessageT = shape.read(shape.wire_class.FromString(data))
        except (DecodeError, ValueError, OverflowError) as error:
            raise MalformedMessageError(f"{message_type.__name__}: {error}") from error
        return message

    def wire_class(self, message_type: type[Message]) -> type[_Wire]:
        """The class that protobuf itself has for the message, for those who make very many."""
        return self._shape(message_type).wire_class

    def _shape(self, message_type: type[Message]) -> _Shape:
        shape = self._shapes.get(message_type)
        if shape is None:
            name = self._types.type_to_url[message_type].rpartition("/")[2]
            descriptor = self.pool.FindMessageTypeByName(name)
            shape = self._shapes[message_type] = _Shape(message_type, descriptor)
            # Only now its fields, which may be of the same type.
            shape.fields = tuple(self._field(message_type, field) for field in descriptor.fields)
        return shape

    def _field(self, message_type: type[Message], field: FieldDescriptor) -> _Field:
        if field.full_name in self._packed:
            return self._packed_field(message_type, field)
        entry = _map_entry(field)
        value = field if entry is None else entry.fields_by_name["value"]
        fill, read_one = self._converters(message_type, field.name, value)
        read: Callable[[Any], Any] | None = read_one
        if entry is not None:
            read = (
                dict if read_one is None else lambda wire: {key: read_one(item) for key, item in wire.items()}
            )
        elif field.is_repeated:
            read = list if read_one is None else lambda wire: [read_one(item) for item in wire]
        return _Field(
            name=field.name,
            oneof=field.containing_oneof.name if field.containing_oneof else None,
            is_list=field.is_repeated and entry is None,
            is_map=entry is not None,
            has_presence=field.has_presence,
            fill=fill,
            read=read,
            pack=None,
            skip_falsy=not field.has_presence
            and field.cpp_type not in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE),
        )

    def _packed_field(self, message_type: type[Message], field: FieldDescriptor) -> _Field:
        unpack = partial(self.decode, _python_class(message_type, field.name))

        def pack(items: Sequence[Any]) -> Sequence[bytes]:
            return items.blobs if isinstance(items, Packed) else [self.encode(item) for item in items]

        return _Field(
            name=field.name,
            oneof=None,
            is_list=True,
            is_map=False,
            has_presence=False,
            fill=None,
            read=lambda wire: Packed(list(wire), unpack),
            pack=pack,
            skip_falsy=True,
        )

    def _converters(
        self, owner: type[Message], name: str, field: FieldDescriptor
    ) -> tuple[Callable[[Any, _Wire], None] | None, Callable[[Any], Any] | None]:
        if field.enum_type is not None:
            return None, _enum_reader(_python_class(owner, name))
        if field.message_type is None:
            return None, None
        special = _WELL_KNOWN.get(field.message_type.full_name)
        if special is not None:
            return special
        inner = self._shape(_python_class(owner, name))
        return inner.fill, inner.read


def _with_packed(
    file: descriptor_pb2.FileDescriptorProto, packed: Collection[str]
) -> descriptor_pb2.FileDescriptorProto:
    """The file with these fields as lists of bytes, which look the same on the wire as lists of messages."""
    altered = descriptor_pb2.FileDescriptorProto()
    altered.CopyFrom(file)
    for message in altered.message_type:
        for field in message.field:
            if f"{file.package}.{message.name}.{field.name}" in packed:
                field.type = descriptor_pb2.FieldDescriptorProto.TYPE_BYTES
                field.ClearField("type_name")
    return altered


def _python_class(owner: type[Message], name: str) -> Any:
    """The enum or message class of a field, of a map's values where it is a map."""
    message: Any = owner
    classes = message._betterproto.cls_by_field  # noqa: SLF001 - no public way to it; the version is pinned
    return classes.get(f"{name}.value", classes[name])


def _enum_reader(enum: Any) -> Callable[[int], Any]:
    """Looks members up without the cost of calling the class, which unknown values need."""
    members = {int(member): member for member in enum}
    return lambda number: members[number] if number in members else enum(number)


def _map_entry(field: FieldDescriptor) -> Descriptor | None:
    """The entry type of a map field, None for any other."""
    message = field.message_type
    return message if message is not None and message.GetOptions().map_entry else None


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
        if field.pack is not None:
            target.extend(field.pack(value))
        elif field.fill is None:
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


_WELL_KNOWN: dict[str, tuple[Callable[[Any, _Wire], None], Callable[[Any], Any]]] = {
    "google.protobuf.Timestamp": (fill_timestamp, read_timestamp),
    "google.protobuf.Duration": (fill_duration, read_duration),
}


@cache
def mesh_codec() -> Codec:
    """The codec of Weir's own contracts (gen/weir.binpb); made once per process because it is immutable."""
    return Codec(resources.files("gen").joinpath("weir.binpb").read_bytes(), default_message_pool, _PACKED)
