"""What a browser sees of a running Weir that one web page may use: preflight, answer, stream and errors."""

from __future__ import annotations

import httpx2
import pytest

from tests.clients.configuration import PAGE
from tests.clients.test_python_chat import HELLO
from tests.harness.running_weir import RunningWeir

# What the official SDK's browser build announces.
SDK_HEADERS = (
    "authorization,content-type,x-stainless-lang,x-stainless-package-version,x-stainless-retry-count"
)
STRANGER = "https://evil.example"


@pytest.mark.parametrize("origin", [PAGE, STRANGER])
def test_preflight(weir: RunningWeir, origin: str) -> None:
    """Allowed without a key for the page that `edge.cors` names, and for no other."""
    asked = {"access-control-request-method": "POST", "access-control-request-headers": SDK_HEADERS}
    answer = httpx2.options(f"{weir.base_url}/chat/completions", headers={"origin": origin, **asked})
    assert answer.is_success is (origin == PAGE)
    assert answer.headers.get("access-control-allow-origin") == (PAGE if origin == PAGE else None)
    if origin == PAGE:
        assert set(SDK_HEADERS.split(",")) <= set(answer.headers["access-control-allow-headers"].split(","))


@pytest.mark.parametrize(
    ("key", "model", "status"),
    [(True, "gpt-4", 200), (True, "gpt-99", 404), (True, "limited", 429), (False, "gpt-4", 401)],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_a_page_can_read(weir: RunningWeir, key: bool, model: str, status: int, stream: bool) -> None:  # noqa: FBT001 - parameters of the test
    """Answers, streams and errors alike, with the headers that Weir documents."""
    headers = {"origin": PAGE, "authorization": f"Bearer {weir.key if key else 'x'}"}
    body = {"model": model, "messages": HELLO, "stream": stream}
    answer = httpx2.post(f"{weir.base_url}/chat/completions", headers=headers, json=body, timeout=30)
    assert answer.status_code == status
    assert answer.headers["access-control-allow-origin"] == PAGE
    exposed = set(answer.headers["access-control-expose-headers"].split(","))
    assert {"x-request-id", "x-weir-target", "retry-after"} <= exposed
    assert "x-request-id" in answer.headers
