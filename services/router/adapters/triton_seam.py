"""Joins the continuation of an answer to the text that it goes on from."""

from __future__ import annotations

from itertools import takewhile


class Seam:
    """Where an answer of another target ends and its continuation begins.

    Tokens carry the space before their word, so a text that ends in a space makes a model stumble. The space at the
    end of the beginning is therefore not sent, and taken off the continuation, which is expected to bring it.
    """

    def __init__(self, prefill: str) -> None:
        self.sent = prefill.rstrip()
        """What the model is sent of the beginning."""
        self._expected = prefill[len(self.sent) :]

    def feed(self, text: str) -> str:
        """What of the continuation's next text the client does not have yet."""
        if not self._expected:
            return text
        pairs = zip(text, self._expected, strict=False)
        common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        self._expected = self._expected[common:] if common == len(text) else ""
        return text[common:]
