"""What a key may use."""

from __future__ import annotations

import random
import re
from dataclasses import FrozenInstanceError
from fnmatch import fnmatchcase

import pytest

from gen.weir.type.v1 import Principal
from services.router.domain.permissions import MAX_NAME_CHARS, Caller, Permissions


@pytest.mark.parametrize("patterns", [[], ["*"], ["local", "*"]])
def test_unlimited(patterns: list[str]) -> None:
    """No pattern, or one that matches all, allows everything, names of any length too."""
    permissions = Permissions(patterns, patterns)
    for name in ("", "gpt-4o", "x" * 10_000):
        assert permissions.may_use_model(name)
        assert permissions.may_use_target(name)


def test_models_and_targets_are_limited_apart() -> None:
    """A limit on one says nothing about the other."""
    models, targets = Permissions(models=["local"]), Permissions(targets=["local"])
    assert not models.may_use_model("cloud")
    assert models.may_use_target("cloud")
    assert targets.may_use_model("cloud")
    assert not targets.may_use_target("cloud")


@pytest.mark.parametrize(
    ("patterns", "allowed", "refused"),
    [
        (["gpt-4o"], ["gpt-4o"], ["gpt-4o-mini", "GPT-4o", "", "gpt-4o\n"]),
        (["gpt-4o*"], ["gpt-4o", "gpt-4o-mini"], ["gpt-4", "xgpt-4o"]),
        (["local", "gpt-?"], ["local", "gpt-4"], ["gpt-4o", "gpt-", "locals"]),
        (["[!a]x"], ["bx"], ["ax", "x"]),
        (["a.b"], ["a.b"], ["axb"]),
        (["[", "a|b"], ["[", "a|b"], ["a", "b"]),
    ],
)
def test_patterns(patterns: list[str], allowed: list[str], refused: list[str]) -> None:
    """Shell patterns of the whole name, upper and lower case apart, any one of which suffices."""
    permissions = Permissions(patterns)
    assert [name for name in allowed + refused if permissions.may_use_model(name)] == allowed


def test_patterns_are_those_of_fnmatchcase() -> None:
    """Whatever their characters, several together say what each says alone, and nothing is an invalid expression."""
    chance = random.Random(3)  # noqa: S311 - the same patterns each time, guards nothing
    letters = "ab-*?[]!^\\.&|~(){}+$#"
    for _ in range(3_000):
        patterns = ["".join(chance.choices(letters, k=chance.randint(1, 8))) for _ in range(3)]
        name = "".join(chance.choices("ab-[]!^\\.&|~\n", k=chance.randint(0, 5)))
        expected = any(fnmatchcase(name, pattern) for pattern in patterns)
        assert Permissions(patterns).may_use_model(name) == expected, (patterns, name)


def test_a_name_too_long_for_any_model_is_not_matched() -> None:
    """The asker chooses the name; the work that it can cause is bounded."""
    permissions = Permissions(["a*", "*z"])
    assert permissions.may_use_model("a" * MAX_NAME_CHARS)
    assert not permissions.may_use_model("a" * (MAX_NAME_CHARS + 1))


def test_a_question_compiles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of that is done once for a key."""
    permissions = Permissions(["gpt-*", "local"], ["c*"])

    def refuse(*_: object) -> None:
        raise AssertionError("compiled on a request")

    # For these calls alone: pytest's own reporters use expressions too.
    with monkeypatch.context() as patched:
        patched.setattr(re, "_compile", refuse)
        may = permissions.may_use_model("gpt-4o"), permissions.may_use_target("local")
    assert may == (True, False)


def test_a_caller_cannot_be_altered() -> None:
    """It is shared by all requests of a key."""
    caller = Caller(Principal(key_id="k"), Permissions())
    with pytest.raises(FrozenInstanceError):
        caller.principal = Principal(key_id="other")  # type: ignore[misc] # that is the point
