"""The output items of a Responses answer as they grow, and the events that tell of it.

A message is done when a tool call begins; calls are done at the end, for providers may mix the pieces of parallel
ones. Events lack their `sequence_number`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple, Protocol

from gen.weir.type.v1 import ToolCallDelta

Event = dict[str, Any]
Status = Literal["in_progress", "completed", "incomplete"]


class _Item(Protocol):
    """One item of the output."""

    done: bool

    def begin(self) -> list[Event]:
        """The events with which it begins."""

    def end(self, status: Status) -> list[Event]:
        """The events with which it ends."""

    def object(self) -> dict[str, Any]:
        """The item as it is now."""


class _Kind(NamedTuple):
    """A kind of content."""

    events: str
    """What its events' names begin with."""
    type: str
    text: str
    """The field with its text."""
    part: Mapping[str, Any]
    """What else its parts have."""
    event: Mapping[str, Any]
    """What else its deltas have, and the event that ends them."""


_TEXT: Final = _Kind(
    "response.output_text",
    "output_text",
    "text",
    MappingProxyType({"annotations": (), "logprobs": ()}),
    MappingProxyType({"logprobs": ()}),
)
_REFUSAL: Final = _Kind("response.refusal", "refusal", "refusal", MappingProxyType({}), MappingProxyType({}))


class _Message:
    """A message with one part: text or a refusal."""

    def __init__(self, answer_id: str, index: int, kind: _Kind) -> None:
        self.kind = kind
        self.done = False
        self._at = {"item_id": f"msg_{answer_id}_{index}", "output_index": index}
        self._texts: list[str] = []
        self._status: Status = "in_progress"

    def begin(self) -> list[Event]:
        index = self._at["output_index"]
        added = {"type": "response.output_item.added", "output_index": index, "item": self._object([])}
        return [added, self._event("response.content_part.added", part=self._part())]

    def grow(self, text: str) -> Event:
        self._texts.append(text)
        return self._event(f"{self.kind.events}.delta", delta=text, **self.kind.event)

    def end(self, status: Status) -> list[Event]:
        self.done, self._status = True, status
        part = self._part()
        index = self._at["output_index"]
        return [
            self._event(
                f"{self.kind.events}.done", **{self.kind.text: part[self.kind.text]}, **self.kind.event
            ),
            self._event("response.content_part.done", part=part),
            {"type": "response.output_item.done", "output_index": index, "item": self._object([part])},
        ]

    def object(self) -> dict[str, Any]:
        return self._object([self._part()])

    def _object(self, content: list[dict[str, Any]]) -> dict[str, Any]:
        head = {"id": self._at["item_id"], "type": "message", "status": self._status, "role": "assistant"}
        return {**head, "content": content}

    def _part(self) -> dict[str, Any]:
        self._texts = ["".join(self._texts)]
        return {"type": self.kind.type, self.kind.text: self._texts[0], **self.kind.part}

    def _event(self, name: str, **more: Any) -> Event:
        return {"type": name, **self._at, "content_index": 0, **more}


class _Call:
    """A call of a function of the client's."""

    def __init__(self, answer_id: str, index: int, begun: ToolCallDelta) -> None:
        self.done = False
        self._at = {"item_id": f"fc_{answer_id}_{index}", "output_index": index}
        self._call_id = begun.id or f"call_{answer_id}_{index}"
        self._name = begun.name
        self._texts: list[str] = []
        self._status: Status = "in_progress"

    def begin(self) -> list[Event]:
        index = self._at["output_index"]
        return [{"type": "response.output_item.added", "output_index": index, "item": self.object()}]

    def grow(self, text: str) -> Event:
        self._texts.append(text)
        return {"type": "response.function_call_arguments.delta", **self._at, "delta": text}

    def end(self, status: Status) -> list[Event]:
        self.done, self._status = True, status
        item = self.object()
        said = {"name": self._name, "arguments": item["arguments"]}
        return [
            {"type": "response.function_call_arguments.done", **self._at, **said},
            {"type": "response.output_item.done", "output_index": self._at["output_index"], "item": item},
        ]

    def object(self) -> dict[str, Any]:
        self._texts = ["".join(self._texts)]
        return {
            "id": self._at["item_id"],
            "type": "function_call",
            "status": self._status,
            "call_id": self._call_id,
            "name": self._name,
            "arguments": self._texts[0],
        }


class Output:
    """The output of one answer.

    Args:
        answer_id: makes the items' ids, each with its place in the output.
    """

    def __init__(self, answer_id: str) -> None:
        self._answer_id = answer_id
        self._items: list[_Item] = []
        self._message: _Message | None = None
        self._calls: dict[int, _Call] = {}

    def add(self, text: str, refusal: str, calls: Sequence[ToolCallDelta]) -> list[Event]:
        """More of the answer, in this order."""
        events: list[Event] = []
        if text:
            events += self._say(_TEXT, text)
        if refusal:
            events += self._say(_REFUSAL, refusal)
        for delta in calls:
            events += self._call(delta)
        return events

    def end(self, *, cut: bool) -> list[Event]:
        """Ends what is open; an answer without anything is an empty message. `cut`: the last item is not whole."""
        events = [] if self._items else self._say(_TEXT, "")
        for item in self._items:
            if not item.done:
                events += item.end("incomplete" if cut and item is self._items[-1] else "completed")
        return events

    def objects(self) -> list[dict[str, Any]]:
        """The items as they are now."""
        return [item.object() for item in self._items]

    def _say(self, kind: _Kind, text: str) -> list[Event]:
        events: list[Event] = []
        message = self._message
        if message is None or message.kind.type != kind.type:
            events += self._end_message()
            message = self._message = _Message(self._answer_id, len(self._items), kind)
            events += self._begin(message)
        if text:
            events.append(message.grow(text))
        return events

    def _call(self, delta: ToolCallDelta) -> list[Event]:
        events: list[Event] = []
        call = self._calls.get(delta.index)
        if call is None:
            events += self._end_message()
            call = self._calls[delta.index] = _Call(self._answer_id, len(self._items), delta)
            events += self._begin(call)
        if delta.arguments:
            events.append(call.grow(delta.arguments))
        return events

    def _begin(self, item: _Item) -> list[Event]:
        self._items.append(item)
        return item.begin()

    def _end_message(self) -> list[Event]:
        message, self._message = self._message, None
        return [] if message is None else message.end("completed")
