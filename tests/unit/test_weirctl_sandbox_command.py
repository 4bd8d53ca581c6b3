"""weirctl.sandbox_command: the program understands what the command says."""

import os
import subprocess
import sys
from pathlib import Path

from services.cloud_adapter.settings import ProviderSettings
from weirctl import sandbox_command


def test_program_takes_the_command(tmp_path: Path) -> None:
    """Every option is known to the program, which names a model's file that is missing and ends with 2."""
    command = sandbox_command.argv(Path(sys.executable), tmp_path / "none.gguf", 1, threads=2, slots=3)
    ended = subprocess.run(  # noqa: S603 - our own interpreter and program
        command, env={}, cwd=os.sep, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 2
    assert "none.gguf" in ended.stderr


def test_provider_block_is_a_sandbox() -> None:
    """The block that the configuration gets is a usable sandbox on loopback."""
    settings = ProviderSettings.model_validate(sandbox_command.provider_block(8090))
    assert settings.sandbox
    assert settings.on_loopback
