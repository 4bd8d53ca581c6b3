"""Reads the tool calls out of a local model's text, as it is written.

Hermes' convention (ChatML, SmolLM2) is `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`, with one call or a
list of them; Mistral's is `[TOOL_CALLS] [{...}, {...}]`, whose marker a backend may leave out as a special token.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Final, NamedTuple

import msgspec

from dialects.chat_template import TemplateName
from dialects.json_span import JsonSpan
from gen.weir.cloud.v1 import GenerateResponse as Piece
from gen.weir.type.v1 import FinishReason, Tool, ToolCallDelta

MAX_CALL_CHARS: Final = 262_144
"""Of a call that is held back until it is whole; a longer one is given as text."""
MAX_MARGIN_CHARS: Final = 64
"""Of white space that is held back since a call may follow, which drops it."""
_ID_BYTES: Final = 12
_BARE: Final = re.compile(r"\s*\[\s*\{")
_MAY_BE_BARE: Final = re.compile(r"\s*(?:\[\s*)?")


class _Convention(NamedTuple):
    opening: str
    closing: str
    bare: bool
    """Whether an answer that begins with a list of objects begins with calls."""


_HERMES = _Convention("<tool_call>", "</tool_call>", bare=False)
_CONVENTIONS: Mapping[TemplateName, _Convention] = MappingProxyType(
    {
        "chatml": _HERMES,
        "smollm2": _HERMES,
        "mistral_instruct": _Convention("[TOOL_CALLS]", "", bare=True),
    }
)


_NO_ARGUMENTS: Final = msgspec.Raw(b"{}")


class _Written(msgspec.Struct, gc=False):
    """A call as models write it."""

    name: str
    arguments: msgspec.Raw = _NO_ARGUMENTS
    parameters: msgspec.Raw = _NO_ARGUMENTS
    """What some write in place of `arguments`."""


_CALLS = msgspec.json.Decoder(_Written | list[_Written])
_OBJECT = msgspec.json.Decoder(dict[str, object])


class LocalToolCalls:
    """The calls of one answer.

    Text passes on at once. A call is held back until its JSON is whole, and given as one delta; what turns out to be no
    call of a tool that was offered is given as the text that it is. White space before a call, and at the end behind
    one, is dropped.

    Args:
        template: tells the model's convention.
        tools: those that were offered.
        parallel: False ends the answer with its first call; what follows is dropped.
        random_bytes: makes so many; for ids.
        goes_on: the text goes on from an answer that has begun.
    """

    def __init__(
        self,
        template: TemplateName,
        tools: Sequence[Tool],
        random_bytes: Callable[[int], bytes],
        *,
        parallel: bool = True,
        goes_on: bool = False,
    ) -> None:
        self._convention = _CONVENTIONS[template]
        self._names = frozenset(tool.name for tool in tools)
        self._random_bytes = random_bytes
        self._parallel = parallel
        self._may_be_bare = self._convention.bare and not goes_on
        self._state: Callable[[], bool] = self._in_text
        self._held = ""
        self._call = _Held("")
        self._texts: list[str] = []
        self._deltas: list[ToolCallDelta] = []
        self._given = 0

    def read(self, piece: Piece) -> Piece:
        """A piece of the answer with its calls taken out of its text; the finished one tells that there were any."""
        self._held += piece.text
        while self._state():
            pass
        if piece.finished:
            self._end()
        text, deltas = "".join(self._texts), self._deltas
        self._texts, self._deltas = [], []
        finish = piece.finish_reason
        if self._given and finish == FinishReason.STOP:
            finish = FinishReason.TOOL_CALLS
        if text == piece.text and not deltas and finish == piece.finish_reason:
            return piece
        return replace(
            piece, text=text, tool_calls=deltas, tool_call_begun=bool(deltas), finish_reason=finish
        )

    def _in_text(self) -> bool:
        """Each state takes what it can of `_held`, and tells whether there is more to do."""
        if self._may_be_bare:
            if len(self._held) <= MAX_MARGIN_CHARS and _MAY_BE_BARE.fullmatch(self._held):
                return False
            self._may_be_bare = False
            if _BARE.match(self._held):
                return self._enter_call("")
        before, opening, after = self._held.partition(self._convention.opening)
        if opening:
            self._say(before.rstrip())
            self._held = after
            return self._enter_call(before[len(before.rstrip()) :] + opening)
        sure = self._sure_chars()
        self._say(self._held[:sure])
        self._held = self._held[sure:]
        return False

    def _sure_chars(self) -> int:
        """How many characters of `_held` cannot belong to a call that follows."""
        opening, text = self._convention.opening, self._held
        sure = len(text)
        for size in range(min(len(opening) - 1, len(text)), 0, -1):
            if text.endswith(opening[:size]):
                sure -= size
                break
        margin = len(text[:sure].rstrip())
        return margin if sure - margin <= MAX_MARGIN_CHARS else sure

    def _enter_call(self, opening: str) -> bool:
        self._call = _Held(opening)
        self._state = self._in_call
        return True

    def _in_call(self) -> bool:
        call, text = self._call, self._held
        end = call.take(text)
        if call.is_none:
            self._give_up()
            return True
        self._held = "" if end is None else text[end:]
        if end is None:
            if call.chars > MAX_CALL_CHARS:
                self._give_up()
            return False
        calls = self._calls(call.value())
        if calls is None:
            self._give_up()
            return True
        self._deltas.extend(self._delta(name, arguments) for name, arguments in calls)
        self._state = self._behind_call if self._parallel else self._over
        return True

    def _give_up(self) -> None:
        """What was held back is text."""
        self._say(self._call.text())
        self._state = self._in_text

    def _behind_call(self) -> bool:
        closing, text = self._convention.closing, self._held.lstrip()
        if len(text) < len(closing) and closing.startswith(text):
            return False
        if closing and text.startswith(closing):
            self._held = text.removeprefix(closing)
        self._state = self._in_text
        return True

    def _over(self) -> bool:
        self._held = ""
        return False

    def _end(self) -> None:
        if self._state == self._in_call:
            self._give_up()
        if self._state == self._in_text:
            self._say(self._held.rstrip() if self._given else self._held)
        self._held = ""

    def _say(self, text: str) -> None:
        if text:
            self._texts.append(text)

    def _calls(self, text: str) -> list[tuple[str, str]] | None:
        """Names and arguments; None where it is no call of what was offered."""
        try:
            written = _CALLS.decode(text)
        except (msgspec.DecodeError, RecursionError):
            return None
        listed = [written] if isinstance(written, _Written) else written
        calls = [(call.name, _arguments(call)) for call in listed[: None if self._parallel else 1]]
        whole = [(name, text) for name, text in calls if name in self._names and text is not None]
        return whole if whole and len(whole) == len(calls) else None

    def _delta(self, name: str, arguments: str) -> ToolCallDelta:
        index, self._given = self._given, self._given + 1
        call_id = f"call_{self._random_bytes(_ID_BYTES).hex()}"
        return ToolCallDelta(index=index, id=call_id, name=name, arguments=arguments)


class _Held:
    """A call that is not whole yet.

    Args:
        opening: what stood before its JSON.
    """

    def __init__(self, opening: str) -> None:
        self._parts = [opening]
        self._span = JsonSpan()
        self._begun = False
        self.is_none = False
        """True if what follows the opening cannot be a call."""
        self.chars = len(opening)

    def take(self, text: str) -> int | None:
        """Takes what belongs to it; how much that was if it is whole now, else None, and all was taken.

        Where it turns out to be none, nothing was taken.
        """
        start = 0
        if not self._begun:
            start = len(text) - len(text.lstrip())
            self._begun = start < len(text)
            self.is_none = self._begun and text[start] not in "{["
            if self.is_none:
                return None
        end = self._span.feed(text[start:]) if self._begun else None
        whole = None if end is None else start + end
        self._parts.append(text[:whole])
        self.chars += len(self._parts[-1])
        return whole

    def value(self) -> str:
        """Its JSON."""
        return "".join(self._parts[1:])

    def text(self) -> str:
        """All of it, as it was written."""
        return "".join(self._parts)


def _arguments(call: _Written) -> str | None:
    """The arguments as the model wrote them, which some do as a string; None where they are no object."""
    raw = call.parameters if call.arguments is _NO_ARGUMENTS else call.arguments
    text = bytes(raw).decode()
    try:
        if text.startswith('"'):
            text = msgspec.json.decode(text, type=str)
        _OBJECT.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return None
    return text
