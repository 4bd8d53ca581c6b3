"""Runs a sentence embedding model through ONNX Runtime: texts in, vectors out. Knows nothing of Triton."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

# The wheel carries no type information.
import onnxruntime
from tokenizers import Tokenizer

# Tokens worked on at once, padding included; at least one text. 64 short sentences fill it, longer texts gain nothing
# from company; memory stays the same however many texts come.
RUN_TOKENS = 512
# A longer text has too many tokens for any setting (but for one of endless words); it is not even counted.
MAX_TEXT_BYTES = 64 * 1024


class TextTooLong(Exception):
    """A text has more tokens than the model takes; the message quotes nothing of it."""


class Embedder:
    """One model in memory. `embed` is for one thread at a time; the vectors of a text do not depend on its company."""

    def __init__(self, onnx: str, tokenizer: str, *, threads: int, max_tokens: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Threads that wait for work by spinning would take the core from the model beside this one.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
        self._tokenizer = Tokenizer.from_file(tokenizer)
        # The file asks for both; here a long text is an error, and padding is as long as the run needs.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._max_tokens = max_tokens

    def tokens(self, text: str) -> list[int]:
        """The text as token numbers, the marks at its beginning and end among them. Raises TextTooLong."""
        size = len(text.encode())
        if size > MAX_TEXT_BYTES:
            raise TextTooLong(
                f"Text length ({size} bytes) exceeds maximum input length ({self._max_tokens})."
            )
        ids: list[int] = self._tokenizer.encode(text).ids
        if len(ids) > self._max_tokens:
            raise TextTooLong(f"Text length ({len(ids)}) exceeds maximum input length ({self._max_tokens}).")
        return ids

    def embed(
        self, texts: Sequence[Sequence[int]], owners: Sequence[int], is_gone: Callable[[int], bool]
    ) -> list[Any]:
        """Vectors of length 1 for tokenised texts, in their order: each float32 [384], or None if its owner is gone.

        `owners` says whose each text is; `is_gone` is asked anew before every run.
        """
        vectors: list[Any] = [None] * len(texts)
        for run in _runs(texts):
            gone = {owner for owner in {owners[place] for place in run} if is_gone(owner)}
            places = [place for place in run if owners[place] not in gone]
            if places:
                embedded = self._embed_run([texts[place] for place in places])
                for place, vector in zip(places, embedded, strict=True):
                    vectors[place] = vector
        return vectors

    def _embed_run(self, texts: Sequence[Sequence[int]]) -> Any:
        shape = len(texts), max(len(ids) for ids in texts)
        ids, mask = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        for row, text in enumerate(texts):
            ids[row, : len(text)] = text
            mask[row, : len(text)] = 1
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        hidden = self._session.run(["last_hidden_state"], feed)[0]
        means = (hidden * mask[:, :, None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
        return (means / np.linalg.norm(means, axis=1, keepdims=True)).astype(np.float32)


def _runs(texts: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Places of texts that are run together: of like length, so that little is padding."""
    run: list[int] = []
    for place in sorted(range(len(texts)), key=lambda place: len(texts[place])):
        # The newest is the longest, to whose length all others are padded.
        if run and (len(run) + 1) * len(texts[place]) > RUN_TOKENS:
            yield run
            run = []
        run.append(place)
    if run:
        yield run
