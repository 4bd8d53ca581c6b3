"""Applies a model's chat template: a conversation -> the prompt text that a raw completion model continues.

No Triton backend applies one. Text of the conversation must not forge roles, so a control token inside it is
broken by a zero-width space, and escaped inside JSON: it reads the same and is tokenised as plain text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from types import MappingProxyType
from typing import Literal

from dialects.chat_template_tools import (
    hermes_calls,
    hermes_result,
    hermes_tools,
    mistral_calls,
    mistral_result,
    mistral_tools,
)
from dialects.control_tokens import neutralise
from gen.weir.type.v1 import ChatMessage, Role, Tool

TemplateName = Literal["chatml", "smollm2", "mistral_instruct"]

SMOLLM2_SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
"""What SmolLM2's own template puts before a conversation that has no system message."""


def apply(
    template: TemplateName, messages: Sequence[ChatMessage], prefill: str = "", tools: Sequence[Tool] = ()
) -> str:
    """The prompt for `messages`. The assistant's turn that it ends with stays open and begins with `prefill`.

    `tools` are those that the model may call, in the way that dialects.tool_calls reads; none are told of otherwise.
    """
    opened = _TEMPLATES[template](messages, tools)
    if not prefill:
        return opened
    # In an assistant's turn [INST]'s text begins behind a space, see _mistral_instruct.
    return opened + (" " if template == "mistral_instruct" else "") + neutralise(prefill)


def _chatml(messages: Sequence[ChatMessage], tools: Sequence[Tool]) -> str:
    names: dict[str, str] = {}
    turns: list[str] = []
    system = hermes_tools(tools) if tools else ""
    if system and not (messages and messages[0].role == Role.SYSTEM):
        turns.append(_chatml_turn("system", system))
        system = ""
    for role, turn in groupby(messages, lambda message: message.role):
        if role == Role.TOOL:
            turns.append(_chatml_turn("tool", "\n".join(hermes_result(message, names) for message in turn)))
            continue
        for message in turn:
            texts = [neutralise(message.content), system, hermes_calls(message.tool_calls)]
            system = ""
            names.update((call.id, call.name) for call in message.tool_calls)
            turns.append(_chatml_turn(Role(role).name.lower(), "\n".join(filter(None, texts))))
    return "".join(turns) + "<|im_start|>assistant\n"


def _chatml_turn(role: str, text: str) -> str:
    return f"<|im_start|>{role}\n{text}<|im_end|>\n"


def _smollm2(messages: Sequence[ChatMessage], tools: Sequence[Tool]) -> str:
    """SmolLM2-Instruct: ChatML, with the system message that the model was trained with where there is none."""
    if messages and messages[0].role == Role.SYSTEM:
        return _chatml(messages, tools)
    return _chatml([ChatMessage(role=Role.SYSTEM, content=SMOLLM2_SYSTEM), *messages], tools)


def _mistral_instruct(messages: Sequence[ChatMessage], tools: Sequence[Tool]) -> str:
    """Mistral-7B-Instruct-v0.3: no system role (it joins the next user turn); the tokenizer adds the BOS itself.

    The tools stand before the last user turn.
    """
    offered = mistral_tools(tools) if tools else ""
    asked = next((at for at in reversed(range(len(messages))) if messages[at].role == Role.USER), 0)
    parts: list[str] = []
    system = ""
    for at, message in enumerate(messages):
        text = neutralise(message.content)
        if at == asked:
            parts.append(offered)
        if message.role == Role.SYSTEM:
            system += text + "\n\n"
        elif message.role == Role.USER:
            parts.append(f"[INST] {system}{text}[/INST]")
            system = ""
        elif message.role == Role.TOOL:
            parts.append(mistral_result(message))
        else:  # also as the first: applications begin with a greeting of their own
            parts.append(_mistral_answer(text, message))
    if system:
        parts.append(f"[INST] {system.rstrip()}[/INST]")
    return "".join(parts)


def _mistral_answer(text: str, message: ChatMessage) -> str:
    if not message.tool_calls:
        return f" {text}</s>"
    return f"{f' {text}' if text else ''}{mistral_calls(message.tool_calls)}</s>"


_TEMPLATES: Mapping[TemplateName, Callable[[Sequence[ChatMessage], Sequence[Tool]], str]] = MappingProxyType(
    {"chatml": _chatml, "smollm2": _smollm2, "mistral_instruct": _mistral_instruct}
)
