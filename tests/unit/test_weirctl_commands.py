"""The `weir` commands that ask a running mesh, and what they say when there is none."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from gen.weir.ledger.v1 import Outcome, UsageResponse, UsageRow
from gen.weir.type.v1 import Principal, Usage
from meshkit.settings import HOME_VARIABLE
from weirctl import home_lock, state_file, status, usage
from weirctl.__main__ import main


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """WEIR_HOME of the test."""
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path))
    return tmp_path


class _Edge(BaseHTTPRequestHandler):
    """Answers as the edge does."""

    status: ClassVar[int] = 200
    body: ClassVar[bytes] = b""
    asked: ClassVar[list[dict[str, object]]] = []

    def do_POST(self) -> None:
        self.asked.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        self.asked[-1]["authorization"] = self.headers["authorization"]
        self.send_response(self.status)
        self.send_header("x-weir-target", "local")
        self.send_header("x-weir-route-reason", "configured order")
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass


@pytest.fixture
def edge(home: Path) -> Iterator[type[_Edge]]:
    """A mesh that seems to be up, with a fake edge; its answer is set on the class."""
    kind = type("Edge", (_Edge,), {"asked": []})
    server = HTTPServer(("127.0.0.1", 0), kind)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    (home / "demo-key").write_text("weir_a_b\n")
    with home_lock.hold(home):
        state_file.write(home, state_file.MeshState(1, f"http://127.0.0.1:{server.server_port}", []))
        yield kind
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    "argv",
    [
        ["status"],
        ["ask", "x"],
        ["usage"],
        ["audit"],
        ["samples"],
        ["keys", "create", "--org", "o", "--team", "t"],
        ["keys", "list"],
        ["keys", "show", "k"],
        ["keys", "rotate", "k"],
        ["keys", "revoke", "k"],
        ["keys", "sample", "k", "off"],
    ],
    ids=" ".join,
)
def test_without_a_mesh_every_command_says_how_to_start_one(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit status 1, and `weir up` is named."""
    assert main(argv) == 1
    said = capsys.readouterr()
    assert "weir up" in said.out + said.err


def test_down_without_a_mesh_is_no_failure(capsys: pytest.CaptureFixture[str]) -> None:
    """What was asked for is so already."""
    assert main(["down"]) == 0
    assert "not up" in capsys.readouterr().out


def test_ask_streams_the_answer_and_says_who_gave_it(
    edge: type[_Edge], capsys: pytest.CaptureFixture[str]
) -> None:
    """The text alone on standard output; target and reason beside it; the demo key and the model are sent."""
    pieces = [{"choices": [{"delta": {"content": text}}]} for text in ("Hel", "lo")]
    events = [f"data: {json.dumps(piece)}\n\n" for piece in pieces]
    edge.body = "".join(
        [": ping\n\n", *events, 'data: {"choices": [], "usage": {}}\n\n', "data: [DONE]\n\n"]
    ).encode()
    assert main(["ask", "Hi", "--model", "local"]) == 0
    said = capsys.readouterr()
    assert said.out == "Hello\n"
    assert said.err == "[local: configured order]\n"
    (asked,) = edge.asked
    assert (asked["model"], asked["stream"], asked["authorization"]) == ("local", True, "Bearer weir_a_b")


def test_ask_without_a_stream(edge: type[_Edge], capsys: pytest.CaptureFixture[str]) -> None:
    """The whole answer at once."""
    edge.body = b'{"choices": [{"message": {"content": "Hello"}}]}'
    assert main(["ask", "Hi", "--no-stream"]) == 0
    assert capsys.readouterr().out == "Hello\n"
    assert "model" not in edge.asked[0]


@pytest.mark.parametrize(
    ("status_code", "body", "expected"),
    [
        (404, b'{"error": {"message": "no model x"}}', "404: no model x"),
        (503, b"upstream connect error", "503: upstream connect error"),
        (200, b'data: {"error": {"message": "cut"}}\n\n', "cut"),
        (200, b'data: {"choices": []}\n\n', "broke off"),
    ],
)
def test_ask_fails_clearly(
    edge: type[_Edge], capsys: pytest.CaptureFixture[str], status_code: int, body: bytes, expected: str
) -> None:
    """An error before or within the answer, or an end without [DONE]: exit status 1 and the reason."""
    edge.status, edge.body = status_code, body
    assert main(["ask", "Hi"]) == 1
    assert expected in capsys.readouterr().err


def test_usage_shows_money_to_the_last_digit() -> None:
    """No rounding; estimates and missing prices are marked, and a sum stands below."""
    principal = Principal(key_id="k1", org="acme", team="red")
    rows = [
        UsageRow(
            principal=principal, model_asked="auto", target="cloud", outcome=Outcome.OK, attempts=3,
            usage=Usage(input_tokens=10, output_tokens=20), cost_nano_usd=1_234_567_890_123_456_789,
        ),
        UsageRow(
            principal=principal, model_asked="auto", target="local", outcome=Outcome.FAILED, attempts=2,
            usage=Usage(input_tokens=1, estimated=True), cost_nano_usd=0, unpriced_attempts=2,
        ),
    ]  # fmt: skip
    lines = usage.report(UsageResponse(rows=rows)).splitlines()
    assert lines[1].split() == [
        "acme/red",
        "k1",
        "auto",
        "cloud",
        "ok",
        "3",
        "10",
        "20",
        "1234567890.123456789",
    ]
    assert lines[2].split() == ["acme/red", "k1", "auto", "local", "failed", "2", "~1", "~0", "no", "price"]
    assert "Total: 1234567890.123456789 USD" in lines
    assert any("2 attempts" in line for line in lines)


@pytest.mark.parametrize(
    ("nano_usd", "text"), [(0, "0.000000000"), (1, "0.000000001"), (-1_500_000_000, "-1.500000000")]
)
def test_dollars_are_exact(nano_usd: int, text: str) -> None:
    """Nine digits after the point, sign included."""
    assert usage.dollars(nano_usd) == text


def test_usage_since_rubbish_is_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 2, before anybody is asked."""
    assert main(["usage", "--since", "yesterday"]) == 2
    assert "--since 'yesterday': write 30m" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "text"), [(-1, "0s"), (59.9, "60s"), (60, "1m"), (7_300, "2h"), (200_000, "2d")]
)
def test_spans_are_short(seconds: float, text: str) -> None:
    """One number and one letter."""
    assert status.span(seconds) == text


def test_status_says_what_the_machine_knows_better(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A part that the supervisor calls healthy and whose process is gone shows as gone; the sandbox is marked."""
    dead = state_file.PartState("sandbox_cloud", "healthy", 2**22 + 1, 4, 0.0, "127.0.0.1:1", "sandbox")
    with home_lock.hold(home):
        state_file.write(home, state_file.MeshState(1, "http://127.0.0.1:8080", [dead]))
        assert main(["status"]) == 1
    line = capsys.readouterr().out.splitlines()[-1].split()
    assert line[:5] == ["sandbox_cloud", "[sandbox]", "gone", str(2**22 + 1), "4"]
