"""A router worker in little: begins and ends attempts in a spool until it is killed.

Arguments: the spool folder, a file for the ids that begin() has returned for, a file for those that end() has,
a seed, and perhaps how large a file may become, in bytes: from then on the disk is full for the kernel itself.
"""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path
from random import Random

from services.router.spool_settings import SpoolSettings
from tests.fakes.spool_ledger import begun, ended, spools

_OPEN_ATTEMPTS = 5


def main(folder: str, begun_file: str, ended_file: str, seed: str, file_limit: str = "") -> None:
    """Writes until it is killed; what the two files say was said after the spool had it."""
    if file_limit:
        # Set here, after the imports: before them Python would leave cut .pyc files behind.
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(file_limit), int(file_limit)))
    spool = spools(Path(folder), SpoolSettings(segment_bytes=4_096, max_unsent_bytes=1 << 30)).open()
    flags = os.O_CREAT | os.O_WRONLY | os.O_APPEND
    said_begun, said_ended = os.open(begun_file, flags), os.open(ended_file, flags)
    random = Random(int(seed))  # noqa: S311 - which attempt ends next is no secret
    running = []
    number = 0
    os.write(1, b"ready\n")
    while True:
        number += 1
        spool.begin(entry := begun(number))
        os.write(said_begun, entry.entry_id)
        running.append(entry)
        if len(running) > _OPEN_ATTEMPTS:
            entry = running.pop(random.randrange(len(running)))
            spool.end(ended(entry))
            os.write(said_ended, entry.entry_id)


if __name__ == "__main__":
    main(*sys.argv[1:])
