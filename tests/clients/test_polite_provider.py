"""The provider of these tests is held against the SDK's models itself: else it could hide what Weir does wrong."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from tests.clients.polite_provider import PoliteProvider
from tests.clients.schema_check import SchemaCheck, checked_client
from tests.clients.test_python_chat import CLOCK, HELLO, WEATHER
from tests.clients.test_python_other import WEATHER as RESPONSES_WEATHER

PLAIN: Any = {}
USAGE: Any = {"stream": True, "stream_options": {"include_usage": True}}


@pytest.fixture
def direct(provider: PoliteProvider, check: SchemaCheck) -> openai.OpenAI:
    """The official client without a Weir between."""
    return openai.OpenAI(
        base_url=provider.base_url, api_key="x", max_retries=0, http_client=checked_client(check)
    )


def test_it_answers_as_openai_does(direct: openai.OpenAI, check: SchemaCheck) -> None:
    """Every endpoint, whole and streamed, with text, calls, several choices and logprobs."""
    create: Any = direct.chat.completions.create
    for fields in PLAIN, {"tools": [WEATHER, CLOCK]}, {"n": 2, "logprobs": True, "top_logprobs": 1}:
        for stream in PLAIN, USAGE:
            answer = create(model="m", messages=HELLO, **fields, **stream)
            assert not stream or list(answer)
    complete: Any = direct.completions.create
    for stream in PLAIN, USAGE:
        answer = complete(model="m", prompt=["one", "two"], **stream)
        assert not stream or list(answer)
    respond: Any = direct.responses.create
    for fields in PLAIN, {"tools": [RESPONSES_WEATHER]}:
        for stream in PLAIN, {"stream": True}:
            answer = respond(model="m", input="x", **fields, **stream)
            assert not stream or list(answer)
    assert direct.embeddings.create(model="m", input=["a", "b"]).data
    kinds = ("chat/completions", "completions", "responses")
    assert set(check.checked) == {f"/v1/{kind}{end}" for kind in kinds for end in ("", " event")} | {
        "/v1/embeddings"
    }


def test_the_check_can_fail(direct: openai.OpenAI, check: SchemaCheck) -> None:
    """A field that OpenAI does not have, one that it must have, and a number as text are each found."""
    whole = direct.chat.completions.with_raw_response.create(model="m", messages=HELLO).text
    check.faults.clear()
    wrong = {
        "fields that OpenAI does not have": whole.replace('"refusal"', '"unheard_of": 1, "refusal"'),
        "finish_reason": whole.replace('"finish_reason": "stop"', '"x": 1'),
        "total_tokens": whole.replace('"total_tokens": 21', '"total_tokens": "21"'),
    }
    for fault, body in wrong.items():
        assert body != whole
        check.whole("/v1/chat/completions", 200, body.encode())
        assert fault in check.faults.pop()
        assert not check.faults
