"""What `weir up` does with a changed weir.yaml: what it hands on, what it keeps as it was, and what it says."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

import pytest

from meshkit.settings import CONFIG_VARIABLE, HOME_VARIABLE, SettingsError, load
from services.cloud_adapter.settings import CloudAdapterSettings
from services.router.settings import RouterSettings
from weirctl import config, up
from weirctl.follow_settings import FollowSettings

WITHIN_S = 10.0
CLOUD = "targets: {c: {kind: cloud, provider: p, model: m}}\ndefault_model: c\n"
PROVIDER = "providers: {p: {base_url: 'http://127.0.0.1:1/v1', api_key_env: KEY}}\n"


class Up:
    """A `weir up` without its parts."""

    def __init__(self, folder: Path, text: str, *, sandbox: bool = False) -> None:
        self.file = folder / "weir.yaml"
        self.file.write_text(text, encoding="utf-8")
        self.environment = {
            HOME_VARIABLE: str(folder / "home"),
            "KEY": "sk-hidden",
            "OTHER": "sk-other",
            "M": "meant",
        }
        started = config.read(self.file, self.environment, sandbox=sandbox)
        started.run.mkdir(parents=True)
        config.write_effective(started)
        self.effective = config.effective_file(started.home)
        self.said: list[str] = []
        self.follow = FollowSettings(started, self.file, self.environment, self.said.append, sandbox=sandbox)

    def change(self, text: str) -> list[str]:
        """What it says to a new file."""
        self.file.write_text(text, encoding="utf-8")
        self.said.clear()
        self.follow.take_over()
        return self.said

    @property
    def router(self) -> RouterSettings:
        """As a router reads it now."""
        return load(RouterSettings, {CONFIG_VARIABLE: str(self.effective)})


def test_parts_get_what_they_can_take_over(tmp_path: Path) -> None:
    """With variables filled in; everything else stays as it was, so that a part that comes back fits the others."""
    running = Up(tmp_path, CLOUD + PROVIDER + "ports: {auth: 6001}\nrouter: {probe_s: 2}\n")
    text = CLOUD.replace("model: m", "model: '${M}'") + PROVIDER + "ports: {auth: 6002}\nworkers: 2\n"
    said = running.change(text + "router: {probe_s: 3, max_attempts: 2}\nmodels: {new: {plan: [c]}}\n")
    assert said == [
        "settings read again: targets.c.model, models.new, router.max_attempts",
        "these need `weir down` and `weir up`: workers, ports.auth, router.probe_s",
    ]
    now = running.router
    assert (now.ports.auth, now.workers, now.router.probe_s, now.router.max_attempts) == (6001, 1, 2, 2)
    assert now.targets["c"].model == "meant"
    assert "new" in now.models
    assert stat.S_IMODE(running.effective.stat().st_mode) == 0o600
    assert running.change(text)[0] == "settings read again: models.new, router.max_attempts"
    assert "new" not in running.router.models
    assert running.router.router.probe_s == 2


def test_each_reading_makes_another_file(tmp_path: Path) -> None:
    """So that the parts read anew what other files hold: prices, secrets."""
    running = Up(tmp_path, CLOUD + PROVIDER)
    before = running.effective.read_text(encoding="utf-8")
    assert running.change(CLOUD + PROVIDER) == ["settings read again: nothing changed that can be taken over"]
    assert running.effective.read_text(encoding="utf-8") != before


@pytest.mark.parametrize(
    "text", ["targets: [", "workers: 0", CLOUD, f"{CLOUD}{PROVIDER}ledger: {{prices_file: /nowhere.yaml}}\n"]
)
def test_a_bad_file_is_not_handed_on(tmp_path: Path, text: str) -> None:
    """Neither is one with a price list that no ledger could use."""
    running = Up(tmp_path, CLOUD + PROVIDER)
    before = running.effective.read_text(encoding="utf-8")
    with pytest.raises(SettingsError):
        running.change(text)
    assert running.effective.read_text(encoding="utf-8") == before


def test_what_the_start_did_not_provide_for_is_named(tmp_path: Path) -> None:
    """A Triton that does not run, and a variable that the adapter's process was not given; no secret is told."""
    running = Up(tmp_path, CLOUD + PROVIDER)
    text = CLOUD.replace("targets: {", "targets: {local: {kind: triton}, ")
    text += PROVIDER.replace("{p:", "{q: {base_url: 'http://127.0.0.1:1/v1', api_key_env: OTHER}, p:")
    _, restart = running.change(text)
    assert "targets (the local Triton was not started)" in restart
    assert "(the cloud adapter was not given the variable OTHER)" in restart
    assert "sk-" not in "".join(running.said)


def test_the_sandbox_stays_where_it_listens(tmp_path: Path) -> None:
    """Another port for it needs a restart; until then the provider and its target are those of the start."""
    running = Up(tmp_path, "ports: {sandbox_cloud: 7001}\n", sandbox=True)
    _, restart = running.change("ports: {sandbox_cloud: 7002}\nmodels: {new: {plan: [cloud]}}\n")
    assert "ports.sandbox_cloud" in restart
    providers = load(CloudAdapterSettings, {CONFIG_VARIABLE: str(running.effective)}).providers
    assert ":7001" in providers["sandbox"].base_url
    assert running.router.models["new"].plan == ["cloud"]


async def test_it_follows_and_tells_every_fault(tmp_path: Path) -> None:
    """An edit is seen; a bad one is told with its places, and the former settings stay."""
    running = Up(tmp_path, CLOUD + PROVIDER)
    following = asyncio.create_task(running.follow.run())
    try:
        running.file.write_text(f"{CLOUD}{PROVIDER}worker: 2\nworkers: 0\n", encoding="utf-8")
        await _said(running)
        (said,) = running.said
        assert said.splitlines() == [
            f"{running.file}:4:1: worker: unknown key (did you mean 'workers'?)",
            f"{running.file}:5:10: workers: Input should be greater than or equal to 1",
            "The settings cannot be used: kept the former settings.",
        ]
        running.said.clear()
        running.file.unlink()
        await _said(running)
        assert "No such file" in running.said[0]
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def _said(running: Up) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not running.said:  # noqa: ASYNC110 - the file is polled, so looking is the only way
            await asyncio.sleep(0.01)


def test_a_terminal_is_told_from_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGHUP of a terminal that goes ends `weir up`; without one it has the file read again."""
    own, other = os.openpty()
    try:
        with os.fdopen(other, "r", encoding="utf-8") as terminal:
            monkeypatch.setattr("sys.stdin", terminal)
            assert up._has_terminal()
        assert not up._has_terminal()
    finally:
        os.close(own)
    with Path("/dev/null").open(encoding="utf-8") as nothing:
        monkeypatch.setattr("sys.stdin", nothing)
        assert not up._has_terminal()
    monkeypatch.setattr("sys.stdin", None)
    assert not up._has_terminal()
