"""Sampling through the whole mesh: off for everybody, on for one key, off again."""

from __future__ import annotations

import json
from uuid import uuid4

import pytest

from tests.harness.reply import post
from tests.harness.running_weir import wait_for
from tests.harness.stronghold import Stronghold
from tests.security.callers import ROUTES

pytestmark = pytest.mark.xdist_group("security")


def ask(stronghold: Stronghold, key: str) -> str:
    """Asks once; returns what was said that nobody else says."""
    words = f"sampled-{uuid4().hex}"
    reply = post(stronghold.weir.edge, key, {"messages": [{"role": "user", "content": words}]})
    assert reply.status == 200
    return words


def kept(stronghold: Stronghold, key: str) -> str:
    """The key's samples."""
    return stronghold.administer("samples", "--json", key.split("_")[1])


def new_key(stronghold: Stronghold) -> str:
    """One that the routers know."""
    key = stronghold.create_key()
    wait_for("the key", lambda: ROUTES["models"].ask(stronghold, f"Bearer {key}").status == 200)
    return key


def switch_on(stronghold: Stronghold, key: str) -> None:
    """All of its requests are kept from now on."""
    stronghold.administer("keys", "sample", key.split("_")[1], "100%")


def test_sampling_is_for_one_key_and_can_be_ended(stronghold: Stronghold) -> None:
    """Prompt and answer of a key that has it on are in the table, within seconds; before and after they are not."""
    key, witness = new_key(stronghold), new_key(stronghold)
    before = ask(stronghold, key)
    switch_on(stronghold, witness)
    switch_on(stronghold, key)
    wait_for("a sample", lambda: ask(stronghold, key) and "sampled-" in kept(stronghold, key))
    during = ask(stronghold, key)
    wait_for("the last sample", lambda: during in kept(stronghold, key))
    assert before not in kept(stronghold, key)
    assert json.loads(kept(stronghold, key))
    stronghold.administer("keys", "sample", key.split("_")[1], "off")
    after = [ask(stronghold, key) for _ in range(4)]
    # What is asked after them, at either worker, is there: so they would be too.
    shown = [ask(stronghold, witness) for _ in range(8)]
    wait_for("the witness", lambda: _all_in(shown, kept(stronghold, witness)))
    found = kept(stronghold, key)
    assert not any(words in found for words in after)
    stronghold.revoke(witness)
    stronghold.revoke(key)


def _all_in(words: list[str], text: str) -> bool:
    return all(word in text for word in words)
