"""The way back to Triton: one thread sends what has arrived for each answer since it last looked."""

import threading
from typing import Any

import contract

# Exists only inside Triton's Python backend.
import triton_python_backend_utils as pb
from engine import Piece

FINAL = pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL


class Answer:
    """One request's answer. The model's thread adds pieces; the courier alone sends."""

    def __init__(self, sender: Any, wishes: contract.Wishes) -> None:
        self.cancelled = False
        self._sender = sender
        self._wishes = wishes
        self._lock = threading.Lock()
        self._text = [wishes.echo]
        self._last = Piece("", 0, 0)
        self._sent_tokens = 0
        self._begun = False
        self._closed = False
        self._ended = False
        self._error: str | None = None

    def add(self, piece: Piece) -> None:
        """Takes the model's next piece."""
        with self._lock:
            self._text.append(piece.text)
            self._last = piece

    def end(self, error: str | None = None) -> None:
        """Nothing follows. `error` goes to the client as it is."""
        with self._lock:
            self._ended, self._error = True, error

    def send(self) -> None:
        """Sends all that has arrived as one response (in unary mode: only when it is the whole), and notes a cancel."""
        if self._closed:
            return
        self.cancelled = self.cancelled or self._sender.is_cancelled()
        with self._lock:
            ended, error, last = self._ended, self._error, self._last
            due = ended or (self._wishes.stream and last.output_tokens > self._sent_tokens)
            text = "".join(self._text) if due else ""
            if due:
                self._text.clear()
        # Any use of a sender after its final response, even asking for a cancel, is a segmentation fault of the server.
        self._closed = ended
        if error is not None:
            self._sender.send(pb.InferenceResponse(error=pb.TritonError(error)), flags=FINAL)
        elif self.cancelled and ended:
            self._sender.send(flags=FINAL)
        elif due:
            self._send_text(text, last, FINAL if ended else 0)

    def _send_text(self, text: str, last: Piece, flags: int) -> None:
        new_tokens, self._sent_tokens = last.output_tokens - self._sent_tokens, last.output_tokens
        if self._begun and not text and not new_tokens:
            self._sender.send(flags=flags)
            return
        self._begun = True
        counts = (
            last.input_tokens if self._wishes.input_tokens else None,
            new_tokens if self._wishes.output_tokens else None,
        )
        self._sender.send(contract.write(text, *counts), flags=flags)


class Courier:
    """Sends for every answer that changed, in turn. What piles up while it is busy leaves as one response."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._due: dict[Answer, None] = {}
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="courier", daemon=True)
        self._thread.start()

    def notify(self, answer: Answer) -> None:
        """Says that `answer` has something new, or that its cancellation should be looked up."""
        with self._changed:
            self._due[answer] = None
            self._changed.notify()

    def close(self) -> None:
        """Sends what is due, then ends the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while answers := self._take():
            for answer in answers:
                try:
                    answer.send()
                except Exception as failure:  # noqa: BLE001 - one answer's failure must not silence the others
                    answer.cancelled = True
                    pb.Logger.log_error(f"answer not sent: {type(failure).__name__}")

    def _take(self) -> list[Answer]:
        with self._changed:
            self._changed.wait_for(lambda: self._due or self._closed)
            answers = list(self._due)
            self._due.clear()
            return answers
