"""OpenAI's Responses API, requests: whatever is sent is read or refused, never anything else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dialects.request import Request
from dialects.responses_request import PARAMETERS, read
from meshkit.errors import InvalidRequest


def read_or_refuse(raw: bytes) -> Request | InvalidRequest:
    """The request, or the refusal as a value."""
    try:
        return read(raw)
    except InvalidRequest as error:
        return error


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([
        "message", "function_call", "function_call_output", "input_text", "output_text", "input_image", "input_file",
        "refusal", "user", "assistant", "system", "function", "json_schema", "auto", "c1",
    ])
    | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(
        st.sampled_from([
            "type", "role", "content", "text", "call_id", "name", "arguments", "output", "image_url", "file_id",
            "file_data", "id", "format", "schema", "effort", "parameters", "refusal",
        ])
        | st.text(max_size=3),
        inner,
        max_size=5,
    ),
    max_leaves=12,
)  # fmt: skip
ITEMS = st.lists(VALUES, max_size=4) | VALUES


@settings(deadline=None, max_examples=200)
@given(st.dictionaries(st.sampled_from(sorted(PARAMETERS)) | st.text(max_size=4), VALUES, max_size=6), ITEMS)
def test_whatever_is_sent_is_read_or_refused(fields: dict[str, Any], given_input: Any) -> None:
    """No other error than INVALID_REQUEST; what is read can be sent in both forms."""
    request = read_or_refuse(json.dumps({"input": given_input, **fields}).encode())
    if isinstance(request, InvalidRequest):
        assert "messages" not in (request.param or "")
        return
    assert json.loads(request.body("m", stream=True))["model"] == "m"
    assert (request.chat is None) == ("responses" in request.needs)
    if request.chat is not None:
        assert json.loads(request.chat.body("m", stream=True))["messages"]


@settings(deadline=None)
@given(st.binary(max_size=64) | st.text(max_size=64).map(str.encode))
def test_rubbish_is_refused(raw: bytes) -> None:
    """Bytes that are no request are INVALID_REQUEST."""
    with pytest.raises(InvalidRequest):
        read(raw)
