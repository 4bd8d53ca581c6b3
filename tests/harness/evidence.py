"""What a test saw, for whoever runs it with `pytest -rP`."""

from __future__ import annotations


def tell(*texts: str) -> None:
    """Says it where pytest keeps it with the test's result."""
    print(*texts)  # noqa: T201 - pytest collects what is printed
