"""The supervisor over tiny real child processes."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from weirctl.part import CannotStart, NotReady, Part, State
from weirctl.part_runner import Timing
from weirctl.supervisor import Supervisor

SLEEP = "import signal; signal.pause()"
ENDS_SOON = Timing(first_pause_s=0.01, longest_pause_s=0.04, poll_s=0.01, last_output_s=0.5)

Supervise = Callable[..., Supervisor]


@pytest.fixture
async def lines() -> list[str]:
    """What the supervisor reported."""
    return []


@pytest.fixture
async def supervise(tmp_path: Path, lines: list[str]) -> AsyncIterator[Supervise]:
    """Makes supervisors with short pauses; what they run ends with the test."""
    made: list[Supervisor] = []

    def make(parts: Sequence[Part], timing: Timing = ENDS_SOON) -> Supervisor:
        made.append(Supervisor(parts, tmp_path, lines.append, timing=timing))
        return made[-1]

    yield make
    for supervisor in made:
        supervisor.kill()
        await supervisor.stop()


@pytest.fixture
def part(tmp_path: Path) -> Callable[..., Part]:
    """A part named `name` that runs a line of Python and is ready once the file `<name>.up` is there."""

    def make(name: str, script: str = SLEEP, *, needs: Sequence[str] = (), ready: bool = True) -> Part:
        flag = tmp_path / f"{name}.up"
        whole = (
            f"open({str(flag)!r}, 'w').write(str(__import__('os').getpid())); {script}" if ready else script
        )
        return Part(
            name=name,
            argv=(sys.executable, "-S", "-c", whole),
            environment={},
            directory=tmp_path,
            probe=file_exists(flag),
            depends_on=frozenset(needs),
        )

    return make


def file_exists(path: Path) -> Callable[[], Awaitable[None]]:
    async def probe() -> None:
        if not os.access(path, os.F_OK):
            raise NotReady(f"no {path.name}")

    return probe


def crashes(lines: list[str]) -> list[str]:
    return [line for line in lines if "crashed" in line]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what it waits for is outside of this process
            await asyncio.sleep(0.01)


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"


async def test_a_part_starts_after_what_it_needs_and_ends_before_it(
    supervise: Supervise, part: Callable[..., Part]
) -> None:
    """Database <- service <- edge: started in that order, ended in the reverse."""
    order: list[str] = []

    def noting(made: Part) -> Part:
        async def start() -> None:
            order.append(f"+{made.name}")

        async def end() -> None:
            order.append(f"-{made.name}")

        return replace(made, before_start=start, after_end=end)

    parts = [part("edge", needs=["service"]), part("service", needs=["database"]), part("database")]
    supervisor = supervise([noting(made) for made in parts])
    await supervisor.start()
    pids = [runner.pid for runner in supervisor.runners.values()]
    assert [runner.state for runner in supervisor.runners.values()] == [State.HEALTHY] * 3
    await supervisor.stop()
    assert order == ["+database", "+service", "+edge", "-edge", "-service", "-database"]
    assert all(pid is not None and is_gone(pid) for pid in pids)


async def test_a_crashed_part_is_started_again_and_its_last_lines_are_shown(
    supervise: Supervise, part: Callable[..., Part], lines: list[str]
) -> None:
    """A killed process is replaced; the report names the signal and shows the end of the log."""
    supervisor = supervise([part("service", f"print('about to wait', flush=True); {SLEEP}")])
    await supervisor.start()
    runner = supervisor.runners["service"]
    first = runner.pid
    assert first is not None
    await until(lambda: b"about" in (runner._log.path.read_bytes()))
    os.kill(first, signal.SIGSEGV)
    await until(lambda: runner.state is State.HEALTHY and runner.pid not in {None, first})
    assert runner.restarts == 1
    (crash,) = crashes(lines)
    assert "service crashed (killed by SIGSEGV), again in 0.01 s" in crash
    assert crash.endswith("    about to wait")


async def test_the_pause_doubles_up_to_its_limit(
    supervise: Supervise, part: Callable[..., Part], lines: list[str]
) -> None:
    """Crash after crash the pause grows 1, 2, 4, 4 hundredths of a second."""
    supervisor = supervise([part("service", "import time; time.sleep(0.2); raise SystemExit(7)")])
    await supervisor.start()
    await until(lambda: len(crashes(lines)) >= 4)
    pauses = [line.splitlines()[0].rpartition("again in ")[2] for line in crashes(lines)[:4]]
    assert [pause.partition(" s")[0] for pause in pauses] == ["0.01", "0.02", "0.04", "0.04"]
    assert "exit status 7" in crashes(lines)[0]


async def test_a_long_healthy_life_makes_the_next_crash_the_first(
    supervise: Supervise, part: Callable[..., Part], lines: list[str]
) -> None:
    """After the time of forgiveness the pause is the shortest again."""
    script = "import time; time.sleep(0.2); raise SystemExit(7)"
    supervisor = supervise([part("service", script)], replace(ENDS_SOON, forgiven_after_s=0.05))
    await supervisor.start()
    await until(lambda: len(crashes(lines)) >= 3)
    assert all("again in 0.01 s" in line for line in crashes(lines))


async def test_a_part_that_never_gets_ready_fails_the_start(
    supervise: Supervise, part: Callable[..., Part]
) -> None:
    """Three crashes before it was ever healthy: the start fails with the reason and the log's last lines."""
    script = "import sys; sys.exit('the port is taken')"
    supervisor = supervise([part("service", script, ready=False), part("other")])
    with pytest.raises(CannotStart, match=r"service did not start: exit status 1(?s:.*)the port is taken"):
        await supervisor.start()
    assert supervisor.runners["service"].restarts == 3


async def test_wrong_settings_are_not_tried_again(supervise: Supervise, part: Callable[..., Part]) -> None:
    """Exit status 2 fails the start at once."""
    supervisor = supervise([part("service", "raise SystemExit(2)", ready=False)])
    with pytest.raises(CannotStart, match="exit status 2"):
        await supervisor.start()
    assert supervisor.runners["service"].restarts == 1


async def test_a_silent_part_counts_as_crashed(
    supervise: Supervise, part: Callable[..., Part], lines: list[str]
) -> None:
    """A process that lives but is not ready in time is ended; its successors too; then the start fails."""
    silent = replace(part("service", ready=False), ready_within_s=0.05)
    with pytest.raises(CannotStart, match=r"not ready after 0.05 s: no service.up"):
        await supervise([silent]).start()
    assert "not ready" in lines[0]


async def test_a_fault_in_a_hook_is_a_crash_of_its_part(
    supervise: Supervise, part: Callable[..., Part]
) -> None:
    """An unforeseen exception in a probe ends the part's life and no other's."""

    async def broken() -> None:
        raise ZeroDivisionError

    with pytest.raises(CannotStart, match="ZeroDivisionError"):
        await supervise([replace(part("service"), probe=broken), part("other")]).start()


async def test_a_watch_that_finds_a_fault_starts_the_part_again(
    supervise: Supervise, part: Callable[..., Part], lines: list[str]
) -> None:
    """A process that lives and no longer works is replaced."""
    found: asyncio.Queue[str] = asyncio.Queue()
    supervisor = supervise([replace(part("service"), watch=found.get)])
    await supervisor.start()
    runner = supervisor.runners["service"]
    first = runner.pid
    found.put_nowait("the model is dead")
    await until(lambda: runner.state is State.HEALTHY and runner.pid not in {None, first})
    assert "the model is dead" in crashes(lines)[0]


async def test_a_part_that_ignores_its_stop_signal_is_killed_with_its_children(
    supervise: Supervise, part: Callable[..., Part], tmp_path: Path, lines: list[str]
) -> None:
    """Beyond its limit the whole process group is killed."""
    script = (
        "import os, signal; signal.signal(15, signal.SIG_IGN); child = os.fork(); "
        f"child and open({str(tmp_path / 'child')!r}, 'w').write(str(child)); "
        f"open({str(tmp_path / 'stubborn.up')!r}, 'w'); signal.pause()"
    )
    stubborn = replace(part("stubborn", script, ready=False), stop_within_s=0.1)
    supervisor = supervise([stubborn])
    await supervisor.start()
    pid = supervisor.runners["stubborn"].pid
    assert pid is not None
    child = int((tmp_path / "child").read_text())
    await supervisor.stop()
    assert is_gone(pid)
    await until(lambda: is_gone(child))
    assert "killed" in lines[-1]


async def test_drain_comes_before_the_stop_signal(supervise: Supervise, part: Callable[..., Part]) -> None:
    """While it drains the process still runs."""
    supervisor: Supervisor
    seen: list[bool] = []

    async def drain() -> None:
        pid = supervisor.runners["edge"].pid
        seen.append(pid is not None and not is_gone(pid))

    supervisor = supervise([replace(part("edge"), drain=drain)])
    await supervisor.start()
    await supervisor.stop()
    assert seen == [True]


async def test_a_stop_of_parts_that_just_died_takes_no_exit_status_from_asyncio(
    supervise: Supervise, part: Callable[..., Part], caplog: pytest.LogCaptureFixture
) -> None:
    """Killed, then stopped before asyncio saw the end: nothing is logged of unknown children."""
    supervisor = supervise([part(f"service-{number}") for number in range(8)])
    await supervisor.start()
    supervisor.kill()
    await supervisor.stop()
    assert caplog.text == ""


async def test_a_stop_during_the_start_leaves_nothing(
    supervise: Supervise, part: Callable[..., Part]
) -> None:
    """Ctrl-C while parts are not ready yet ends what runs; what waits is never started."""
    supervisor = supervise([part("slow", ready=False), part("next", needs=["slow"])])
    starting = asyncio.ensure_future(supervisor.start())
    await until(lambda: supervisor.runners["slow"].pid is not None)
    pid = supervisor.runners["slow"].pid
    assert pid is not None
    starting.cancel()
    await supervisor.stop()
    assert is_gone(pid)
    assert supervisor.runners["next"].restarts == 0


async def test_children_get_no_more_environment_than_stated(
    supervise: Supervise, part: Callable[..., Part], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nothing of the supervisor's own environment reaches a part."""
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    script = f"import os; open({str(tmp_path / 'env')!r}, 'w').write(repr(sorted(os.environ))); {SLEEP}"
    made = replace(part("service", script), environment={"WEIR_HOME": "x"})
    await supervise([made]).start()
    env = tmp_path / "env"
    await until(lambda: env.exists() and env.read_text() != "")
    assert "OPENAI_API_KEY" not in env.read_text()
    assert "WEIR_HOME" in env.read_text()


def test_no_child_outlives_a_killed_supervisor(tmp_path: Path) -> None:
    """SIGKILL of the supervisor ends its children through the kernel."""
    script = f"""
import asyncio, pathlib, sys
from weirctl.part import Part
from weirctl.supervisor import Supervisor
async def ready(): pass
async def main():
    part = Part(name="a", argv=(sys.executable, "-S", "-c", {SLEEP!r}), environment={{}},
                directory=pathlib.Path({str(tmp_path)!r}), probe=ready)
    supervisor = Supervisor([part], pathlib.Path({str(tmp_path)!r}), lambda line: None)
    await supervisor.start()
    print(supervisor.runners["a"].pid, flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""
    root = Path(__file__).parents[2]
    with subprocess.Popen(  # noqa: S603 - a script of this test
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=root
    ) as supervisor:
        assert supervisor.stdout is not None
        try:
            child = int(supervisor.stdout.readline())
            assert not is_gone(child)
        finally:
            supervisor.kill()
    asyncio.run(until(lambda: is_gone(child)))
