"""GET /v1/models, GET /v1/models/{id} and Router/ListModels: what a key is shown of the models."""

from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import replace
from datetime import date
from typing import Any, get_args

import msgspec
import pytest
from openai.types import Model as OpenAIModel

from gen.weir.router.v1 import Task
from meshkit.errors import Forbidden, ModelNotFound, UpstreamError
from pricing.cost import Rates
from pricing.price_list import Price, PriceList, Side
from services.router.domain.permissions import Permissions
from services.router.domain.target import ANYTHING, Capabilities, ModelSpec
from services.router.get_model import GetModel
from services.router.list_models import ListModels
from services.router.model_cards import CAPABILITIES, ModelCards
from services.router.ports import Piece
from services.router.target_settings import CapabilitySettings
from services.router.target_state import TargetState
from tests.fakes.router import FakeClock, FakeTarget, spec

EVERYTHING = Permissions()
SINCE_S = 1_700_000_000
BEFORE, AFTER = date(2025, 1, 1), date(2026, 1, 2)  # the fake clock begins on 2026-01-01
MODELS = {
    model.name: model
    for model in (
        ModelSpec("auto", ("cloud", "local"), auto=True),
        ModelSpec("local", ("local",), auto=False),
        ModelSpec("vendor/cloud", ("cloud",), auto=False),
        ModelSpec("embed", ("embed",), auto=False, task=Task.EMBED),
    )
}


def _price(version: str, side: Side, effective: date, *rates: int) -> Price:
    given = Rates(input=rates[0], cached_input=rates[1], output=rates[2])
    return Price(version, side, "*", "*", effective, "test", given)


class World:
    """The use cases over fakes."""

    def __init__(self, models: dict[str, ModelSpec] | None = None, **capabilities: Capabilities) -> None:
        self.clock = FakeClock()
        self.targets = {
            "local": FakeTarget(spec("local", local=True), ()),
            "cloud": FakeTarget(spec("cloud", local=False), ()),
            "embed": FakeTarget(spec("embed", local=True, task=Task.EMBED), ()),
        }
        for name, given in capabilities.items():
            self.targets[name] = FakeTarget(replace(self.targets[name].spec, capabilities=given), ())
        self.states = {name: TargetState(target, self.clock) for name, target in self.targets.items()}
        prices = PriceList([
            _price("now", Side.CLOUD, BEFORE, 150_000_000, 75_000_000, 600_000_000),
            _price("soon", Side.CLOUD, AFTER, 1, 2, 3),
        ])  # fmt: skip
        cards = ModelCards(models or MODELS, self.states, prices, self.clock, SINCE_S)
        self.list_models = ListModels(cards)
        self.get_model = GetModel(cards)

    def listed(self, permissions: Permissions = EVERYTHING) -> dict[str, Any]:
        shown = msgspec.json.decode(self.list_models.openai_json(permissions))
        assert shown.keys() == {"object", "data"}
        assert shown["object"] == "list"
        return {model["id"]: model for model in shown["data"]}

    def got(self, name: str, permissions: Permissions = EVERYTHING) -> Any:
        return msgspec.json.decode(self.get_model.openai_json(name, permissions))

    async def open_breaker(self, name: str) -> None:
        async def failing() -> AsyncGenerator[Piece, None]:
            raise UpstreamError("down", details={"down": "true"})
            yield  # makes this a generator

        with suppress(UpstreamError):
            async for _ in self.states[name].breaker.watched(failing()):
                pass


def test_a_model_has_openais_fields_and_more() -> None:
    """The whole object, as documented."""
    world = World(
        local=Capabilities(frozenset({"tools"}), context_window=8_192, max_output_tokens=1_024),
        cloud=Capabilities(frozenset({ANYTHING}), frozenset({"audio"}), 128_000, 16_384),
    )
    assert world.got("auto") == {
        "id": "auto",
        "object": "model",
        "created": SINCE_S,
        "owned_by": "weir",
        "task": "chat",
        "context_window": 8_192,
        "max_output_tokens": 1_024,
        "capabilities": ["file", "json_schema", "tools", "vision"],
        "targets": [
            {
                "name": "cloud",
                "locality": "cloud",
                "provider": "openai",
                "model": "cloud-model",
                "sandbox": False,
                "healthy": True,
                "state": "up",
                "pricing": {
                    "input": 150_000_000,
                    "cached_input": 75_000_000,
                    "output": 600_000_000,
                    "unit": "nano_usd_per_million_tokens",
                    "currency": "USD",
                },
            },
            {
                "name": "local",
                "locality": "local",
                "provider": "triton",
                "model": "local-model",
                "sandbox": False,
                "healthy": True,
                "state": "up",
                "pricing": None,
            },
        ],
    }


def test_the_list_and_one_model_say_the_same() -> None:
    """Each listed model is the object that asking for it alone gives; the order is the configuration's."""
    world = World()
    listed = world.listed()
    assert list(listed) == list(MODELS)
    assert listed == {name: world.got(name) for name in MODELS}


def test_openais_own_client_reads_it() -> None:
    """Strictly by its published types."""
    for model in World().listed().values():
        assert OpenAIModel.model_validate(model, strict=True).owned_by == "weir"


def test_the_contract_says_the_same() -> None:
    """Task, context window and capabilities as in JSON; only targets that are up."""
    world = World(
        local=Capabilities(frozenset({"tools"}), context_window=8_192),
        cloud=Capabilities(frozenset({"vision"}), context_window=4_096),
    )
    world.targets["cloud"].up = False
    auto, local, embed = world.list_models.models(EVERYTHING)
    assert (auto.name, [target.name for target in auto.targets]) == ("auto", ["local"])
    assert (auto.task, auto.context_window, auto.capabilities) == (Task.CHAT, 4_096, ["tools", "vision"])
    assert (local.name, local.capabilities) == ("local", ["tools"])
    assert (embed.name, embed.task, embed.context_window) == ("embed", Task.EMBED, 0)


def test_unknown_sizes_are_not_guessed() -> None:
    """One target without a configured window leaves the model's unknown, though another has one."""
    world = World(cloud=Capabilities(frozenset({ANYTHING}), context_window=128_000, max_output_tokens=9))
    auto = world.got("auto")
    assert (auto["context_window"], auto["max_output_tokens"]) == (None, None)
    cloud = world.got("vendor/cloud")
    assert (cloud["context_window"], cloud["max_output_tokens"]) == (128_000, 9)
    assert world.list_models.models(EVERYTHING)[0].context_window == 0


def test_an_embedding_model_has_no_capabilities_of_conversations() -> None:
    """Also where its provider can do anything."""
    embed = World(embed=Capabilities(frozenset({ANYTHING}))).got("embed")
    assert (embed["task"], embed["capabilities"]) == ("embed", [])


def test_every_capability_of_the_settings_is_shown() -> None:
    """A new one must be shown or left out on purpose."""
    switches = {
        name
        for name, field in CapabilitySettings.model_fields.items()
        if field.annotation is bool or bool in get_args(field.annotation)
    }
    assert set(CAPABILITIES) == switches - {"responses"}


def test_models_without_a_target_that_is_up_are_not_listed() -> None:
    """They come back with their target; asked for alone they are shown all the while."""
    world = World()
    world.targets["cloud"].up = False
    assert list(world.listed()) == ["auto", "local", "embed"]
    (target,) = world.got("vendor/cloud")["targets"]
    assert (target["healthy"], target["state"]) == (False, "down")
    assert world.got("auto")["targets"][0]["healthy"] is False
    world.targets["cloud"].up = True
    assert list(world.listed()) == list(MODELS)


async def test_an_open_breaker_is_shown() -> None:
    """A target that is left alone is not healthy; when its probe is due it may be asked again."""
    world = World()
    await world.open_breaker("cloud")
    assert list(world.listed()) == ["auto", "local", "embed"]
    (target,) = world.got("vendor/cloud")["targets"]
    assert (target["healthy"], target["state"]) == (False, "open")
    world.clock.elapsed_s += 5.0
    (target,) = world.got("vendor/cloud")["targets"]
    assert (target["healthy"], target["state"]) == (True, "probing")
    assert "vendor/cloud" in world.listed()


def test_keys_see_what_they_may_use() -> None:
    """Models by name, and of each only the targets that may answer; one without any is not there."""
    world = World()
    assert list(world.listed(Permissions(models=["local", "vendor/*"]))) == ["local", "vendor/cloud"]
    local_only = world.listed(Permissions(targets=["local"]))
    assert list(local_only) == ["auto", "local"]
    assert [target["name"] for target in local_only["auto"]["targets"]] == ["local"]
    assert local_only["auto"]["capabilities"] == []
    assert world.listed(Permissions(models=["none"])) == {}
    assert [model.name for model in world.list_models.models(Permissions(["auto"]))] == ["auto"]


def test_targets_stand_in_order_of_preference() -> None:
    """The lower priority first, as plans have it; the plan's own order among equals."""
    world = World()
    for name, priority in (("local", 1), ("cloud", 2), ("embed", 1)):
        target = FakeTarget(spec(name, local=True, priority=priority), ())
        world.states[name] = TargetState(target, world.clock)
    models = {"m": ModelSpec("m", ("cloud", "embed", "local"), auto=False)}
    cards = ModelCards(models, world.states, PriceList([]), world.clock, SINCE_S)
    (message,) = ListModels(cards).models(EVERYTHING)
    assert [target.name for target in message.targets] == ["embed", "local", "cloud"]


def test_prices_are_those_of_today() -> None:
    """A price of tomorrow is shown tomorrow."""
    world = World()
    world.clock.elapsed_s += 86_400
    (target,) = world.got("vendor/cloud")["targets"]
    assert [target["pricing"][name] for name in ("input", "cached_input", "output")] == [1, 2, 3]


def test_a_stand_in_is_shown_as_one() -> None:
    """With the price of its own side, or none: never the provider's."""
    world = World()
    world.targets["cloud"].spec.target.sandbox = True
    (target,) = world.got("vendor/cloud")["targets"]
    assert (target["sandbox"], target["pricing"]) == (True, None)


@pytest.mark.parametrize("name", ["", "nope", "AUTO", "auto ", "vendor", "x" * 5_000])
def test_an_unknown_model_is_not_found(name: str) -> None:
    """The error names it, cut, and the parameter."""
    with pytest.raises(ModelNotFound) as refused:
        World().get_model.openai_json(name, EVERYTHING)
    assert refused.value.param == "model"
    assert repr(name[:100]) in refused.value.message


@pytest.mark.parametrize(
    "permissions", [Permissions(models=["auto"]), Permissions(targets=["cloud"])], ids=["model", "targets"]
)
def test_a_model_that_the_key_may_not_use_is_forbidden(permissions: Permissions) -> None:
    """As a conversation with it is; whether its target is up is not told."""
    with pytest.raises(Forbidden) as refused:
        World().get_model.openai_json("local", permissions)
    assert refused.value.param == "model"
