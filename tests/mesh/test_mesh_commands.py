"""The `weir` commands on a running mesh, and where none runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from uuid import uuid4

import openai
import pytest

from gen.weir.router.v1 import ListModelsRequest
from gen.weir.router.v1.service import RouterClient
from meshkit.channel import ChannelTransport
from meshkit.codec import mesh_codec
from tests.harness.running_weir import RunningWeir, wait_for, weir_command

TOKEN = re.compile(r"weir_[a-z2-7]{12}_\w{49}")
NUMBERS = re.compile(
    r"\S+ +\S+ +(?P<model>\S+) +(?P<target>\S+) +(?P<outcome>\S+) +(?P<attempts>\d+) +~?(?P<ins>\d+) +~?(?P<outs>\d+) "
)
QUESTIONS = 3


def new_key(weir: RunningWeir, team: str) -> str:
    """A key of a team of the test's own."""
    created = weir.run("keys", "create", "--org", "tests", "--team", team)
    assert created.returncode == 0, created.stderr
    assert TOKEN.fullmatch(created.stdout.strip())
    return created.stdout.strip()


def test_status(weir: RunningWeir) -> None:
    """Every part is healthy, with its process."""
    shown = weir.run("status")
    assert shown.returncode == 0, shown.stdout
    rows = {
        line.split()[0]: line.split()
        for line in shown.stdout.splitlines()
        if line.split()[2:3] and line.split()[2].isdigit()
    }
    assert {name: int(row[2]) for name, row in rows.items()} == weir.pids()
    assert {row[1] for row in rows.values()} == {"healthy"}
    assert f"http://{weir.edge}/v1" in shown.stdout


@pytest.mark.parametrize("options", [(), ("--no-stream",)])
@pytest.mark.parametrize("model", ["local", "cloud"])
def test_ask(weir: RunningWeir, model: str, options: tuple[str, ...]) -> None:
    """The answer on standard output, where it came from beside it."""
    asked = weir.run("ask", "Say hello.", "--model", model, *options)
    assert asked.returncode == 0, asked.stderr
    assert asked.stdout.strip()
    assert asked.stderr == f"[{model}: model {model}]\n"


def test_ask_with_an_error(weir: RunningWeir) -> None:
    """The error in words, and no success."""
    unknown = weir.run("ask", "Say hello.", "--model", "gpt-99")
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert "gpt-99" in unknown.stderr
    broken = weir.run("ask", "Say hello.", "--model", "cut")
    assert broken.returncode == 1
    assert "the answer broke off" in broken.stderr


async def test_new_key_works_at_once_on_every_worker(weir: RunningWeir) -> None:
    """No worker has to wait for the next copy of the key set."""
    key = new_key(weir, f"team-{uuid4().hex[:8]}")
    for worker in range(2):
        async with weir.channel("router", worker) as channel:
            router = RouterClient(ChannelTransport(channel, mesh_codec()))
            bearer = (("authorization", f"Bearer {key}"),)
            assert (await router.list_models(ListModelsRequest(), metadata=bearer)).models


def test_usage_sums_the_rows(weir: RunningWeir) -> None:
    """What `weir usage` shows of a team is the sum of its answers' tokens."""
    team = f"team-{uuid4().hex[:8]}"
    client = openai.OpenAI(base_url=weir.base_url, api_key=new_key(weir, team), max_retries=0, timeout=60)
    messages: Any = [{"role": "user", "content": "Say hello."}]
    used = [
        client.chat.completions.create(model=model, messages=messages, max_tokens=4).usage
        for model in ("local", "cloud")
        for _ in range(QUESTIONS)
    ]
    counted = [(usage.prompt_tokens, usage.completion_tokens) for usage in used if usage is not None]

    def shown() -> list[dict[str, str]] | None:
        table = weir.run("usage", "--since", "1h")
        assert table.returncode == 0, table.stderr
        lines = [
            NUMBERS.match(line) for line in table.stdout.splitlines() if line.startswith(f"tests/{team} ")
        ]
        rows = [line.groupdict() for line in lines if line]
        return rows if sum(int(row["attempts"]) for row in rows) == len(used) else None

    rows = wait_for("the rows of all attempts", shown)
    assert {(row["model"], row["target"], row["outcome"], row["attempts"]) for row in rows} == {
        ("local", "local", "ok", str(QUESTIONS)), ("cloud", "cloud", "ok", str(QUESTIONS)),
    }  # fmt: skip
    assert sum(int(row["ins"]) for row in rows) == sum(tokens for tokens, _ in counted)
    assert sum(int(row["outs"]) for row in rows) == sum(tokens for _, tokens in counted)


def test_second_up_says_who_runs(weir: RunningWeir) -> None:
    """One `weir up` for one home: the second one ends, and the first one goes on."""
    before = weir.pids()
    again = weir.run("up", "--config", str(weir.home / "test.yaml"))
    assert again.returncode == 1
    assert weir.process is not None
    assert f"process {weir.process.pid}" in again.stdout
    assert weir.pids() == before
    assert weir.run("ask", "Say hello.", "--model", "cloud").returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("status",),
        ("ask", "Hello?"),
        ("usage",),
        ("audit",),
        ("samples",),
        ("keys", "create", "--org", "a", "--team", "b"),
        ("keys", "list"),
    ],
    ids=" ".join,
)
def test_command_where_nothing_runs(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """It says so, says what to do, and fails; `weir down` says so too, and is content."""
    done = weir_command(tmp_path, *arguments)
    assert done.returncode == 1
    assert f"Weir is not up for {tmp_path} (start it with `weir up`" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    down = weir_command(tmp_path, "down")
    assert (down.returncode, down.stdout) == (0, f"Weir is not up for {tmp_path}.\n")
