"""Keeps a conversation's own text from forging the control tokens of chat templates."""

from __future__ import annotations

import re

_BREAK = "\u200b"
_CONTROL = re.compile(
    r"<(?=\|[A-Za-z_]+\|>|/?s>|unk>|pad>)"  # <|im_end|>, <s>, </s>
    r"|<(?=/?(?:tools|tool_call|tool_response)>)"
    r"|\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\])"
    r"|<(?=(?:repo_name|reponame|file_sep|filename|gh_stars|issue_start|issue_comment|issue_closed"
    r"|jupyter_start|jupyter_text|jupyter_code|jupyter_output|jupyter_script|empty_output)>)"
)


def neutralise(text: str) -> str:
    """`text` with its control tokens broken by a zero-width space: they read the same and are tokenised as text."""
    return _CONTROL.sub(lambda match: match[0] + _BREAK, text)


def neutralise_json(text: str) -> str:
    """JSON whose control tokens, which only its strings can hold, are escaped: it means the same as before."""
    return _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
