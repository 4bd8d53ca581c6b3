"""Models that are asked to go on with somebody else's answer, and streams that break where nobody may go on."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from tests.fakes.provider_exchange import Exchange, chunk, completion, words
from tests.fakes.provider_faults import Fault, finish, instant, speak

OTHER_WORD = "otherwise "


async def prefill(exchange: Exchange) -> None:
    """Goes on where an assistant's last message ends; with `own` words only, then the connection is cut."""
    start = _continued(exchange)
    own = exchange.behaviour.options.get("own")
    if not exchange.stream:
        await _say(exchange, "".join(words(exchange.chunks)[start:]))
        return
    await exchange.begin_stream()
    if own is not None and start + own < exchange.chunks:
        await speak(exchange, start + own, start=start)
        exchange.cut()
        return
    await speak(exchange, exchange.chunks, start=start)
    await finish(exchange, exchange.chunks - start)


async def no_prefill(exchange: Exchange) -> None:
    """400 where the last message is an assistant's; else it answers as it should, `other`=1 in other words."""
    if _prefix(exchange):
        await exchange.error(400, "This model does not take an assistant message as prefill")
        return
    await (differ if exchange.behaviour.option("other", 0) else instant)(exchange)


async def differ(exchange: Exchange) -> None:
    """Says other words after the first `after` (0)."""
    same = exchange.behaviour.option("after", 0)
    if not exchange.stream:
        await _say(exchange, "".join(words(same)) + OTHER_WORD * (exchange.chunks - same))
        return
    await exchange.begin_stream()
    await speak(exchange, same)
    for _ in range(exchange.chunks - same):
        await exchange.event(chunk(exchange.seen.model, {"content": OTHER_WORD}))
    await finish(exchange, exchange.chunks)


async def breathing(exchange: Exchange) -> None:
    """Falls silent after `after` (40) words but for `comments` (5) comments `pause_ms` (500) apart; then goes on."""
    behaviour, after = exchange.behaviour, exchange.behaviour.option("after", 40)
    await exchange.begin_stream()
    await speak(exchange, after)
    for _ in range(behaviour.option("comments", 5)):
        await exchange.wait(behaviour.option("pause_ms", 500) / 1_000)
        await exchange.piece(b": still working\n\n")
    await speak(exchange, exchange.chunks, start=after)
    await finish(exchange, exchange.chunks)


async def tool_cut(exchange: Exchange) -> None:
    """A stream that is cut within the arguments of a tool's call."""
    call = {
        "index": 0,
        "id": "call_1",
        "type": "function",
        "function": {"name": "look", "arguments": '{"pla'},
    }
    await exchange.begin_stream()
    await exchange.event(chunk(exchange.seen.model, {"role": "assistant", "tool_calls": [call]}))
    exchange.cut()


async def _say(exchange: Exchange, text: str) -> None:
    message = {"role": "assistant", "content": text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    await exchange.answer(200, completion(exchange.seen.model, exchange.chunks, choices=[choice]))


def _prefix(exchange: Exchange) -> str:
    """The text of the assistant's message that the conversation ends with; empty where it ends otherwise."""
    messages = exchange.seen.body.get("messages") or [{}]
    last = messages[-1]
    return str(last.get("content") or "") if last.get("role") == "assistant" else ""


def _continued(exchange: Exchange) -> int:
    """How many words of the answer the prefix holds. It must end with a whole word, for words are what is sent."""
    prefix, spoken = _prefix(exchange), ""
    for number, word in enumerate(words(exchange.chunks)):
        if spoken == prefix:
            return number
        spoken += word
    return exchange.chunks if spoken == prefix else 0


CONTINUATIONS: Mapping[str, Fault] = MappingProxyType({
    fault.__name__: fault for fault in (prefill, no_prefill, differ, breathing, tool_cut)
})  # fmt: skip
"""By name."""
