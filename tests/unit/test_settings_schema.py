"""The JSON Schema of weir.yaml for editors: it takes what Weir takes, and refuses what Weir refuses."""

from __future__ import annotations

import json
import re
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from meshkit.settings import TOP_LEVEL_KEYS, SettingsError
from tools.settings_schema import PAGE, page
from weirctl.config import read

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "weir.yaml"
_LEAST_DESCRIBED = 0.75


@pytest.fixture(scope="module")
def validator() -> Draft7Validator:
    """Of the schema as it is committed."""
    schema = json.loads(PAGE.read_text(encoding="utf-8"))
    Draft7Validator.check_schema(schema)
    return Draft7Validator(schema)


def _in_pages() -> list[str]:
    """Every weir.yaml that a page shows."""
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    blocks = [
        text for page in pages for text in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)
    ]
    return [text for text in blocks if set(yaml.safe_load(text) or ()) <= TOP_LEVEL_KEYS]


def _as_json(value: Any) -> Any:
    """As an editor reads it, to whom a date is text."""
    if isinstance(value, dict):
        return {str(key): _as_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_as_json(item) for item in value]
    return value.isoformat() if isinstance(value, date) else value


def test_it_is_up_to_date() -> None:
    """`make gen` would change nothing."""
    assert PAGE.read_text(encoding="utf-8") == page()


def test_it_knows_every_key_and_most_are_explained(validator: Draft7Validator) -> None:
    """What an editor shows beside a key is what the settings class says of it."""
    properties = validator.schema["properties"]
    assert set(properties) == TOP_LEVEL_KEYS
    (target,) = properties["targets"]["patternProperties"].values()
    assert "For one attempt, whole" in json.dumps(target)
    blocks = [block for name in ("edge", "triton", "ledger", "router") for block in
              properties[name]["properties"].values()]  # fmt: skip
    assert sum("description" in block for block in blocks) >= _LEAST_DESCRIBED * len(blocks)


def test_nothing_of_this_machine_is_in_it() -> None:
    """Defaults that depend on where Weir lies are left out."""
    assert str(ROOT) not in page()


@pytest.mark.parametrize("text", [EXAMPLE.read_text(encoding="utf-8"), "{}", *_in_pages()])
def test_it_takes_what_is_shown(text: str, validator: Draft7Validator) -> None:
    """The example and every configuration in the pages."""
    assert [error.message for error in validator.iter_errors(_as_json(yaml.safe_load(text)))] == []


@pytest.mark.parametrize(
    "text",
    [
        "workers: ${N:-1}\ndrain_s: ${S:-5}\ntransport: ${T:-loopback}\npostgres_dsn: ${D:-x}\n",
        "edge: {cors: {credentials: '${B:-false}'}}",
        "targets: {a: {kind: triton, chat_template: '${C:-chatml}', hedge: '${H:-true}', weight: '${W:-2}'}}",
        "targets: {a: {kind: cloud, provider: p, model: m}}\nproviders: {p: {base_url: 'http://h/v1'}}",
        "providers: {p: {base_url: 'http://h/v1', api_keys: [{env: A, weight: 3}, {file: /b}]}}",
        "ledger: {prices_file: prices.yaml, pool_size: 2}\nauth: {limits: {keys: {requests_per_minute: 5}}}",
    ],
)
def test_it_takes_what_weir_takes(text: str, validator: Draft7Validator, tmp_path: Path) -> None:
    """Variables stand for numbers, booleans and words, too."""
    path = tmp_path / "weir.yaml"
    path.write_text(text, encoding="utf-8")
    read(path, {"WEIR_HOME": str(tmp_path)}, sandbox=False)
    assert [error.message for error in validator.iter_errors(_as_json(yaml.safe_load(text)))] == []


@pytest.mark.parametrize(
    "text",
    [
        "wrokers: 2",
        "workers: 0",
        "workers: many",
        "workers: 1.5",
        "drain_s: 0",
        "transport: pigeon",
        "ports: {edge: 65536}",
        "ports: {egde: 1}",
        "targets: {a: {kind: triton, limits: {total_s: -1}}}",
        "targets: {a: {kind: else}}",
        "targets: {a: {kind: cloud, model: m}}",
        "targets: {a: {kind: triton, provider: p}}",
        "targets: {'a b': {kind: triton}}",
        "models: {m: {plan: []}}",
        "models: {m: {plan: local}}",
        "models: {m: {}}",
        "edge: {threads: x}",
        "edge: []",
        "providers: {P: {base_url: 'http://h'}}",
        "providers: {p: {}}",
        "auth: {limits: {keys: {requests_per_minute: 0}}}",
        "auth: {pol_s: 1}",
        "ledger: {pool_sise: 1}",
        "router: {spool: 3}",
        "triton: {embedding: 7}",
        "workers: null",
    ],
)
def test_it_refuses_what_weir_refuses(text: str, validator: Draft7Validator, tmp_path: Path) -> None:
    """Unknown keys, types, ranges, names, what is missing: the editor's red line and Weir's fault go together."""
    path = tmp_path / "weir.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError):
        read(path, {"WEIR_HOME": str(tmp_path)}, sandbox=False)
    assert list(validator.iter_errors(_as_json(yaml.safe_load(text))))
