"""What the misbehaving provider can do wrong, by the name of the model that asks for it."""

from __future__ import annotations

import gzip
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import lru_cache
from types import MappingProxyType

from tests.fakes.provider_exchange import Exchange, chunk, completion, usage, words

Fault = Callable[[Exchange], Awaitable[None]]


async def instant(exchange: Exchange) -> None:
    """Answers as it should, at once or with gaps."""
    model, count = exchange.seen.model, exchange.chunks
    if not exchange.stream:
        await exchange.answer(200, _completion(model, count))
        return
    await exchange.begin_stream()
    await speak(exchange, count)
    await finish(exchange, count)


async def rate_limit(exchange: Exchange) -> None:
    """429; with Retry-After where the name says `retry_after_s`."""
    wait = exchange.behaviour.options.get("retry_after_s")
    extra = () if wait is None else (f"retry-after: {wait}",)
    await exchange.error(429, "Rate limit reached", code="rate_limit_exceeded", kind="requests", extra=extra)


async def quota(exchange: Exchange) -> None:
    """429 of an account that is used up."""
    await exchange.error(
        429, "You exceeded your current quota", code="insufficient_quota", kind="insufficient_quota"
    )


async def status(exchange: Exchange) -> None:
    """The HTTP status `code` (500) with an error object that quotes the key it was sent."""
    key = exchange.seen.headers.get("authorization", "")
    await exchange.error(
        exchange.behaviour.option("code", 500), f"It failed; you sent {key}", kind="server_error"
    )


async def bad_param(exchange: Exchange) -> None:
    """400 that names a parameter."""
    await exchange.error(400, "temperature is too high", param="temperature")


async def context_length(exchange: Exchange) -> None:
    """400 of a prompt that does not fit."""
    await exchange.error(
        400, "maximum context length is 8 tokens", code="context_length_exceeded", param="messages"
    )


async def content_filter(exchange: Exchange) -> None:
    """400 of a prompt that is refused."""
    await exchange.error(400, "The prompt was filtered", code="content_filter", param="prompt")


async def redirect(exchange: Exchange) -> None:
    """307 to another path of this provider."""
    await exchange.answer(307, b"", extra=("location: /v1/elsewhere",))


async def reset(exchange: Exchange) -> None:
    """A TCP reset before the headers."""
    exchange.reset()


async def not_http(exchange: Exchange) -> None:
    """Bytes that are no HTTP."""
    await exchange.send(b"220 mail.example ESMTP\r\n\r\n")
    exchange.cut()


async def silent(exchange: Exchange) -> None:
    """Never answers."""
    await exchange.forever()


async def late(exchange: Exchange) -> None:
    """Headers at once, the first token after `delay_ms` (20 s)."""
    await exchange.begin_stream()
    await exchange.wait(exchange.behaviour.option("delay_ms", 20_000) / 1_000)
    await speak(exchange, exchange.chunks)
    await finish(exchange, exchange.chunks)


async def cut(exchange: Exchange) -> None:
    """Ends the connection after `after` (40) words, in the middle of the chunked body; a unary body at its middle."""
    if not exchange.stream:
        body = completion(exchange.seen.model, exchange.chunks)
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        await exchange.send(head.encode() + body[: len(body) // 2])
    else:
        await exchange.begin_stream()
        await speak(exchange, exchange.behaviour.option("after", 40))
    exchange.cut()


async def early_end(exchange: Exchange) -> None:
    """Ends the stream cleanly after `after` (40) words, with neither finish reason nor [DONE]."""
    await exchange.begin_stream()
    await speak(exchange, exchange.behaviour.option("after", 40))
    await exchange.end_stream()


async def stall(exchange: Exchange) -> None:
    """Falls silent after `after` (40) words, the connection open."""
    await exchange.begin_stream()
    await speak(exchange, exchange.behaviour.option("after", 40))
    await exchange.forever()


async def comments(exchange: Exchange) -> None:
    """Sends `comments` (3) comments `gap_ms` apart before the answer."""
    await exchange.begin_stream()
    for _ in range(exchange.behaviour.option("comments", 3)):
        await exchange.piece(b": still working\n\n")
        await exchange.wait(exchange.behaviour.option("gap_ms", 50) / 1_000)
    await speak(exchange, exchange.chunks)
    await finish(exchange, exchange.chunks)


async def malformed(exchange: Exchange) -> None:
    """One event that is no JSON among good ones."""
    await exchange.begin_stream()
    await speak(exchange, 1)
    await exchange.event(b'{"choices": [{"delta": {"con')
    await speak(exchange, exchange.chunks, start=1)
    await finish(exchange, exchange.chunks)


async def no_done(exchange: Exchange) -> None:
    """A complete stream without [DONE]."""
    await exchange.begin_stream()
    await speak(exchange, exchange.chunks)
    await finish(exchange, exchange.chunks, done=False)


async def no_done_cut(exchange: Exchange) -> None:
    """A stream with its finish reason, cut before its end."""
    await exchange.begin_stream()
    await speak(exchange, exchange.chunks)
    await exchange.event(chunk(exchange.seen.model, {}, "stop"))
    exchange.cut()


async def no_done_hangs(exchange: Exchange) -> None:
    """A stream with its finish reason, then silence, the connection open."""
    await exchange.begin_stream()
    await speak(exchange, exchange.chunks)
    await exchange.event(chunk(exchange.seen.model, {}, "stop"))
    await exchange.forever()


async def done_hangs(exchange: Exchange) -> None:
    """A complete stream whose connection stays open after [DONE]."""
    await exchange.begin_stream()
    await speak(exchange, exchange.chunks)
    await exchange.event(chunk(exchange.seen.model, {}, "stop"))
    await exchange.event(b"[DONE]")
    await exchange.forever()


async def empty_stream(exchange: Exchange) -> None:
    """[DONE] and nothing else."""
    await exchange.begin_stream()
    await exchange.event(b"[DONE]")
    await exchange.end_stream()


async def error_event(exchange: Exchange) -> None:
    """An error event after `after` (40) words; it quotes the key it was sent."""
    key = exchange.seen.headers.get("authorization", "")
    await exchange.begin_stream()
    await speak(exchange, exchange.behaviour.option("after", 40))
    fault = {"message": f"The server had an error; you sent {key}", "type": "server_error", "code": None}
    await exchange.event(json.dumps({"error": fault}).encode())
    await exchange.end_stream()


async def error_body(exchange: Exchange) -> None:
    """200 with an error object, as gateways do; `code` (429) stands in it as a number."""
    fault = {"message": "Provider returned error", "code": exchange.behaviour.option("code", 429)}
    await exchange.answer(200, json.dumps({"error": fault}).encode())


async def html(exchange: Exchange) -> None:
    """200 with a web page."""
    await exchange.answer(200, b"<!doctype html><title>Please log in</title>", "text/html; charset=utf-8")


async def empty(exchange: Exchange) -> None:
    """200 with nothing."""
    await exchange.answer(200, b"")


async def no_choices(exchange: Exchange) -> None:
    """200 with a completion that has no choice."""
    await exchange.answer(200, completion(exchange.seen.model, 1, choices=[]))


async def huge_answer(exchange: Exchange) -> None:
    """200 with `mib` (21) MiB of spaces, then a completion."""
    await exchange.answer(200, b" " * (exchange.behaviour.option("mib", 21) << 20) + completion("huge", 1))


async def huge_event(exchange: Exchange) -> None:
    """One event of `mib` (5) MiB."""
    await exchange.begin_stream()
    await exchange.event(chunk("huge", {"content": "x" * (exchange.behaviour.option("mib", 5) << 20)}))
    await finish(exchange, 1)


async def bad_gzip(exchange: Exchange) -> None:
    """200 that calls itself gzip and is not."""
    await exchange.answer(200, b"no gzip at all", extra=("content-encoding: gzip",))


async def good_gzip(exchange: Exchange) -> None:
    """200 in gzip though nobody asked for it."""
    body = gzip.compress(completion(exchange.seen.model, exchange.chunks))
    await exchange.answer(200, body, extra=("content-encoding: gzip",))


async def no_usage(exchange: Exchange) -> None:
    """Answers as it should and says nothing of usage."""
    if not exchange.stream:
        await exchange.answer(200, completion(exchange.seen.model, exchange.chunks, usage=None))
        return
    await exchange.begin_stream()
    await speak(exchange, exchange.chunks)
    await exchange.event(chunk(exchange.seen.model, {}, "stop"))
    await exchange.event(b"[DONE]")
    await exchange.end_stream()


async def crlf(exchange: Exchange) -> None:
    """A stream with CRLF line ends, cut into pieces of `size` (7) bytes."""
    events = [chunk(exchange.seen.model, {"content": word}) for word in words(exchange.chunks)]
    events += [chunk(exchange.seen.model, {}, "stop"), b"[DONE]"]
    whole = b"".join(b"data: %b\r\n\r\n" % event for event in events)
    size = exchange.behaviour.option("size", 7)
    await exchange.begin_stream()
    for start in range(0, len(whole), size):
        await exchange.piece(whole[start : start + size])
    await exchange.end_stream()


async def flood(exchange: Exchange) -> None:
    """A whole stream of `mib` (64) MiB in events of 64 KiB."""
    event = chunk(exchange.seen.model, {"content": "x" * (64 << 10)})
    await exchange.begin_stream()
    for _ in range(exchange.behaviour.option("mib", 64) << 4):
        await exchange.event(event)
    await finish(exchange, 1)


async def tool_call(exchange: Exchange) -> None:
    """A stream that calls a tool."""
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "look", "arguments": ""}}
    await exchange.begin_stream()
    await exchange.event(chunk(exchange.seen.model, {"role": "assistant", "tool_calls": [call]}))
    await exchange.event(chunk(exchange.seen.model, {}, "tool_calls"))
    await exchange.event(b"[DONE]")
    await exchange.end_stream()


async def speak(exchange: Exchange, count: int, start: int = 0) -> None:
    """The words from `start` to before `count`."""
    gap_s = exchange.behaviour.option("gap_ms", 0) / 1_000
    events = _word_events(exchange.seen.model, count, usage_asked=exchange.wants_usage)
    for number, event in enumerate(events[start:], start):
        if number and gap_s:
            await exchange.wait(gap_s)
        await exchange.send(event)


async def finish(exchange: Exchange, count: int, *, done: bool = True) -> None:
    """The finish reason, usage where it was asked for, and the clean end."""
    model, asked = exchange.seen.model, exchange.wants_usage
    await exchange.event(chunk(model, {}, "stop", **({"usage": None} if asked else {})))
    if asked:
        await exchange.event(chunk(model, {}, choices=[], usage=usage(count)))
    if done:
        await exchange.event(b"[DONE]")
    await exchange.end_stream()


@lru_cache(maxsize=64)
def _completion(model: str, count: int) -> bytes:
    """Made once, so that a benchmark measures something else."""
    return completion(model, count)


@lru_cache(maxsize=64)
def _word_events(model: str, count: int, *, usage_asked: bool) -> tuple[bytes, ...]:
    return tuple(_framed_words(model, count, usage_asked=usage_asked))


def _framed_words(model: str, count: int, *, usage_asked: bool) -> Iterator[bytes]:
    extra = {"usage": None} if usage_asked else {}
    for number, word in enumerate(words(count)):
        delta = {"content": word} if number else {"role": "assistant", "content": word}
        data = b"data: %b\n\n" % chunk(model, delta, **extra)
        yield b"%x\r\n%b\r\n" % (len(data), data)


FAULTS: Mapping[str, Fault] = MappingProxyType({
    fault.__name__: fault
    for fault in (
        instant, rate_limit, quota, status, bad_param, context_length, content_filter, redirect, reset, not_http,
        silent, late, cut, early_end, stall, comments, malformed, no_done, no_done_cut, no_done_hangs, done_hangs,
        empty_stream, error_event, error_body, html, empty, no_choices, huge_answer, huge_event, bad_gzip, good_gzip,
        no_usage, crlf, flood, tool_call,
    )
})  # fmt: skip
"""By name; any other model is answered as it should be, without gaps."""
