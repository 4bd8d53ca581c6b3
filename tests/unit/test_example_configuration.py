"""The commented example is a configuration that works, and shows what the defaults are."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from meshkit.settings import TOP_LEVEL_KEYS, SettingsError
from weirctl.config import read

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "weir.yaml"


def test_example_is_a_good_configuration(tmp_path: Path) -> None:
    """`weir up --config examples/weir.yaml` takes it as it is; the secret comes from the environment alone."""
    config = read(EXAMPLE, {"WEIR_HOME": str(tmp_path), "OPENAI_API_KEY": "sk-x"}, sandbox=False)
    models = config.router.model_specs()
    assert models["gpt-4"].targets == ("local", "cloud")
    assert models["auto"].targets == ("cloud", "local")
    assert {"local", "cloud"} <= set(models)
    assert config.secrets == {"OPENAI_API_KEY": "sk-x"}
    assert config.router.targets["cloud"].model == "gpt-4.1-mini"


def test_example_shows_the_defaults(tmp_path: Path) -> None:
    """Whatever the example sets that is no provider, target or model is what it would be without the file."""
    environment = {"WEIR_HOME": str(tmp_path)}
    shown, default = (
        read(EXAMPLE, environment, sandbox=False),
        read(Path("/dev/null"), environment, sandbox=False),
    )
    for name in ("transport", "topology", "workers", "ports"):
        assert getattr(shown.command, name) == getattr(default.command, name)
    assert shown.command.edge == default.command.edge
    assert shown.router.targets["local"] == default.router.targets["local"]
    assert shown.router.default_model == default.router.default_model


def test_what_the_example_keeps_in_comments_works_too(tmp_path: Path) -> None:
    """Whoever takes the marks away gets a configuration that is good."""
    text = EXAMPLE.read_text(encoding="utf-8")
    for first in ("  # services:\n", "  # issuers:\n"):
        begin = text.index(first)
        block = text[begin:].split("\n\n")[0]
        text = text.replace(block, block.replace("  # ", "  "))
    copy = tmp_path / "weir.yaml"
    copy.write_text(text, encoding="utf-8")
    config = read(copy, {"WEIR_HOME": str(tmp_path), "OPENAI_API_KEY": "sk-x"}, sandbox=False)
    assert list(config.command.edge.services) == ["docs"]
    assert "issuers" in config.document["auth"]


def test_unknown_keys_are_refused_by_name(tmp_path: Path) -> None:
    """A misspelt key is a fault at the top and inside every block, and all are named at once."""
    document = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    document["targets"]["local"]["chat_templte"] = "chatml"
    document["providers"]["openai"]["api_kee_env"] = "X"
    document["edge"]["hots"] = "x"
    faulty = tmp_path / "weir.yaml"
    faulty.write_text(yaml.safe_dump(document), encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        read(faulty, {"WEIR_HOME": str(tmp_path)}, sandbox=False)
    for name in ("chat_templte", "api_kee_env", "hots"):
        assert name in str(caught.value)
    faulty.write_text("zebra: 2\n", encoding="utf-8")
    with pytest.raises(SettingsError, match="zebra") as caught:
        read(faulty, {"WEIR_HOME": str(tmp_path)}, sandbox=False)
    assert all(key in str(caught.value) for key in sorted(TOP_LEVEL_KEYS)[:3])
