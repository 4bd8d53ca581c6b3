"""A real OpenAI-compatible server on loopback: llama.cpp's own, as a stand-in for a cloud provider.

Runs in the venv of the local Triton, so it imports nothing of Weir's. Ready when `GET /health` answers 200 (503 while
the model loads). SIGTERM and SIGINT end it; answers in progress are cut.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import Any

PROMPT_BATCH_TOKENS = 256
_NO_MODEL = 2
_CANNOT_START = 1


def main() -> int:
    """Serves until a signal. The exit status: 2 where the model's file is missing, 1 where the server cannot start."""
    arguments = _arguments()
    if not arguments.model.is_file():
        sys.stderr.write(f"sandbox_cloud: no model at {arguments.model}\n")
        return _NO_MODEL
    import xllamacpp  # noqa: PLC0415 - slow, and only in the other venv

    try:
        server = xllamacpp.Server(_params(xllamacpp, arguments))
    except Exception as error:  # noqa: BLE001 - the library raises whatever C++ does
        sys.stderr.write(f"sandbox_cloud: cannot start: {error}\n")
        return _CANNOT_START
    ends = {signal.SIGINT, signal.SIGTERM}
    # Only now: before the model is loaded the default way to end is the right one.
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    print(f"sandbox cloud at {server.listening_address}", flush=True)
    signal.sigwait(ends)
    del server
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="the GGUF file")
    parser.add_argument(
        "--alias", default="smollm2", help="the model's name in answers; requests may say any"
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--slots", type=int, default=4, help="answers at once; further ones wait")
    parser.add_argument(
        "--context-tokens", type=int, default=2048, help="prompt and answer together, per slot"
    )
    return parser.parse_args()


def _params(xllamacpp: Any, arguments: argparse.Namespace) -> Any:
    params = xllamacpp.CommonParams()
    params.model.path = str(arguments.model)
    params.model_alias = {arguments.alias}
    params.hostnames = [arguments.host]
    params.port = arguments.port
    params.n_parallel = arguments.slots
    params.n_ctx = arguments.slots * arguments.context_tokens
    params.n_batch = params.n_ubatch = PROMPT_BATCH_TOKENS
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = arguments.threads
    # 8-bit keys and values: a third less memory for 5 % of speed.
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_Q8_0
    params.cache_ram_mib = 0
    params.verbosity = 0
    params.warmup = False
    # Web pages elsewhere must not ask it, and it shows no page and nobody's prompts itself.
    params.cors_origins = ""
    params.ui = False
    params.endpoint_slots = False
    return params


if __name__ == "__main__":
    sys.exit(main())
