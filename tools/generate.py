"""Writes gen/ from proto/: betterproto2 messages, our clients and servicers, and the one descriptor set.

`python -m tools.generate` rewrites gen/; `python -m tools.generate --check` exits 1 when gen/ is not what proto/ says.
"""

from __future__ import annotations

import filecmp
import os
import subprocess  # the compilers are programs
import sys
import tempfile
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DESCRIPTOR_SET = "weir.binpb"
FOREIGN = ("envoy/service/auth/v3/external_auth.proto", "google/api/httpbody.proto")
"""What is served or carried of others' contracts; the rest of proto/third_party/ is only imported."""


def protoc(proto: Path, sources: Sequence[str], out: Path, *arguments: str) -> None:
    """Runs the compiler on `sources`, which are relative to `proto`; `{out}` in an argument stands for `out`."""
    well_known = str(resources.files("grpc_tools") / "_proto")
    command = [
        sys.executable, "-m", "grpc_tools.protoc",
        f"-I{proto}", f"-I{ROOT / 'proto' / 'third_party'}", f"-I{well_known}",
        *(argument.format(out=out) for argument in arguments), *sources,
    ]  # fmt: skip
    # betterproto2's plugin calls `ruff` by name; it shall find ours, and none of our settings (hence the folder).
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    python = {"PYTHON": sys.executable, "PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"}
    environment = {**os.environ, "PATH": path, **python}
    # What the plugins say is of interest only where they fail.
    done = subprocess.run(command, cwd=out, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"protoc failed:\n{done.stdout}{done.stderr}")


def messages(proto: Path, sources: Sequence[str], out: Path) -> None:
    """Writes betterproto2's dataclasses and the descriptor set of `sources` into `out`, an existing empty folder."""
    plugin = Path(sys.executable).parent / "protoc-gen-python_betterproto2"
    protoc(
        proto, sources, out,
        f"--plugin=protoc-gen-python_betterproto2={plugin}",
        "--python_betterproto2_out={out}",
        "--python_betterproto2_opt=server_generation=none",
        "--python_betterproto2_opt=client_generation=none",
    )  # fmt: skip
    protoc(proto, sources, out, f"--descriptor_set_out={{out}}/{DESCRIPTOR_SET}", "--include_imports")


def generate(out: Path) -> None:
    """Fills `out`, an existing empty folder, from proto/."""
    proto = ROOT / "proto"
    own = sorted(str(path.relative_to(proto)) for path in (proto / "weir").rglob("*.proto"))
    sources = [*own, *FOREIGN]
    messages(proto, sources, out)
    plugin = ROOT / "tools" / "protoc-gen-weir"
    protoc(proto, sources, out, f"--plugin=protoc-gen-weir={plugin}", "--weir_out={out}")
    ruff = Path(sys.executable).parent / "ruff"
    subprocess.run([ruff, "format", "--quiet", "--isolated", "--line-length", "110", str(out)], check=True)


def _files(folder: Path) -> set[str]:
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def _stale(fresh: Path, committed: Path) -> list[str]:
    names = _files(fresh) | _files(committed)
    _, differing, missing = filecmp.cmpfiles(fresh, committed, names, shallow=False)
    return sorted(differing + missing)


def main() -> int:
    """Writes, or with --check compares. Returns the exit status."""
    committed = ROOT / "gen"
    with tempfile.TemporaryDirectory() as scratch:
        fresh = Path(scratch) / "gen"
        fresh.mkdir()
        generate(fresh)
        stale = _stale(fresh, committed)
        if "--check" in sys.argv[1:]:
            if stale:
                sys.stderr.write(f"gen/ is out of date, run `make gen`: {', '.join(stale)}\n")
            return 1 if stale else 0
        for name in stale:
            source, target = fresh / name, committed / name
            if source.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(source.read_bytes())
            else:
                target.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
