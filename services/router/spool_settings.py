"""Every knob of the attempt log: the spool on disk and the feed to the ledger."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from meshkit.settings import Strict

MEBIBYTE = 1024 * 1024


class SpoolSettings(Strict):
    """The spool of one router worker."""

    segment_bytes: Annotated[int, Field(ge=4_096, le=1_024 * MEBIBYTE)] = 8 * MEBIBYTE
    """Size at which the next segment begins; about 25,000 attempts. A wholly acknowledged segment is removed."""
    sync_delay_ms: Annotated[float, Field(gt=0, le=1_000)] = 10.0
    """Milliseconds from a write to the start of its fdatasync; loss of the node loses these and the sync's own time."""
    max_unsent_bytes: Annotated[int, Field(ge=16_384)] = 256 * MEBIBYTE
    """Bytes on disk, per worker, at which new attempts are refused with LEDGER_UNAVAILABLE; about 800,000 attempts."""
    max_entries_in_memory: Annotated[int, Field(ge=0, le=1_000_000)] = 4_096
    """Ended entries kept ready for the feed, about 2 KiB each; further ones are read back from disk."""
    adopt_interval_s: Annotated[float, Field(gt=0, le=3_600)] = 3.0
    """Seconds between two looks for spools whose owner is gone."""

    @model_validator(mode="after")
    def _room_for_segments(self) -> Self:
        if self.max_unsent_bytes < 4 * self.segment_bytes:
            raise ValueError("max_unsent_bytes must be at least four times segment_bytes")
        return self


class FeedSettings(Strict):
    """The stream from the spool to the ledger."""

    flush_records: Annotated[int, Field(ge=1, le=1_000)] = 64
    """Entries that leave at once, without waiting for more."""
    flush_delay_ms: Annotated[float, Field(ge=0, le=10_000)] = 20.0
    """Milliseconds that the first entry of a batch waits for others."""
    max_batch_records: Annotated[int, Field(ge=1, le=1_000)] = 128
    """Entries in one batch. The contract allows 1,000, but encoding those holds up the event loop for 30 ms."""
    max_in_flight_batches: Annotated[int, Field(ge=1, le=1_000)] = 4
    """Batches sent and not yet acknowledged."""
    retry_min_ms: Annotated[float, Field(gt=0, le=60_000)] = 100.0
    """Milliseconds before the first attempt to reconnect; doubled each time, with jitter."""
    retry_max_ms: Annotated[float, Field(gt=0, le=600_000)] = 5_000.0
    """The longest such pause, in milliseconds."""
    ack_timeout_s: Annotated[float, Field(gt=0, le=600)] = 15.0
    """Seconds without an acknowledgement of what is in flight, after which the stream is begun anew."""
    tend_interval_s: Annotated[float, Field(gt=0, le=60)] = 1.0
    """Seconds between retries of ends that a full disk refused, and between removals of adopted spools."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.retry_max_ms < self.retry_min_ms:
            raise ValueError("retry_max_ms must be at least retry_min_ms")
        return self
