"""What weir.yaml says of models and targets, and how faults in it read."""

from __future__ import annotations

from typing import Any

import pytest

from meshkit.settings import SettingsError, build
from services.router.settings import RouterSettings


def settings(**document: Any) -> RouterSettings:
    """The settings of a file with these keys."""
    return build(RouterSettings, document, {})


@pytest.mark.parametrize(
    ("document", "line"),
    [
        ({"models": {"m": {"plan": ["local", "local"]}}}, "models.m.plan: names a target twice"),
        (
            {"models": {"m": {"plan": ["gone"]}}},
            "models.m.plan: no target 'gone' (targets: local, local-embed)",
        ),
        ({"default_model": "gone"}, "default_model: no model 'gone' (models: local, local-embed, auto)"),
        ({"default_model": "local-embed"}, "default_model: 'local-embed' answers no conversations"),
        (
            {"models": {"m": {"plan": ["local", "local-embed"]}}},
            "models.m.plan: targets of different tasks",
        ),
        ({"targets": {}}, "default_model: no model 'auto' (models: none, for there are no targets)"),
    ],
)
def test_faults_name_their_place(document: dict[str, Any], line: str) -> None:
    """Each fault is one line that begins with the key and says what would be right."""
    with pytest.raises(SettingsError) as caught:
        settings(**document)
    assert str(caught.value) == line


def test_targets_are_models_too() -> None:
    """Each target under its own name, and `auto`, unless the file says otherwise; names may have a path."""
    models = settings(models={"org/model": {"plan": ["local"]}, "auto": {"plan": ["local"]}}).model_specs()
    assert {name: (model.targets, model.auto) for name, model in models.items()} == {
        "local": (("local",), False),
        "local-embed": (("local-embed",), False),
        "auto": (("local",), False),
        "org/model": (("local",), False),
    }
