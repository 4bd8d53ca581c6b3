"""What the fault tests have in common."""

from __future__ import annotations

from collections.abc import Callable

import pytest

Evidence = Callable[[str], None]
"""Takes a short line of what was seen, for the scorecard."""
BOTH_WAYS = pytest.mark.parametrize("stream", [True, False], ids=["stream", "unary"])
SLACK_S = 2.0
"""What a busy machine may add to a limit."""
