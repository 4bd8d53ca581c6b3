"""Lists that come in pages."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

Item = TypeVar("Item")
LONGEST_PAGE = 1_000
"""Rows that Auth gives at once."""


async def up_to(most: int, ask: Callable[[int, str], Awaitable[tuple[Sequence[Item], str]]]) -> list[Item]:
    """At most `most` items, in their order. Says on standard error where there are more.

    Args:
        most: of all pages together.
        ask: given the size of a page and the token of the page before's, "" for the first one: the page's items, and
            the token of the next one, "" if there is none.
    """
    items: list[Item] = []
    token = ""
    while len(items) < most:
        page, token = await ask(min(most - len(items), LONGEST_PAGE), token)
        items += page
        if not token:
            return items[:most]
    sys.stderr.write(f"There are more; these are the first {most} (--limit shows others).\n")
    return items[:most]
