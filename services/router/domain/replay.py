"""Recognises in an answer asked for afresh what the client already has, so that only the rest is sent."""

from __future__ import annotations


class Replay:
    """Compares a new answer with the text delivered so far, as it comes.

    Args:
        delivered: what the client has.
    """

    def __init__(self, delivered: str) -> None:
        self._delivered = delivered
        self._at = 0
        self.diverged = False
        """True once the new answer said something else; nothing of it may be sent then."""

    @property
    def caught_up(self) -> bool:
        """Whether all that was delivered was repeated."""
        return not self.diverged and self._at == len(self._delivered)

    def feed(self, text: str) -> str:
        """The part of `text` that the client does not have; empty while it repeats what was delivered."""
        if self.diverged:
            return ""
        known = min(len(text), len(self._delivered) - self._at)
        if not self._delivered.startswith(text[:known], self._at):
            self.diverged = True
            return ""
        self._at += known
        return text[known:]
