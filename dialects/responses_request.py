"""Reads OpenAI's Responses request, and translates it to the chat completion that says the same.

A target with the capability `responses` is sent the client's own JSON. Any other is sent the translation, which there
is unless the request wants something that only a real Responses API does: then `responses` is one of its needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Annotated, Any, Final

import msgspec

from dialects import chat_request
from dialects.json_fields import Field, Fields, top_level
from dialects.json_node import Node
from dialects.parameters import FALLBACKS, HINT, LABEL, MODEL, Parameter, note_needs
from dialects.request import Endpoint, Request
from dialects.responses_items import Conversation
from dialects.responses_places import Places
from dialects.responses_tools import read_reasoning, read_text, read_tool_choice, read_tools
from meshkit.errors import InvalidRequest

CAPABILITY: Final = "responses"
MAX_METADATA: Final = 16
"""Pairs, as OpenAI has it."""
MAX_METADATA_KEY_CHARS: Final = 64
MAX_METADATA_VALUE_CHARS: Final = 512
_BEYOND = Parameter(CAPABILITY)
PARAMETERS: Final[Mapping[str, Parameter]] = MappingProxyType({
    "model": MODEL,
    "input": Parameter(
        note="pictures need `vision`, sound `audio`, files `file`, function calls `tools`; what is kept elsewhere"
        " (`item_reference`, a picture's `file_id`, `file_url`), reasoning and built-in tools' items need `responses`"
    ),
    "instructions": Parameter(),
    "max_output_tokens": Parameter(note="absent: the target's own default"),
    "temperature": Parameter(),
    "top_p": Parameter(),
    "tools": Parameter("tools", note="`strict` needs `tools.strict`; any kind but functions needs `responses`"),
    # Without tools, whose own need counts, `auto` and `none` choose among none.
    "tool_choice": Parameter(
        "tool_choice", ("auto", "none"), note="`auto` and `none` need no more than `tools`, other kinds `responses`"
    ),
    "parallel_tool_calls": Parameter("tools", (True,)),
    "text": Parameter(note="`format` other than text needs `json_schema`, `verbosity` needs `verbosity`"),
    "reasoning": Parameter(note="`effort` needs `reasoning_effort`, anything else `responses`"),
    "stream": Parameter(),
    "stream_options": Parameter(note="`include_obfuscation` needs `responses`"),
    "service_tier": Parameter("service_tier", ("auto", "default")),
    "user": LABEL,
    "metadata": Parameter(note=f"a label: at most {MAX_METADATA} pairs"),
    "safety_identifier": LABEL,
    "prompt_cache_key": HINT,
    "prompt_cache_retention": HINT,
    "prompt_cache_options": Parameter(note="hints; anything but `mode` and `ttl` needs `responses`"),
    "fallbacks": FALLBACKS,
    "truncation": Parameter(CAPABILITY, ("disabled",)),
    "store": Parameter(CAPABILITY, note="Weir keeps no answers; absent means true to OpenAI's own API"),
    "background": _BEYOND,
    "background_options": _BEYOND,
    "previous_response_id": _BEYOND,
    "conversation": _BEYOND,
    "prompt": _BEYOND,
    "include": _BEYOND,
    "max_tool_calls": _BEYOND,
    "top_logprobs": _BEYOND,
    "context_management": _BEYOND,
    "moderation": _BEYOND,
    "access_programs": _BEYOND,
    "image": _BEYOND,
})  # fmt: skip
"""Every parameter that is known; any other needs a target that has the Responses API."""
_SAME: Final = (
    "model", "stream", "fallbacks", "temperature", "top_p", "service_tier", "metadata",
    "user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "prompt_cache_options",
)  # fmt: skip
"""What a chat completion calls by the same name."""
_PARTLY: Mapping[str, frozenset[str]] = MappingProxyType({
    "prompt_cache_options": frozenset({"mode", "ttl"}),
    # Padding against eavesdroppers is what only a provider's own events have.
    "stream_options": frozenset(),
})  # fmt: skip
"""Objects of which any target honours these fields alone."""
_ELSEWHERE: Final = ("previous_response_id", "conversation", "prompt")
"""Where the conversation may be, if not in `input`."""
_KEY = Annotated[str, msgspec.Meta(max_length=MAX_METADATA_KEY_CHARS)]
_VALUE = Annotated[str, msgspec.Meta(max_length=MAX_METADATA_VALUE_CHARS)]
_CHECKED: Final = (
    Field("metadata", Annotated[dict[_KEY, _VALUE], msgspec.Meta(max_length=MAX_METADATA)]),
    Field("user", str),
    Field("safety_identifier", str),
    Field("prompt_cache_key", str),
    Field("parallel_tool_calls", bool),
)
"""What no target's behaviour depends on and answers repeat."""
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ENCODER = msgspec.json.Encoder()


def read(body: bytes) -> Request:
    """The request in `body`. Raises InvalidRequest naming the field at fault, in the Responses API's own terms.

    `needs` are those of the chat completion, named in these terms, and `responses` with the first parameter that only
    a real Responses API can honour; `chat` is then None.
    """
    fields = top_level(body)
    for field in _CHECKED:
        field.read(fields)
    conversation = Conversation()
    _note_beyond(fields, conversation)
    conversation.read(fields)
    if not conversation.given and not any(Node(fields, "").raw(name) for name in _ELSEWHERE):
        raise InvalidRequest("input: required", param="input")
    chat_fields, tools = _chat_fields(fields, conversation)
    conversation.match_answers()
    return _request(fields, chat_fields, conversation, Places(conversation.messages, tools), len(body))


def _note_beyond(fields: Fields, conversation: Conversation) -> None:
    """Notes the top-level parameters that chat completions do not have."""
    needs: dict[str, str] = {}
    note_needs(fields, PARAMETERS, needs)
    for need, name in needs.items():
        if need == CAPABILITY or name not in PARAMETERS:
            conversation.note(name)
    body = Node(fields, "")
    for name, known in _PARTLY.items():
        for place in Node(body.get(name, _OBJECT) or {}, name).others(known):
            conversation.note(place)


def _chat_fields(fields: Fields, conversation: Conversation) -> tuple[dict[str, Any], list[str]]:
    """The chat completion's fields without its messages, and the places of its tools."""
    body = Node(fields, "")
    made: dict[str, Any] = {name: raw for name in _SAME if (raw := body.raw(name)) is not None}
    # The older name: a provider without the Responses API may ignore the newer one, and with it the cap.
    if (cap := body.raw("max_output_tokens")) is not None:
        made["max_tokens"] = cap
    tools, places = read_tools(body, conversation.note)
    choice = read_tool_choice(body, conversation.note)
    if tools:
        made["tools"] = tools
        if (parallel := body.raw("parallel_tool_calls")) is not None:
            made["parallel_tool_calls"] = parallel
    if choice is not None and (tools or choice not in ("auto", "none")):
        made["tool_choice"] = choice
    return made | read_text(body, conversation.note) | read_reasoning(body, conversation.note), places


def _request(
    fields: Fields,
    chat_fields: dict[str, Any],
    conversation: Conversation,
    places: Places,
    body_bytes: int,
) -> Request:
    messages = [draft.message() for draft in conversation.messages]
    chat_fields["messages"] = messages or [{"role": "user", "content": ""}]  # the conversation is elsewhere
    encoded = {name: msgspec.Raw(_ENCODER.encode(value)) for name, value in chat_fields.items()}
    try:
        chat = chat_request.read_fields(encoded, body_bytes - conversation.media_bytes)
    except InvalidRequest as error:
        raise places.renamed(error) from error
    needs = {need: places.name(param) for need, param in chat.needs.items()}
    chat = replace(chat, needs=needs, include_usage=True)
    if conversation.beyond is not None:
        needs = {**needs, CAPABILITY: conversation.beyond}
    return replace(
        chat,
        endpoint=Endpoint.RESPONSES,
        needs=needs,
        fields=fields,
        cap_param="max_output_tokens",
        chat=chat if conversation.beyond is None else None,
    )
