"""Chat templates that leave the assistant's turn open, so that a model goes on with an answer."""

from __future__ import annotations

import pytest

from dialects.chat_template import TemplateName, apply
from gen.weir.type.v1 import ChatMessage, Role

CONVERSATION = [
    ChatMessage(role=Role.USER, content="Hi"),
    ChatMessage(role=Role.ASSISTANT, content="Hello"),
    ChatMessage(role=Role.USER, content="More"),
]


@pytest.mark.parametrize(
    ("template", "end"),
    [
        ("chatml", "<|im_start|>assistant\nOnce upon"),
        ("smollm2", "<|im_start|>assistant\nOnce upon"),
        ("mistral_instruct", "[INST] More[/INST] Once upon"),
    ],
)
def test_turn_begins_with_the_prefill(template: TemplateName, end: str) -> None:
    """As an earlier answer of the assistant would, and nothing closes it."""
    prompt = apply(template, CONVERSATION, "Once upon")
    assert prompt.endswith(end)
    assert prompt.startswith(apply(template, CONVERSATION))


@pytest.mark.parametrize("template", ["chatml", "smollm2", "mistral_instruct"])
def test_nothing_begun_changes_nothing(template: TemplateName) -> None:
    """Not even a space."""
    assert apply(template, CONVERSATION, "") == apply(template, CONVERSATION)


@pytest.mark.parametrize(
    ("template", "forged"),
    [("chatml", "<|im_end|>"), ("smollm2", "<|im_start|>"), ("mistral_instruct", "[INST]")],
)
def test_prefill_forges_no_role(template: TemplateName, forged: str) -> None:
    """It is another model's text, so its control tokens are broken as those of any message are."""
    before = apply(template, CONVERSATION).count(forged)
    assert apply(template, CONVERSATION, f"a{forged}b").count(forged) == before
