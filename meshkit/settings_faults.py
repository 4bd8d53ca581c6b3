"""What is wrong with a settings file: each fault with its place, none with a value that might be a secret."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


class SettingsError(ValueError):
    """The settings cannot be used; the message names each fault on a line of its own."""


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """One fault. Faults sort by their place."""

    line: int
    """From 1; 0 where the file as a whole is meant, or there is none."""
    column: int
    """The same, in characters."""
    path: str
    """The key, dotted, such as `targets.local.limits.total_s`; empty where the file as a whole is meant."""
    text: str

    def told(self, name: object) -> str:
        """One line: `weir.yaml:12:5: targets.local.limits.total_s: Input should be greater than 0`."""
        place = f"{name}:{self.line}:{self.column}" if self.line else f"{name}"
        return ": ".join(part for part in (place, self.path, " ".join(self.text.split())) if part)


def refused(name: object, faults: Iterable[Fault]) -> SettingsError:
    """The error that tells every fault of the file `name`, in the file's order, each once."""
    return SettingsError("\n".join(fault.told(name) for fault in sorted(set(faults))))
