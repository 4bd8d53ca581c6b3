"""Writes docs/errors.md from the table in meshkit/errors.py: `python -m tools.error_table`; `--check` only compares."""

from __future__ import annotations

import sys
from pathlib import Path

from meshkit.errors import BY_REASON, TABLE

PAGE = Path(__file__).resolve().parent.parent / "docs" / "errors.md"
_HEAD = """\
# Errors

Written by `python -m tools.error_table` from `meshkit/errors.py`; do not edit.

Every failure has one reason from a closed set (`weir.error.v1.Reason`). A gRPC caller finds it in the status details,
as the `reason` of a `google.rpc.ErrorInfo` of the domain `weir`; an HTTP caller gets OpenAI's error object with the
status, type and code below. A field at fault is named (`param`; `google.rpc.BadRequest`), a time to come back is told
(`retry-after`; `google.rpc.RetryInfo`). After the first token of a stream the HTTP status is sent already: the error
object then comes as the stream's last event, without `finish_reason` and without `[DONE]`.

An error that Weir does not know becomes INTERNAL, with nothing but the request id; its text stands in the log.

| reason | means | gRPC | HTTP | OpenAI type | OpenAI code | retry helps |
|---|---|---|---|---|---|---|
"""


def page() -> str:
    """The whole page, one row a reason."""
    rows = []
    for reason, mapped in TABLE.items():
        meaning = (BY_REASON[reason].__doc__ or "").splitlines()[0]
        retry = "yes" if mapped.retry_helps else "no"
        rows.append(
            f"| {reason.name} | {meaning} | {mapped.grpc_code.name} | {mapped.http_status} "
            f"| {mapped.openai_type} | {mapped.openai_code or 'null'} | {retry} |\n"
        )
    return _HEAD + "".join(rows)


def main() -> int:
    """Writes, or with --check compares. Returns the exit status."""
    if "--check" in sys.argv[1:]:
        stale = not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page()
        if stale:
            sys.stderr.write("docs/errors.md is out of date, run `make gen`\n")
        return 1 if stale else 0
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
