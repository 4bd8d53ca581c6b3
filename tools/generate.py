"""Writes gen/ from proto/: betterproto2 messages, our clients and servicers, and the one descriptor set.

`python -m tools.generate` rewrites gen/; `python -m tools.generate --check` exits 1 when gen/ is not what proto/ says.
"""

from __future__ import annotations

import filecmp
import os
import subprocess  # the compilers are programs
import sys
import tempfile
from importlib import resources
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DESCRIPTOR_SET = "weir.binpb"


def _protoc(out: Path, *arguments: str) -> None:
    sources = sorted(
        str(path.relative_to(ROOT / "proto")) for path in (ROOT / "proto" / "weir").rglob("*.proto")
    )
    well_known = str(resources.files("grpc_tools") / "_proto")
    command = [
        sys.executable, "-m", "grpc_tools.protoc",
        "-Iproto", "-Iproto/third_party", f"-I{well_known}",
        *(argument.format(out=out) for argument in arguments),
        *sources, "google/api/httpbody.proto",
    ]  # fmt: skip
    subprocess.run(command, cwd=ROOT, check=True, env={**os.environ, "PYTHON": sys.executable})


def generate(out: Path) -> None:
    """Fills `out`, an existing empty folder."""
    bin_dir = Path(sys.executable).parent
    _protoc(
        out,
        f"--plugin=protoc-gen-python_betterproto2={bin_dir / 'protoc-gen-python_betterproto2'}",
        "--python_betterproto2_out={out}",
        "--python_betterproto2_opt=server_generation=none",
        "--python_betterproto2_opt=client_generation=none",
    )
    _protoc(out, f"--plugin=protoc-gen-weir={ROOT / 'tools' / 'protoc-gen-weir'}", "--weir_out={out}")
    _protoc(out, f"--descriptor_set_out={{out}}/{DESCRIPTOR_SET}", "--include_imports")
    subprocess.run(
        [bin_dir / "ruff", "format", "--quiet", "--isolated", "--line-length", "110", str(out)], check=True
    )


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
