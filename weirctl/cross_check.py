"""Names in weir.yaml that mean something elsewhere in it: targets of plans, providers of targets, the default model.

They are looked up in the keys as they stand, so that these faults are told together with all others: a settings class
looks at them only once its every field is good.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from meshkit.settings_faults import Fault
from meshkit.settings_file import SettingsFile
from services.router.settings import default_target_blocks

AUTO = "auto"


def unknown_names(file: SettingsFile, document: Mapping[str, Any]) -> list[Fault]:
    """A fault for each name that is not there. `document` may be of any form; what is no name is passed over."""
    targets = _mapping(document.get("targets", default_target_blocks()))
    models, providers = _mapping(document.get("models")), _mapping(document.get("providers"))
    return [
        *_of_plans(file, models, targets),
        *_of_targets(file, targets, providers),
        *_of_default(file, document.get("default_model"), models, targets),
    ]


def _of_plans(file: SettingsFile, models: Mapping[str, Any], targets: Mapping[str, Any]) -> Iterator[Fault]:
    for name, model in models.items():
        plan = _mapping(model).get("plan")
        for at, target in enumerate(plan if isinstance(plan, list) else ()):
            if isinstance(target, str) and target not in targets:
                text = f"no target {target!r} (targets: {_list(targets)})"
                yield file.fault(("models", name, "plan", at), text)


def _of_targets(
    file: SettingsFile, targets: Mapping[str, Any], providers: Mapping[str, Any]
) -> Iterator[Fault]:
    for name, target in targets.items():
        provider = _mapping(target).get("provider")
        if (
            isinstance(provider, str)
            and _mapping(target).get("kind") == "cloud"
            and provider not in providers
        ):
            text = f"no provider {provider!r} (providers: {_list(providers)})"
            yield file.fault(("targets", name, "provider"), text)


def _of_default(
    file: SettingsFile, default: object, models: Mapping[str, Any], targets: Mapping[str, Any]
) -> Iterator[Fault]:
    known = dict.fromkeys([*targets, AUTO, *models])
    if isinstance(default, str) and default not in known:
        yield file.fault(("default_model",), f"no model {default!r} (models: {_list(known)})")


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(names: Mapping[str, Any]) -> str:
    return ", ".join(map(str, names)) or "none"
