"""Takes secrets out of text that others wrote."""

from __future__ import annotations

import re
from collections.abc import Iterable

HIDDEN = "[redacted]"
# Providers quote keys masked in part (`sk-ab***yz`), and a proxy may quote a whole header or token (`eyJ...`).
_LOOKS_SECRET = re.compile(
    r"(?i:\bbearer\s+[^\s\"',;]+)|\b(?:sk|rk|sess)[-_][\w*.-]{4,}|\bweir_\w+|\beyJ[\w-]{6,}[\w.-]*"
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")


def redacted(text: str, secrets: Iterable[str]) -> str:
    """The text without these secrets, whatever looks like a key, and control characters."""
    for secret in sorted(filter(None, secrets), key=len, reverse=True):  # one may be the beginning of another
        text = text.replace(secret, HIDDEN)
    return _CONTROL.sub(" ", _LOOKS_SECRET.sub(HIDDEN, text))
