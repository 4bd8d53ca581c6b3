"""From a request to its plan: models, fallbacks, wishes, and what a key may use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from dialects.chat_request import read
from dialects.request import Endpoint, Request
from gen.weir.router.v1 import RouteOptions, Task
from gen.weir.type.v1 import Principal
from meshkit.errors import Forbidden, InvalidRequest, ModelNotFound, UnsupportedParameter, WeirError
from services.router.answer import Answer, Asking
from services.router.domain.permissions import Caller, Permissions
from services.router.domain.target import ModelSpec
from services.router.run_plan import RunPlan
from services.router.wishes import Wishes, with_options
from tests.fakes.router import FakeAttemptLog, FakeTarget, spec, surroundings

MODELS = {
    "gpt-4": ModelSpec("gpt-4", ("local", "cloud"), auto=False),
    "spare": ModelSpec("spare", ("backup",), auto=False),
    "vectors": ModelSpec("vectors", ("embed",), auto=False, task=Task.EMBED),
}


class Desk:
    """An Answer over four targets."""

    def __init__(self) -> None:
        specs = [spec("local", local=True), spec("cloud", local=False), spec("backup", local=False)]
        specs.append(spec("embed", local=True, task=Task.EMBED))
        self.targets = {one.name: FakeTarget(one, []) for one in specs}
        self.around = surroundings(self.targets.values(), FakeAttemptLog())
        self.answer = Answer(MODELS, "gpt-4", self.around.states, RunPlan(self.around), self.around.draw)

    def plan(
        self,
        request: Request,
        wishes: Wishes | None = None,
        *,
        models: Sequence[str] = (),
        targets: Sequence[str] = (),
    ) -> list[tuple[str, str]]:
        """Names and reasons of the plan's steps."""
        caller = Caller(Principal(key_id="k"), Permissions(models, targets))
        plan = self.answer.plan(request, Asking(caller, "req_1", wishes or Wishes()))
        return [(step.target.name, step.reason) for step in plan.steps]


def chat(extra: bytes = b"") -> Request:
    """A chat request."""
    return read(b'{"messages":[{"role":"user","content":"hi"}]%b}' % extra)


def test_absent_model_is_the_default() -> None:
    """And its targets come in their order."""
    assert Desk().plan(chat()) == [("local", "model gpt-4"), ("cloud", "model gpt-4")]


def test_fallbacks_of_the_body_follow() -> None:
    """Targets of other models are asked when those of the request's own have failed."""
    assert Desk().plan(chat(b',"fallbacks":["spare","gpt-4"]'))[2:] == [("backup", "fallback spare")]


def test_wished_targets() -> None:
    """Only those, in the wished order, also of a fallback."""
    wishes = Wishes(targets=("backup", "local"), fallbacks=("spare",))
    assert [name for name, _ in Desk().plan(chat(), wishes)] == ["backup", "local"]


@pytest.mark.parametrize(
    ("request_body", "wishes", "kind", "param"),
    [
        (b',"model":"gpt-9"', Wishes(), ModelNotFound, "model"),
        (b',"model":"vectors"', Wishes(), InvalidRequest, "model"),
        (b',"fallbacks":["spare","gone"]', Wishes(), ModelNotFound, "fallbacks[1]"),
        (b',"fallbacks":["vectors"]', Wishes(), InvalidRequest, "fallbacks[0]"),
        (b"", Wishes(fallbacks=("gone",)), ModelNotFound, "route.fallbacks[0]"),
        (b"", Wishes(targets=("backup",)), InvalidRequest, "x-weir-targets"),
        (b"", Wishes(targets=("gone",)), InvalidRequest, "x-weir-targets"),
    ],
)
def test_names_that_are_not_there(
    request_body: bytes, wishes: Wishes, kind: type[WeirError], param: str
) -> None:
    """Each is an error that names the place."""
    with pytest.raises(kind) as caught:
        Desk().plan(chat(request_body), wishes)
    assert caught.value.param == param


def test_wished_targets_are_named_as_the_caller_named_them() -> None:
    """In the header, or in the typed request."""
    wishes = with_options(Wishes(), RouteOptions(targets=["gone"]))
    with pytest.raises(InvalidRequest) as caught:
        Desk().plan(chat(), wishes)
    assert caught.value.param == "route.targets"


def test_a_chat_model_makes_no_embeddings() -> None:
    """The endpoint and the model must fit."""
    with pytest.raises(InvalidRequest, match="answers conversations"):
        Desk().plan(replace(chat(), endpoint=Endpoint.EMBEDDINGS))


def test_key_that_may_not_use_the_model() -> None:
    """Neither asked for nor as a fallback."""
    with pytest.raises(Forbidden) as caught:
        Desk().plan(chat(), models=["spare"])
    assert caught.value.param == "model"
    with pytest.raises(Forbidden) as caught:
        Desk().plan(chat(b',"fallbacks":["spare"]'), models=["gpt-*"])
    assert caught.value.param == "fallbacks[0]"


def test_key_that_may_use_some_targets() -> None:
    """The others are not in its plans; wishing for one is refused, and so is a model of which none is left."""
    assert Desk().plan(chat(), targets=["local"]) == [("local", "model gpt-4")]
    with pytest.raises(Forbidden) as caught:
        Desk().plan(chat(), Wishes(targets=("cloud",)), targets=["local"])
    assert caught.value.param == "x-weir-targets"
    with pytest.raises(Forbidden) as caught:
        Desk().plan(chat(), targets=["backup"])
    assert caught.value.param == "model"


def test_what_no_target_can_do_is_named() -> None:
    """A parameter that took out every target is a 400 with its name; while one is left it is asked."""
    pictures = b'{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"x"}}]}]}'
    assert [name for name, _ in Desk().plan(read(pictures))] == ["cloud"]
    with pytest.raises(UnsupportedParameter) as caught:
        Desk().plan(read(pictures), targets=["local"])
    assert caught.value.param == "messages[0].content[0]"
    assert caught.value.message.endswith("not supported by model 'gpt-4': it lacks the capability 'vision'")


def test_target_that_is_down_goes_last() -> None:
    """For a probe may be wrong."""
    desk = Desk()
    desk.targets["local"].up = False
    assert [name for name, _ in desk.plan(chat())] == ["cloud", "local"]
