"""Token counts where a target reports none: an estimate, and marked as one in the ledger."""

from __future__ import annotations

from gen.weir.type.v1 import Usage

BYTES_PER_TOKEN = 4
"""English text on current tokenizers; other languages take more tokens. A chunk without text counts as one token."""


def tokens_of(text_bytes: int) -> int:
    """Tokens of that much UTF-8, rounded up."""
    return -(-text_bytes // BYTES_PER_TOKEN)


def estimated_usage(prompt_bytes: int, answer_tokens: int) -> Usage:
    """Usage from the prompt's size and a count or cap of the answer's tokens."""
    return Usage(input_tokens=tokens_of(prompt_bytes), output_tokens=answer_tokens, estimated=True)
