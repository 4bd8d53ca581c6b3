"""Log lines are whole JSON objects whatever they hold and wherever they go; calls are counted once."""

import fcntl
import json
import os
from collections.abc import Iterator
from threading import Thread
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from meshkit.telemetry import Logger, RpcMetrics


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe's reading and writing end; whichever is still open is closed."""
    ends = os.pipe()
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:
            continue


def _lines(reader: int) -> list[dict[str, Any]]:
    return [json.loads(line) for line in os.read(reader, 1_000_000).splitlines()]


class Odd:
    """No form in JSON."""

    def __str__(self) -> str:
        return "odd"


def test_a_line(pipe: tuple[int, int]) -> None:
    """A line says when, how bad, who and what, and then the facts; a fact cannot pass for one of these."""
    Logger("auth", pipe[1]).info("served", key_id="k", level="forged", at="forged", service="forged")
    (line,) = _lines(pipe[0])
    assert list(line)[:4] == ["at", "level", "service", "event"]
    assert (line["level"], line["service"], line["event"], line["key_id"]) == ("info", "auth", "served", "k")
    assert line["at"].startswith("20")


@pytest.mark.parametrize(
    "fact", ["two\nlines", "\ud800", "é\0", Odd(), b"\xff", float("nan"), {1: {2: 3}}, [Odd()]]
)
def test_any_fact_makes_one_line(pipe: tuple[int, int], fact: object) -> None:
    """Facts of any kind become one JSON line."""
    Logger("auth", pipe[1]).warning("odd", fact=fact)
    (line,) = _lines(pipe[0])
    assert line["event"].strip("'") == "odd"


def test_an_exception_keeps_its_traceback(pipe: tuple[int, int]) -> None:
    """The error's class and traceback are in one line."""
    try:
        raise ValueError("why\nso")  # noqa: TRY301 - a traceback is what the test needs
    except ValueError as error:
        Logger("auth", pipe[1]).exception("unexpected error", error, request_id="r")
    (line,) = _lines(pipe[0])
    assert (line["level"], line["error"], line["request_id"]) == ("error", "ValueError", "r")
    assert "test_an_exception_keeps_its_traceback" in line["traceback"]


def test_lost_lines_are_counted(pipe: tuple[int, int]) -> None:
    """A closed log harms nobody, and the next line that is written says what was lost."""
    reader, writer = pipe
    log = Logger("auth", writer)
    kept = os.dup(writer)
    os.close(writer)
    log.info("lost")
    log.info("lost")
    os.dup2(kept, writer)
    os.close(kept)
    log.info("back")
    log.info("well")
    back, well = _lines(reader)
    assert (back["event"], back["lost_lines"]) == ("back", 2)
    assert "lost_lines" not in well


def test_a_torn_line_does_not_spoil_the_next(pipe: tuple[int, int]) -> None:
    """A full pipe that takes half a line costs that line and no other."""
    reader, writer = pipe
    fcntl.fcntl(writer, fcntl.F_SETFL, os.O_NONBLOCK)
    log = Logger("auth", writer)
    log.info("too long", fact="x" * 200_000)
    torn = os.read(reader, 1_000_000)
    log.info("whole")
    lines = (torn + os.read(reader, 1_000_000)).splitlines()
    assert json.loads(lines[-1])["event"] == "whole"
    assert json.loads(lines[-1])["lost_lines"] == 1


def test_threads_do_not_mix_lines(pipe: tuple[int, int]) -> None:
    """Long lines of several threads stay whole."""
    reader, writer = pipe
    log = Logger("auth", writer)

    def write() -> None:
        for _ in range(10):
            log.info("long", fact="x" * 20_000)

    threads = [Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    data = b""
    while data.count(b"\n") < 40:
        data += os.read(reader, 65_536)
    for thread in threads:
        thread.join()
    assert {len(json.loads(line)["fact"]) for line in data.splitlines()} == {20_000}


def test_metrics_see_every_outcome() -> None:
    """A call is counted once, under the code that it ended with, also where it raised."""
    registry = CollectorRegistry()
    metrics = RpcMetrics(registry)
    with metrics.track("/a/B"):
        assert registry.get_sample_value("weir_rpc_active", {"method": "/a/B"}) == 1
    with pytest.raises(ValueError, match="x"), metrics.track("/a/B") as tracked:
        tracked.failed("INTERNAL")
        raise ValueError("x")
    for code in ("OK", "INTERNAL"):
        labels = {"method": "/a/B", "code": code}
        assert registry.get_sample_value("weir_rpc_served_total", labels) == 1
    assert registry.get_sample_value("weir_rpc_active", {"method": "/a/B"}) == 0
    assert registry.get_sample_value("weir_rpc_seconds_count", {"method": "/a/B"}) == 2
