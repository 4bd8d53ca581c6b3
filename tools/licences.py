"""The licence of a package as an SPDX expression, and what is allowed (tools/dependency_policy.toml)."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from types import MappingProxyType
from typing import Any

POLICY = Path(__file__).with_name("dependency_policy.toml")
# What older metadata say instead of an SPDX id, where it can mean one thing only.
_SPDX: Mapping[str, str] = MappingProxyType({
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD 2-Clause License": "BSD-2-Clause",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
})  # fmt: skip
_EXPRESSION = re.compile(r"[A-Za-z0-9.+-]+( (AND|OR) [A-Za-z0-9.+-]+)*")
_CLASSIFIER = "License :: OSI Approved :: "


@dataclass(frozen=True, slots=True)
class Policy:
    """tools/dependency_policy.toml."""

    allowed: frozenset[str]
    exceptions: Mapping[str, Mapping[str, str]]
    licences: Mapping[str, Mapping[str, str]]
    advisories: tuple[Mapping[str, str], ...]

    def allows(self, name: str, expression: str) -> bool:
        """Whether a package of this name may have this licence."""
        exception = self.exceptions.get(name)
        if exception is not None and exception["licence"] == expression:
            return True
        # AND binds more tightly than OR, and an expression with parentheses is not known here.
        return any(set(choice.split(" AND ")) <= self.allowed for choice in expression.split(" OR "))


def policy(path: Path = POLICY) -> Policy:
    """The policy, as it is committed."""
    found: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    return Policy(
        frozenset(found["allowed"]), found["exceptions"], found["licences"], tuple(found["advisories"])
    )


def licence_of(name: str, rules: Policy) -> str | None:
    """The SPDX expression: what the policy says of the package, else what it says itself; None where neither does."""
    told = rules.licences.get(name)
    if told is not None:
        return told["licence"]
    try:
        fields = metadata(name)
    except PackageNotFoundError:
        return None
    classifiers = [
        line.removeprefix(_CLASSIFIER)
        for line in fields.get_all("Classifier", ())
        if line.startswith(_CLASSIFIER)
    ]
    said_plainly = [fields[name] for name in ("License-Expression", "License") if name in fields]
    offered = [*said_plainly, *classifiers[:1]]
    return next((found for found in map(_spdx, offered) if found is not None), None)


def _spdx(said: str) -> str | None:
    if said == "UNKNOWN":
        return None
    if said in _SPDX:
        return _SPDX[said]
    return said if _EXPRESSION.fullmatch(said) else None
