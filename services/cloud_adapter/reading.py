"""What readers of streams and of whole answers have in common."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from dialects.openai_fault import Fault
from gen.weir.cloud.v1 import GenerateResponse


class Failure(NamedTuple):
    """Why an answer is not whole."""

    text: str
    """What is wrong, to follow the provider's name."""
    fault: Fault | None = None
    """What the provider says, where it sent an error. Not redacted."""


class Reader(Protocol):
    """Takes what each read brought; nothing is taken after `finished` or `failure`."""

    finished: bool
    """The whole answer was given."""
    failure: Failure | None
    """Set with the last response, which holds what came before the failure."""
    delivered: bool
    """Text or a part of a tool call was given."""

    def take(self, piece: bytes) -> GenerateResponse | None:
        """What `piece` completes; None where that is nothing. An empty piece is the clean end of the answer."""
