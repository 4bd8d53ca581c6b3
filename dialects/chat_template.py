"""Applies a model's chat template: a conversation -> the prompt text that a raw completion model continues.

No Triton backend applies one. Text of the conversation must not forge roles, so a control token inside it is
broken by a zero-width space: it reads the same and is tokenised as plain text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Literal

from gen.weir.type.v1 import ChatMessage, Role

TemplateName = Literal["chatml", "smollm2", "mistral_instruct"]

SMOLLM2_SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
"""What SmolLM2's own template puts before a conversation that has no system message."""

_BREAK = "\u200b"
_CONTROL = re.compile(
    r"<(?=\|[A-Za-z_]+\|>|/?s>|unk>|pad>)"  # <|im_end|>, <s>, </s>
    r"|\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\])"
    r"|<(?=(?:repo_name|reponame|file_sep|filename|gh_stars|issue_start|issue_comment|issue_closed"
    r"|jupyter_start|jupyter_text|jupyter_code|jupyter_output|jupyter_script|empty_output)>)"
)


def neutralise(text: str) -> str:
    """`text` without control tokens of the templates here."""
    return _CONTROL.sub(lambda match: match[0] + _BREAK, text)


def apply(template: TemplateName, messages: Sequence[ChatMessage]) -> str:
    """The prompt for `messages`."""
    return _TEMPLATES[template](messages)


def _chatml(messages: Sequence[ChatMessage]) -> str:
    turns = [
        f"<|im_start|>{Role(message.role).name.lower()}\n{neutralise(message.content)}<|im_end|>\n"
        for message in messages
    ]
    return "".join(turns) + "<|im_start|>assistant\n"


def _smollm2(messages: Sequence[ChatMessage]) -> str:
    """SmolLM2-Instruct: ChatML, with the system message that the model was trained with where there is none."""
    if messages and messages[0].role == Role.SYSTEM:
        return _chatml(messages)
    return _chatml([ChatMessage(role=Role.SYSTEM, content=SMOLLM2_SYSTEM), *messages])


def _mistral_instruct(messages: Sequence[ChatMessage]) -> str:
    """Mistral-7B-Instruct-v0.3: no system role (it joins the next user turn); the tokenizer adds the BOS itself."""
    parts: list[str] = []
    system = ""
    for message in messages:
        text = neutralise(message.content)
        if message.role == Role.SYSTEM:
            system += text + "\n\n"
        elif message.role == Role.USER:
            parts.append(f"[INST] {system}{text}[/INST]")
            system = ""
        else:
            parts.append(f" {text}</s>")  # also as the first: applications begin with a greeting of their own
    if system:
        parts.append(f"[INST] {system.rstrip()}[/INST]")
    return "".join(parts)


_TEMPLATES: Mapping[TemplateName, Callable[[Sequence[ChatMessage]], str]] = MappingProxyType(
    {"chatml": _chatml, "smollm2": _smollm2, "mistral_instruct": _mistral_instruct}
)
