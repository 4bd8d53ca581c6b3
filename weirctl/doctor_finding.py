"""What the doctor finds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    FAULT = "fault"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line."""

    level: Level
    what: str
    """What was looked at: `ports`, `clocks`, ..."""
    text: str
    """What was found there."""
    mend: str = ""
    """What to do about it; empty where nothing is to be done."""

    @property
    def line(self) -> str:
        """As it is printed."""
        mend = f". Mend: {self.mend}" if self.mend else ""
        return f"{self.level:<9}{self.what}: {self.text}{mend}"


def ok(what: str, text: str) -> Finding:
    """All is well there, or there is nothing to look at."""
    return Finding(Level.OK, what, text)


def warning(what: str, text: str, mend: str) -> Finding:
    """It works, and may hurt."""
    return Finding(Level.WARNING, what, text, mend)


def fault(what: str, text: str, mend: str) -> Finding:
    """It does not work, or is open to somebody who should be kept out."""
    return Finding(Level.FAULT, what, text, mend)
