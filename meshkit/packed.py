"""Many messages of one kind, each still in its wire form: a tenth of the memory, and next to no time to receive."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar, overload

from typing_extensions import override

T = TypeVar("T")


class Packed(Sequence[T], Generic[T]):
    """Reads like the list of the messages, each unpacked whenever it is asked for.

    Args:
        blobs: the wire form of each.
        unpack: makes the message; raises meshkit.codec.MalformedMessageError.
    """

    __slots__ = ("blobs", "unpack")

    def __init__(self, blobs: Sequence[bytes], unpack: Callable[[bytes], T]) -> None:
        self.blobs = blobs
        self.unpack = unpack

    @override
    def __len__(self) -> int:
        return len(self.blobs)

    @override
    def __iter__(self) -> Iterator[T]:
        return map(self.unpack, self.blobs)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Packed[T]: ...
    @override
    def __getitem__(self, index: int | slice) -> T | Packed[T]:
        if isinstance(index, slice):
            return Packed(self.blobs[index], self.unpack)
        return self.unpack(self.blobs[index])

    @override
    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, Sequence) else NotImplemented

    __hash__ = None  # type: ignore[assignment] # as of a list

    @override
    def __repr__(self) -> str:
        return f"<{len(self)} packed messages>"
