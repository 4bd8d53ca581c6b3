"""`python -m weirctl.prepare_triton SETTINGS`: the set-up of Triton as a process of its own.

It may download for minutes; as a process it can be ended at a Ctrl-C, which a thread cannot. Prints lines for a human.
"""

from __future__ import annotations

import json
import sys
from dataclasses import fields
from pathlib import Path

from weirctl.triton_prepare import TritonSetUpFailed, prepare
from weirctl.triton_settings import TritonSettings

_SECRET = "control_token"  # noqa: S105 - the field's name; it is left out


def argv(settings: TritonSettings) -> list[str]:
    """The arguments that set up what `settings` say."""
    values = {
        field.name: getattr(settings, field.name) for field in fields(settings) if field.name != _SECRET
    }
    return [sys.executable, "-P", "-m", "weirctl.prepare_triton", json.dumps(values, default=str)]


def main() -> int:
    """The exit status: 1 if it cannot be set up, with the reason as the last lines."""
    values = json.loads(sys.argv[1])
    for name in ("home", "packages"):
        values[name] = Path(values[name]) if values[name] else None
    try:
        prepare(TritonSettings(**values), lambda line: print(line, flush=True))
    except TritonSetUpFailed as error:
        print(error, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
