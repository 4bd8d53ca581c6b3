"""One question to one provider: asked once, its failures told as Weir's errors."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import msgspec

from dialects.openai_fault import Fault, read_fault
from meshkit.errors import NoHealthyTarget, WeirError
from services.cloud_adapter import failure
from services.cloud_adapter.ports import (
    AnswerCutError,
    Provider,
    ProviderAnswer,
    Question,
    RefusedError,
    UnreachableError,
)
from services.cloud_adapter.reading import Failure

_NO_FAULT = Fault("")
_UNASKED: Mapping[str, str] = {"delivered": "false", "sent": "false"}


class Attempt:
    """Asks `provider`, whose name is `name`, one `question`."""

    def __init__(self, name: str, provider: Provider, question: Question) -> None:
        self._name = name
        self._provider = provider
        self._question = question

    @asynccontextmanager
    async def answer(self) -> AsyncIterator[ProviderAnswer]:
        """The answer whose head is here. Leaving early ends the HTTP request at once. Raises WeirError."""
        try:
            async with self._provider.ask(self._question) as answer:
                yield answer
        except UnreachableError as error:
            raise failure.unreachable(self._name, error) from error
        except RefusedError as error:
            fault = self._redacted(read_fault(error.body))
            model = self._model()
            told = failure.refused(self._name, model, fault, error.status, error.retry_after)
            if error.other_key:
                told.details["other_key"] = "true"
            raise told from error

    async def arrived(self, answer: ProviderAnswer, *, delivered: bool) -> bytes:
        """What has arrived since the last time; empty at the clean end. Raises WeirError if the answer broke."""
        try:
            return await answer.read()
        except AnswerCutError as error:
            text = f"broke off its answer: {error.text}"
            raise failure.broken(self._name, text, _NO_FAULT, answer.status, delivered=delivered) from error

    def failed(self, answer: ProviderAnswer, what: Failure, *, delivered: bool) -> WeirError:
        """The error for an answer whose reader failed."""
        fault = self._redacted(what.fault or _NO_FAULT)
        if what.fault is not None and not delivered:
            return failure.error_for_an_answer(self._name, self._model(), fault, answer.status)
        return failure.broken(self._name, what.text, fault, answer.status, delivered=delivered)

    def _redacted(self, fault: Fault) -> Fault:
        redact = self._provider.redact
        return fault._replace(
            message=redact(fault.message),
            kind=redact(fault.kind),
            code=redact(fault.code),
            param=None if fault.param is None else redact(fault.param),
        )

    def _model(self) -> str:
        """The model that the body names, for an error's text."""
        try:
            model = msgspec.json.decode(self._question.body, type=dict[str, msgspec.Raw]).get("model")
            return "" if model is None else msgspec.json.decode(model, type=str)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return ""


def usable(providers: Mapping[str, Provider], name: str) -> Provider:
    """The provider of this name. Raises NoHealthyTarget if it is not configured or cannot be used."""
    provider = providers.get(name)
    if provider is None:
        raise NoHealthyTarget(f"no provider {name!r} is configured", details=_UNASKED)
    if not provider.listing.usable:
        problem = provider.listing.problem
        raise NoHealthyTarget(f"provider {name!r} cannot be used: {problem}", details=_UNASKED)
    return provider
