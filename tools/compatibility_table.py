"""Writes docs/openai-compatibility.md: `python -m tools.compatibility_table`; `--check` only compares.

What it says of a parameter is what the reader of its endpoint does with a request that holds it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from dialects.parameters import MAX_FALLBACKS
from services.router.target_settings import CapabilitySettings, TritonTargetSettings
from tools.compatibility_samples import ENDPOINTS, Endpoint

PAGE = Path(__file__).resolve().parent.parent / "docs" / "openai-compatibility.md"
_MODEL = "the-target's-own-name"
_HEAD = """\
# OpenAI's API, parameter by parameter

Written by `python -m tools.compatibility_table` from what the readers in `dialects/` do; do not edit.

Nothing is silently ignored. A parameter that asks for more than text and sampling is a *need*; a target that does not
have the capability is taken out of the request's plan, and where no target is left the answer is 400
`unsupported_parameter` with `param` naming it. A value that asks for nothing (`null`, `false`, `0`, `[]`, `{}`, and
OpenAI's own default) is no need, unless a note says otherwise. What a local model honours is checked before any target
is asked: a wrong type or a number out of bounds is 400 with `param`. A request for more output tokens than a target's
`max_output_tokens` does not go to it.

*local*, a model behind Triton: **yes**, honoured; **`x`**, honoured by targets that are configured with
`capabilities: {x: true}`; **no (`x`)**, never: no local backend has the capability `x`.

*cloud*, a provider: **as it is**, the client's own JSON goes to the provider, who judges it; **edited** and
**not sent**, see the note. A provider is taken to have every capability that its target's configuration does not deny;
`responses` alone must be affirmed.

A parameter that is not listed goes to providers as it is, and to no local target.
"""
_TAIL = f"""
## GET /v1/models, GET /v1/models/{{model}}

They take no parameters; a model's name may hold slashes. What is shown is what the key may use, and beside OpenAI's
own fields `task` (`chat` or `embed`), `context_window` and `max_output_tokens` (tokens that every target takes; null
where one does not say), `capabilities` (of its targets together), and `targets` (each with its health and price).

## Weir's own

- `fallbacks` in a body: at most {MAX_FALLBACKS} names of models. The key must be allowed to use each of them.
- `x-weir-targets`, `x-weir-on-cut`, `x-weir-deadline-ms` in a request's headers: the only targets to ask, what happens
  when an answer breaks off, and how long the caller waits.
- `provider` in every answer: `local` or `cloud`. `weir` in every `usage`: `cost_nano_usd` of all attempts (10^-9 US
  dollars; null where a target has no price), `target`, `attempts`. A stream of chat or older completions has usage
  where the client asks for it (`stream_options`).
"""
_BEFORE = {
    "/v1/responses": """\
*cloud* is a target with `capabilities: {responses: true}`. Any other provider is asked for the chat completion that
says the same: it has what does not need `responses`. A parameter that is not listed needs `responses`.

"""
}


def local_can() -> frozenset[str]:
    """The capabilities that the configuration of a local target may claim."""
    return frozenset(name for name in CapabilitySettings.model_fields if _may_claim(name))


def _may_claim(name: str) -> bool:
    try:
        target = TritonTargetSettings.model_validate({"kind": "triton", "capabilities": {name: True}})
    except ValidationError:
        return False
    return name in target.capabilities.capabilities(local=True).can


def page() -> str:
    """The whole page, one table an endpoint."""
    can = local_can()
    return _HEAD + "".join(_section(endpoint, can) for endpoint in ENDPOINTS) + _TAIL


def _section(endpoint: Endpoint, can: frozenset[str]) -> str:
    head = f"\n## POST {endpoint.path}\n\n{_BEFORE.get(endpoint.path, '')}"
    return f"{head}| parameter | local | cloud | note |\n|---|---|---|---|\n{''.join(_rows(endpoint, can))}"


def _rows(endpoint: Endpoint, can: frozenset[str]) -> Iterator[str]:
    for name, parameter in endpoint.parameters.items():
        needs, cloud = tried(endpoint, name)
        yield f"| `{name}` | {_local(needs, can)} | {cloud} | {parameter.note} |\n"


def tried(endpoint: Endpoint, name: str) -> tuple[list[str], str]:
    """What the parameter needs when it asks for something, and what of it a provider is sent."""
    value = endpoint.samples[name]
    body = {**endpoint.least, **endpoint.beside.get(name, {}), name: value}
    request = endpoint.read(json.dumps(body).encode())
    sent = json.loads(request.body(_MODEL, stream=name in {"stream", "stream_options"}))
    if name not in sent:
        return sorted(request.needs), "not sent"
    return sorted(request.needs), "as it is" if sent[name] == value else "edited"


def _local(needs: list[str], can: frozenset[str]) -> str:
    if not needs:
        return "yes"
    named = ", ".join(f"`{need}`" for need in needs)
    return named if can.issuperset(needs) else f"no ({named})"


def main() -> int:
    """Writes, or with --check compares. Returns the exit status."""
    if "--check" in sys.argv[1:]:
        stale = not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page()
        if stale:
            sys.stderr.write("docs/openai-compatibility.md is out of date, run `make gen`\n")
        return 1 if stale else 0
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
