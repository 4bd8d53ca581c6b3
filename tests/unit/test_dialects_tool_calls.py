"""Tool calls read out of what local models write."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialects.chat_template import TemplateName
from dialects.tool_calls import MAX_CALL_CHARS, LocalToolCalls
from gen.weir.cloud.v1 import GenerateResponse as Piece
from gen.weir.type.v1 import FinishReason, Tool, ToolCallDelta, Usage

NOW = Tool(name="now")
every_template = pytest.mark.parametrize("template", ["chatml", "smollm2", "mistral_instruct"])


def pieces(*texts: str, finish: FinishReason = FinishReason.STOP) -> list[Piece]:
    """A local answer."""
    return [*(Piece(text=text, content=True) for text in texts), Piece(finished=True, finish_reason=finish)]


def parsed(
    template: TemplateName, *texts: str, **options: Any
) -> tuple[str, list[ToolCallDelta], FinishReason]:
    """The text, calls and finish reason of an answer."""
    finish = options.pop("finish", FinishReason.STOP)
    calls = LocalToolCalls(template, [NOW, Tool(name="f")], lambda size: bytes(range(size)), **options)
    out = [calls.read(piece) for piece in pieces(*texts, finish=finish)]
    assert all(piece.tool_call_begun == bool(piece.tool_calls) for piece in out)
    return (
        "".join(piece.text for piece in out),
        [delta for piece in out for delta in piece.tool_calls],
        FinishReason(out[-1].finish_reason),
    )


ID = "call_000102030405060708090a0b"
ONE = ToolCallDelta(index=0, id=ID, name="now", arguments='{"zone": "a}\\"<"}')
TWO = ToolCallDelta(index=1, id=ID, name="f", arguments="{}")
WRITTEN = '{"name": "now", "arguments": {"zone": "a}\\"<"}}'
STRING = '{"name":"f","arguments":"{}"}'
ODD = '{"name": "f", "arguments": [1]}'
CALLED = FinishReason.TOOL_CALLS
STOPPED = FinishReason.STOP


@pytest.mark.parametrize(
    ("template", "text", "expected"),
    [
        ("chatml", "Hello <b> [x] {y}\n", ("Hello <b> [x] {y}\n", [], STOPPED)),
        ("chatml", f"<tool_call>{WRITTEN}</tool_call>", ("", [ONE], CALLED)),
        ("smollm2", f"\n<tool_call>\n{WRITTEN}\n</tool_call>\n", ("", [ONE], CALLED)),
        ("smollm2", f'<tool_call>[{WRITTEN}, {{"name": "f"}}]</tool_call>', ("", [ONE, TWO], CALLED)),
        (
            "chatml",
            f"Let me see.\n<tool_call>{WRITTEN}</tool_call>\n<tool_call>{STRING}</tool_call> ok",
            ("Let me see. ok", [ONE, TWO], CALLED),
        ),
        ("chatml", f"<tool_call>{WRITTEN}", ("", [ONE], CALLED)),
        ("chatml", f"<tool_call>{WRITTEN.replace('arguments', 'parameters')}", ("", [ONE], CALLED)),
        ("chatml", "<tool_call>{'name': 'now'}</tool_call>", ("<tool_call>{'name': 'now'}</tool_call>", [], STOPPED)),
        ("chatml", "a <tool_call> b", ("a <tool_call> b", [], STOPPED)),
        ("chatml", "a <tool_c", ("a <tool_c", [], STOPPED)),
        ("chatml", f"<tool_call><tool_call>{WRITTEN}</tool_call>", ("<tool_call>", [ONE], CALLED)),
        ("chatml", '<tool_call>{"name": "now", "arg', ('<tool_call>{"name": "now", "arg', [], STOPPED)),
        (
            "chatml",
            '<tool_call>{"name": "rm", "arguments": {}}</tool_call>',
            ('<tool_call>{"name": "rm", "arguments": {}}</tool_call>', [], STOPPED),
        ),
        ("chatml", f"<tool_call>{ODD}", (f"<tool_call>{ODD}", [], STOPPED)),
        ("chatml", f"[{WRITTEN}]", (f"[{WRITTEN}]", [], STOPPED)),
        ("mistral_instruct", f"[TOOL_CALLS] [{WRITTEN}]", ("", [ONE], CALLED)),
        ("mistral_instruct", f' [{WRITTEN}, {{"name": "f", "arguments": {{}}, "id": "x"}}]', ("", [ONE, TWO], CALLED)),
        ("mistral_instruct", f"See: [TOOL_CALLS][{WRITTEN}]", ("See:", [ONE], CALLED)),
        ("mistral_instruct", ' [{"a": 1}] is JSON', (' [{"a": 1}] is JSON', [], STOPPED)),
        ("mistral_instruct", " [1] says", (" [1] says", [], STOPPED)),
        ("mistral_instruct", f"x [{WRITTEN}]", (f"x [{WRITTEN}]", [], STOPPED)),
    ],
)  # fmt: skip
def test_calls_are_read_out_of_text(
    template: TemplateName, text: str, expected: tuple[str, list[ToolCallDelta], FinishReason]
) -> None:
    """However the text is cut: text before and behind calls is text, calls are whole, and no call is plain text."""
    assert parsed(template, text) == expected
    assert parsed(template, *text) == expected
    for size in (2, 3, 7):
        assert parsed(template, *(text[at : at + size] for at in range(0, len(text), size))) == expected


def test_text_is_not_held_back() -> None:
    """Only what may begin a call waits, and white space before one; a call is given as soon as its JSON is whole."""
    calls = LocalToolCalls("chatml", [NOW], bytes)
    seen = [
        calls.read(Piece(text=text))
        for text in ("Hi", " a", "\n", "<b", " <tool", '_call>{"name":"now"}', "</to")
    ]
    assert [piece.text for piece in seen] == ["Hi", " a", "", "\n<b", "", "", ""]
    assert [len(piece.tool_calls) for piece in seen] == [0, 0, 0, 0, 0, 1, 0]
    usage = Usage(input_tokens=1, output_tokens=2)
    assert calls.read(Piece(usage=usage, content=True)) == Piece(usage=usage, content=True)


def test_one_call_at_a_time() -> None:
    """Where calls may not be parallel the answer ends with its first one."""
    two = f"a<tool_call>[{WRITTEN}, {WRITTEN}]</tool_call> b <tool_call>{WRITTEN}</tool_call> c"
    assert parsed("chatml", *two, parallel=False) == ("a", [ONE], CALLED)


def test_the_cap_stays_the_reason() -> None:
    """A call that the cap cuts off is text, and an answer that is cut off behind a call says so."""
    assert parsed("chatml", '<tool_call>{"na', finish=FinishReason.LENGTH) == (
        '<tool_call>{"na', [], FinishReason.LENGTH,
    )  # fmt: skip
    text = f"<tool_call>{WRITTEN}</tool_call> and"
    assert parsed("chatml", text, finish=FinishReason.LENGTH) == (" and", [ONE], FinishReason.LENGTH)


def test_an_answer_that_goes_on_does_not_begin_with_calls() -> None:
    """A list in mid-answer is text, even at the seam."""
    text = f" [{WRITTEN}]"
    assert parsed("mistral_instruct", text, goes_on=True) == (text, [], STOPPED)


def test_what_is_held_back_is_bounded() -> None:
    """A call that does not end, and white space that does not, are passed on."""
    calls = LocalToolCalls("chatml", [NOW], bytes)
    begun = '<tool_call>{"name": "' + "x" * MAX_CALL_CHARS
    assert calls.read(Piece(text=begun)).text == begun
    assert calls.read(Piece(text=" more")).text == " more"
    assert calls.read(Piece(text=" " * 1_000)).text == " " * 1_000
    mistral = LocalToolCalls("mistral_instruct", [NOW], bytes)
    assert mistral.read(Piece(text=" " * 1_000)).text == " " * 1_000


@every_template
@given(
    text=st.text(alphabet='<tool_call>/[TOOL_CALLS]{}"\\: \nnameargumets,', max_size=80),
    cuts=st.lists(st.integers(0, 80), max_size=8),
)
def test_nothing_is_lost_or_made_up(template: TemplateName, text: str, cuts: list[int]) -> None:
    """Text without a call comes out as it went in, however it is cut."""
    at = [0, *sorted(cut for cut in cuts if cut < len(text)), len(text)]
    out, calls, finish = parsed(template, *(text[a:b] for a, b in pairwise(at)))
    assert calls or (out, finish) == (text, STOPPED)
