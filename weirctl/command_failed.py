"""How a command says that it could not do what it was told."""

from __future__ import annotations

FAILED, WRONG_USE = 1, 2
"""Exit statuses."""


class CommandFailed(Exception):
    """The text tells its user what is wrong and what to do; `weir` writes it on standard error.

    Args:
        status: the exit status.
    """

    def __init__(self, text: str, status: int = FAILED) -> None:
        super().__init__(text)
        self.status = status
