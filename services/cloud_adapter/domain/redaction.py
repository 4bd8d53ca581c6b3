"""Takes secrets out of text that others wrote."""

from __future__ import annotations

import re
from collections.abc import Callable

Redact = Callable[[str], str]
"""Gives a text without secrets."""

HIDDEN = "[redacted]"
# Providers quote keys masked in part (`sk-ab***yz`), and a proxy may quote a whole header.
_LOOKS_SECRET = re.compile(r"(?i:\bbearer\s+[^\s\"',;]+)|\b(?:sk|rk|sess)[-_][\w*.-]{4,}|\bweir_\w+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")


def redacting(secret: str) -> Redact:
    """What removes `secret`, whatever looks like a key, and control characters from a text."""

    def redact(text: str) -> str:
        known = text.replace(secret, HIDDEN) if secret else text
        return _CONTROL.sub(" ", _LOOKS_SECRET.sub(HIDDEN, known))

    return redact
