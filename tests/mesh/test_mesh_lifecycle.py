"""How a whole Weir ends and comes back: drained, cut short, killed; and what is left of it."""

from __future__ import annotations

import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fakes.provider_exchange import words
from tests.harness.accounts import settled
from tests.harness.crowd import Crowd, Question, Verdict, asking
from tests.harness.evidence import tell
from tests.harness.footprint import Footprint
from tests.harness.running_weir import Provider, RunningWeir, free_configuration, running_provider, wait_for

CHUNKS = 20
TEXT = "".join(words(CHUNKS))
LONG_CHUNKS = 40
# 0.8 s, 4 s, and far longer than any test.
SLOW, LONG, ENDLESS = (
    f"slow:chunks={CHUNKS},gap_ms=40",
    f"long:chunks={LONG_CHUNKS},gap_ms=100",
    "endless:chunks=6000,gap_ms=100",
)
LIMITS = {"connect_s": 1, "first_token_s": 20, "inter_token_s": 20, "total_s": 600}
STREAM = Question("cloud", stream=True, cloud_text=TEXT)
LOAD = (STREAM, STREAM, Question("cloud", cloud_text=TEXT), Question("gpt-4", stream=True, cloud_text=TEXT))
LONG_STREAM = Question("long", stream=True, cloud_text="".join(words(LONG_CHUNKS)))
ENDLESS_STREAM = Question("endless", stream=True)
DRAIN_S = 30
AT_ONCE_S = 10


@dataclass
class Home:
    """A WEIR_HOME in which Weir is started and ended again and again, and the provider it asks."""

    weir: RunningWeir
    provider: Provider

    def up(self) -> RunningWeir:
        """It runs."""
        if self.weir.process is None:
            self.weir.start()
        return self.weir

    def settled(self, crowd: Crowd) -> list[str]:
        """The outcomes of a crowd's attempts, once the accounts agree."""
        return [row["outcome"] for row in settled(self.weir, self.provider, crowd.told, crowd.prefix)]


@contextmanager
def _home(topology: str, *, triton: bool) -> Iterator[Home]:
    folder = Path(tempfile.mkdtemp(prefix="weir-life-"))
    folder.chmod(0o711)
    with running_provider() as provider:
        weir = RunningWeir(
            folder, _configuration(provider, topology, triton=triton), environment={"FAKE_API_KEY": "sk-fake"}
        )
        try:
            yield Home(weir, provider)
        finally:
            if weir.process is not None:
                weir.stop()
    shutil.rmtree(folder)


def _configuration(provider: Provider, topology: str, *, triton: bool) -> dict[str, object]:
    models = {"cloud": SLOW, "long": LONG, "endless": ENDLESS}
    targets: dict[str, object] = {
        name: {"kind": "cloud", "provider": "fake", "model": model, "limits": LIMITS}
        for name, model in models.items()
    }
    if triton:
        targets["local"] = {"kind": "triton", "default_max_output_tokens": 8, "limits": LIMITS}
    return free_configuration(
        topology=topology,
        workers=2,
        drain_s=DRAIN_S,
        providers={"fake": {"base_url": provider.base_url, "api_key_env": "FAKE_API_KEY"}},
        targets=targets,
        models={"gpt-4": {"plan": ["local", "cloud"] if triton else ["cloud"]}},
        default_model="gpt-4",
    )


@pytest.fixture(scope="module")
def separate() -> Iterator[Home]:
    """One process per service, and Triton."""
    with _home("separate", triton=True) as home:
        yield home


@pytest.fixture(scope="module")
def compact() -> Iterator[Home]:
    """All services in each router process, and no Triton."""
    with _home("compact", triton=False) as home:
        yield home


@pytest.mark.xdist_group("life-separate")
def test_sigterm_drains(separate: Home) -> None:
    """`kill` of `weir up` under load: every accepted request is answered whole, and nothing is left."""
    _drains(separate, signal.SIGTERM)


@pytest.mark.xdist_group("life-compact")
def test_ctrl_c_drains(compact: Home) -> None:
    """Ctrl-C is the same."""
    _drains(compact, signal.SIGINT)


def _drains(home: Home, number: signal.Signals) -> None:
    weir = home.up()
    first_s, key = weir.ready_s, weir.key
    footprint = Footprint.of(weir)
    with asking(weir.edge, key, (*LOAD, LONG_STREAM)) as crowd:
        wait_for(
            "answers for all but the long stream",
            lambda: all(crowd.whole_since(0.0, model=one.model, stream=one.stream) for one in LOAD),
        )
        told_s = time.monotonic()
        status = weir.stop(number)
        ended_s = time.monotonic()
    tell(
        f"{signal.Signals(number).name}: {crowd.summary()}; down after {ended_s - told_s:.2f} s\n{weir.output}"
    )
    assert status == 0
    assert weir.output.endswith("Weir is down.\n")
    assert footprint.left() == []
    assert [told for told in crowd.unlucky() if told.verdict is not Verdict.NO_CONNECTION] == []
    assert all(told.begun_s > told_s for told in crowd.of(Verdict.NO_CONNECTION))
    assert [
        told
        for told in crowd.of(Verdict.WHOLE)
        if told.question == LONG_STREAM and told.begun_s < told_s < told.ended_s
    ]
    assert not list((weir.home / "spool").iterdir()), "entries that nobody sent"
    assert home.up().key == key
    assert (weir.home / "demo-key").stat().st_mode & 0o777 == 0o600
    tell(f"ready: first {first_s:.1f} s, again {weir.ready_s:.1f} s")
    assert "aborted" not in home.settled(crowd)


@pytest.mark.xdist_group("life-compact")
def test_second_ctrl_c_ends_at_once(compact: Home) -> None:
    """The first one waits for an answer that goes on and on; the second does not, and nothing is left either."""
    weir = compact.up()
    footprint = Footprint.of(weir)
    process = weir.process
    assert process is not None
    with _one_in_flight(compact) as crowd:
        printed = len(weir.output)
        process.send_signal(signal.SIGINT)
        wait_for("the drain", lambda: "stopping" in weir.output[printed:])
        begun_s = time.monotonic()
        status = weir.stop(signal.SIGINT)
        tell(f"down after {time.monotonic() - begun_s:.2f} s, status {status}\n{weir.output[printed:]}")
        assert time.monotonic() - begun_s < AT_ONCE_S
    assert footprint.left() == []
    assert [told.verdict for told in crowd.told] == [Verdict.BROKEN]
    compact.up()
    (outcome,) = compact.settled(crowd)
    assert outcome in {"aborted", "cancelled"}


@pytest.mark.xdist_group("life-separate")
def test_sigkill_of_the_supervisor(separate: Home) -> None:
    """Its parts die with it; the next start adopts the spools, and each attempt that was in flight is aborted once."""
    weir = separate.up()
    key, footprint = weir.key, Footprint.of(weir)
    # The endless one is in flight whenever the kill comes.
    with asking(weir.edge, key, (*LOAD, ENDLESS_STREAM)) as crowd:
        wait_for(
            "answers", lambda: all(crowd.whole_since(0.0, model=one.model, stream=one.stream) for one in LOAD)
        )
        wait_for(
            "the endless one", lambda: any(asked["model"] == ENDLESS for asked in separate.provider.log())
        )
        assert weir.stop(signal.SIGKILL) == -signal.SIGKILL
        killed_s = time.monotonic()
        try:
            wait_for("the parts' end", lambda: not footprint.processes_left(), 10)
        except AssertionError:
            raise AssertionError(footprint.processes_left()) from None
        tell(f"parts dead {time.monotonic() - killed_s:.2f} s after the supervisor; {crowd.summary()}")
    assert {told.verdict for told in crowd.unlucky()} <= {
        Verdict.BROKEN,
        Verdict.NO_CONNECTION,
        Verdict.REFUSED,
        Verdict.ERROR_EVENT,
    }
    assert separate.up().key == key
    outcomes = separate.settled(crowd)
    tell(f"ready again in {weir.ready_s:.1f} s; {len(outcomes)} rows, {outcomes.count('aborted')} aborted")
    assert outcomes.count("aborted") > 0
    last = Footprint.of(weir)
    assert weir.stop() == 0
    assert last.left() == []


@contextmanager
def _one_in_flight(home: Home) -> Iterator[Crowd]:
    """A client that reads a stream without end."""
    crowd = Crowd(home.weir.edge, home.weir.key)
    thread = threading.Thread(target=crowd.ask, args=(ENDLESS_STREAM,))
    before = len(home.provider.log())
    thread.start()
    wait_for("a stream", lambda: len(home.provider.log()) > before)
    yield crowd
    thread.join(60)
    assert not thread.is_alive()
