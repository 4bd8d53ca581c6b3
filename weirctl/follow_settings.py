"""`weir up` and a changed weir.yaml: checks the whole, hands the parts what they can take over, names the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from meshkit.settings import FILE_NAME, HOME_VARIABLE, SettingsError, build
from meshkit.settings_change import changed, is_live, keys_with_live
from meshkit.watched_file import WatchedFile
from pricing.prices_file import load_prices
from services.auth import settings as auth
from services.cloud_adapter import settings as cloud_adapter
from services.ledger import settings as ledger
from services.router import settings as router
from weirctl.config import MODELS, SANDBOX_PROVIDER, SANDBOX_TARGET, Config, read, write_effective
from weirctl.part_runner import Report

LIVE = router.LIVE | cloud_adapter.LIVE | ledger.LIVE | auth.LIVE
"""What running services take over; everything else needs `weir down` and `weir up`."""
_RESTART = "`weir down` and `weir up`"


class FollowSettings:
    """Follows the file that `weir up` was started with. The parts read a file of their own, which it writes.

    What needs a restart stays in that file as it was at the start: a part that crashes and comes back must fit the
    others.

    Args:
        started: the configuration that the parts were started with.
        path: the user's file; None where `weir up` looks for ./weir.yaml.
        environment: that of the start; variables are filled in from it.
        say: takes lines for a human.
    """

    def __init__(
        self,
        started: Config,
        path: Path | None,
        environment: Mapping[str, str],
        say: Report,
        *,
        sandbox: bool,
    ) -> None:
        default = Path(FILE_NAME)
        self._started = started
        self._now = started
        # A file that was there is missed when it is gone; it does not become the defaults.
        self._path = path or (default if default.exists() else None)
        self._environment = environment
        self._say = say
        self._sandbox = sandbox
        self._file = WatchedFile(self._path or default)
        self._asked = asyncio.Event()
        self._reading = 0

    def ask(self) -> None:
        """Has the file read again, changed or not: secrets and prices in other files are read with it."""
        self._asked.set()

    async def run(self) -> None:
        """Follows until cancelled."""
        while True:
            await self._file.changed(self._asked)
            try:
                self.take_over()
            except SettingsError as error:
                self._say(f"{error}\nThe settings cannot be used: kept the former settings.")
            except OSError as error:
                self._say(f"The settings cannot be handed on ({error}): kept the former settings.")

    def take_over(self) -> None:
        """Reads the file and writes what the parts take over. Raises SettingsError, OSError."""
        new = read(self._path, self._environment, sandbox=self._sandbox)
        load_prices(new.router.ledger.prices_file)
        document = keys_with_live(self._started.document, self._with_own_sandbox(new.document), LIVE)
        taken_over = [
            name for name in self._differing(self._now.document, new.document) if is_live(name, LIVE)
        ]
        restart = [*self._needing_restart(new)]
        self._reading += 1
        self._now = replace(new, document=document)
        write_effective(self._now, f"As of reading {self._reading} of {self._path or FILE_NAME}.")
        self._say(f"settings read again: {', '.join(taken_over) or 'nothing changed that can be taken over'}")
        if restart:
            self._say(f"these need {_RESTART}: {', '.join(restart)}")

    def _needing_restart(self, new: Config) -> Iterator[str]:
        for name in self._differing(self._started.document, new.document):
            if not is_live(name, LIVE):
                yield name
        if new.needs_triton and not self._started.needs_triton:
            yield "targets (the local Triton was not started)"
        for name in sorted(new.secrets.keys() - self._started.secrets.keys()):
            yield f"providers (the cloud adapter was not given the variable {name})"

    def _differing(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
        known = {**self._environment, HOME_VARIABLE: str(self._started.home)}
        names: dict[str, None] = {}
        for model in MODELS:
            names |= dict.fromkeys(changed(build(model, before, known), build(model, after, known)))
        return list(names)

    def _with_own_sandbox(self, document: Mapping[str, Any]) -> Mapping[str, Any]:
        """The sandbox goes on listening where it does."""
        if not self._sandbox:
            return document
        was = self._started.document
        return {
            **document,
            "providers": {**document["providers"], SANDBOX_PROVIDER: was["providers"][SANDBOX_PROVIDER]},
            "targets": {**document["targets"], SANDBOX_TARGET: was["targets"][SANDBOX_TARGET]},
        }
