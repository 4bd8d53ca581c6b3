"""docs/openai-compatibility.md, and the tables in dialects/ that it is written from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest
from openai.types import Model
from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming as Chat
from openai.types.completion_create_params import CompletionCreateParamsStreaming as Completion
from openai.types.embedding_create_params import EmbeddingCreateParams as Embedding
from openai.types.responses.response_create_params import ResponseCreateParamsStreaming as Response

from services.router.domain.target import ModelSpec
from services.router.model_cards import ModelCard
from services.router.target_state import TargetState
from tests.fakes.router import FakeClock, FakeTarget, spec
from tools import compatibility_table
from tools.compatibility_samples import ENDPOINTS, Endpoint

KNOWN_TO_THE_SDK: Mapping[str, Any] = MappingProxyType({
    "/v1/chat/completions": Chat,
    "/v1/completions": Completion,
    "/v1/embeddings": Embedding,
    "/v1/responses": Response,
})  # fmt: skip
BY_VALUE = ("messages", "prompt", "input", "text", "reasoning", "stream_options")
"""Parameters whose need depends on their value; the note on the page says how."""
ROWS = [
    pytest.param(endpoint, name, id=f"{endpoint.path.rpartition('/')[2]}-{name}")
    for endpoint in ENDPOINTS
    for name in endpoint.parameters
]


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.path)
def test_every_parameter_of_the_sdk_is_listed(endpoint: Endpoint) -> None:
    """What the official client can send has a row."""
    sdk = KNOWN_TO_THE_SDK[endpoint.path]
    assert sdk.__required_keys__ | sdk.__optional_keys__ <= endpoint.parameters.keys()


@pytest.mark.parametrize(("endpoint", "name"), ROWS)
def test_a_reader_does_what_its_table_says(endpoint: Endpoint, name: str) -> None:
    """A parameter that asks for something needs what the table says, and nothing where it says nothing."""
    needs, _ = compatibility_table.tried(endpoint, name)
    need = endpoint.parameters[name].need
    assert needs == ([need] if need else [])
    assert need or name not in BY_VALUE or endpoint.parameters[name].note


@pytest.mark.parametrize(("endpoint", "name"), ROWS)
def test_null_asks_for_nothing(endpoint: Endpoint, name: str) -> None:
    """Null is the same as absent, and so is each of the values that the table calls defaults."""
    if name in endpoint.least:
        return
    for value in (None, *endpoint.parameters[name].defaults):
        body = json.dumps({**endpoint.least, name: value}).encode()
        assert dict(endpoint.read(body).needs) == {}


def test_what_is_not_listed_is_a_need() -> None:
    """A parameter that nobody here knows takes out every target that might ignore it."""
    for endpoint in ENDPOINTS:
        request = endpoint.read(json.dumps({**endpoint.least, "brand_new": 1}).encode())
        need = "responses" if endpoint.path == "/v1/responses" else "brand_new"
        assert dict(request.needs) == {need: "brand_new"}


def test_the_page_is_up_to_date() -> None:
    """`make gen` was run, and each parameter has its row."""
    page = compatibility_table.PAGE.read_text(encoding="utf-8")
    assert page == compatibility_table.page()
    assert "| `stream_options` | yes | edited |" in page
    assert "| `tools` | `tools` | as it is |" in page
    assert "| `n` | no (`n`) | as it is |" in page


def test_the_page_names_the_fields_of_a_model() -> None:
    """Whatever a model shows beside OpenAI's own fields is told."""
    state = TargetState(FakeTarget(spec("t", local=True), []), FakeClock())
    shown = ModelCard(ModelSpec("m", ("t",), auto=False), [state], lambda _: None, 0).openai()
    told = compatibility_table.page().partition("## GET /v1/models")[2]
    missing = {name for name in shown.keys() - Model.model_fields.keys() if f"`{name}`" not in told}
    assert not missing


def test_local_targets_may_claim_what_a_backend_can_do() -> None:
    """The page tells what can be configured from what cannot by asking the settings themselves."""
    assert compatibility_table.local_can() == {"tools", "json_schema"}
