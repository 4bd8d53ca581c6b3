"""Several keys of one provider: which is taken, which rests, and tokens that are renewed in their file."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import cycle
from pathlib import Path

import pytest

from services.cloud_adapter.adapters.account import Account
from services.cloud_adapter.adapters.credentials import credentials
from services.cloud_adapter.adapters.secret import Key, TokenFile, secret_from_file
from services.cloud_adapter.domain.key_ring import KeyRing, Rests
from services.cloud_adapter.settings import ProviderSettings

RESTS = Rests(refused=timedelta(seconds=60), limited=timedelta(seconds=1))


class Clock:
    """Stands still until it is told."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def evenly(steps: int) -> Callable[[], float]:
    """All of [0, 1) in turn."""
    numbers: Iterator[float] = cycle(step / steps for step in range(steps))
    return lambda: next(numbers)


def ring(*weights: float, clock: Clock | None = None, random: Callable[[], float] = lambda: 0.0) -> KeyRing:
    return KeyRing(weights, RESTS, random, clock or Clock())


def test_keys_are_taken_by_weight() -> None:
    """Of four requests three take the key that weighs three."""
    keys = ring(3, 1, random=evenly(100))
    assert Counter(keys.choose() for _ in range(100)) == {0: 75, 1: 25}


@pytest.mark.parametrize("status", [401, 403])
def test_refused_key_rests_a_minute(status: int) -> None:
    """A key that the provider refuses is left alone for its rest, and taken again afterwards."""
    clock = Clock()
    keys = ring(3, 1, clock=clock)
    keys.refused(0, status, None)
    assert keys.choose() == 1
    clock.now_s += 59.9
    assert keys.choose() == 1
    clock.now_s += 0.1
    assert keys.choose() == 0


@pytest.mark.parametrize(("retry_after", "rest_s"), [(None, 1.0), (timedelta(seconds=7), 7.0)])
def test_limited_key_rests_as_told(retry_after: timedelta | None, rest_s: float) -> None:
    """A key whose rate is limited rests as long as the provider says, or a second."""
    clock = Clock()
    keys = ring(1, 1, clock=clock)
    keys.refused(0, 429, retry_after)
    clock.now_s += rest_s - 0.01
    assert keys.choose() == 1
    clock.now_s += 0.01
    assert keys.choose() == 0


@pytest.mark.parametrize("status", [400, 404, 408, 500, 503])
def test_other_refusals_are_not_the_keys_fault(status: int) -> None:
    """Whatever else a provider answers does not send a key to rest."""
    keys = ring(1, 1)
    keys.refused(0, status, timedelta(seconds=9))
    assert keys.choose() == 0


def test_all_rest() -> None:
    """When every key rests, the one whose rest ends first is taken; a short rest does not end a long one."""
    keys = ring(1, 1, 1)
    keys.refused(0, 401, None)
    keys.refused(1, 429, timedelta(seconds=30))
    keys.refused(2, 429, timedelta(seconds=40))
    assert keys.choose() == 1
    keys.refused(1, 401, None)
    keys.refused(2, 429, timedelta(seconds=1))
    assert keys.choose() == 2


def test_only_key_is_always_taken() -> None:
    """A single key is used whatever happened to it."""
    keys = ring(1)
    assert keys.refused(0, 401, None) is None
    assert keys.choose() == 0


def test_draw_at_the_edge() -> None:
    """The greatest number below 1 still takes the last key."""
    assert ring(0.1, 0.2, 0.3, random=lambda: 1 - 2**-53).choose() == 2


def test_account_makes_headers_once_for_each_secret(tmp_path: Path) -> None:
    """Headers are made anew only where the secret changed, and every secret that was shown is known."""
    made: list[str] = []
    path = written(tmp_path / "token", "first")
    token = TokenFile(path, secret_from_file(path).secret, 60, Clock())

    def headers(secret: str) -> dict[str, str]:
        made.append(secret)
        return {"x": secret}

    account = Account([token], ring(1), headers, lambda *_: None)
    assert [account.choose() for _ in range(2)] == [(0, {"x": "first"})] * 2
    written(path, "second")
    assert account.choose() == (0, {"x": "second"})
    assert made == ["first", "second"]
    assert account.known() == ["first", "second"]


def written(path: Path, text: str) -> Path:
    """Puts a new file in place of the old, as those that renew tokens do."""
    fresh = path.with_suffix(".new")
    fresh.write_text(f"{text}\n")
    fresh.chmod(0o600)
    fresh.replace(path)
    return path


def test_renewed_token_is_taken_at_once(tmp_path: Path) -> None:
    """A token that is renewed by renaming is the next request's, without a restart."""
    path = written(tmp_path / "token", "first")
    token = TokenFile(path, secret_from_file(path).secret, 60, Clock())
    assert token.current() == "first"
    written(path, "second")
    assert token.current() == "second"
    assert token.known() == ("first", "second")


def test_renewal_behind_a_link(tmp_path: Path) -> None:
    """A link that is turned to another file, as mounted secrets are, is followed."""
    first, second = written(tmp_path / "1", "first"), written(tmp_path / "2", "other")
    link = tmp_path / "token"
    link.symlink_to(first)
    token = TokenFile(link, secret_from_file(link).secret, 60, Clock())
    turned = tmp_path / "turned"
    turned.symlink_to(second)
    turned.replace(link)
    assert token.current() == "other"


def test_token_is_read_again_after_a_minute(tmp_path: Path) -> None:
    """A file that changed without looking different is read again after its time, and not before."""
    clock = Clock()
    path = written(tmp_path / "token", "first")
    token = TokenFile(path, secret_from_file(path).secret, 60, clock)
    seen = path.stat()
    path.write_text("other\n")  # as long as before, in the same file
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    clock.now_s += 59
    assert token.current() == "first"
    clock.now_s += 1
    assert token.current() == "other"


@pytest.mark.parametrize("left", [None, "", "two words"])
def test_token_survives_a_broken_file(tmp_path: Path, left: str | None) -> None:
    """A file that is gone, empty or broken leaves the token as it was, until a good one is there."""
    path = written(tmp_path / "token", "first")
    token = TokenFile(path, secret_from_file(path).secret, 60, Clock())
    if left is None:
        path.unlink()
    else:
        written(path, left)
    assert token.current() == "first"
    written(path, "second")
    assert token.current() == "second"


def test_few_tokens_are_remembered(tmp_path: Path) -> None:
    """A process that runs for months does not collect tokens."""
    path = written(tmp_path / "token", "token-0")
    token = TokenFile(path, secret_from_file(path).secret, 60, Clock())
    for number in range(1, 20):
        written(path, f"token-{number}")
        token.current()
    assert token.known() == ("token-16", "token-17", "token-18", "token-19")


def test_good_keys_are_used_and_bad_ones_told(tmp_path: Path) -> None:
    """One key of several that cannot be read leaves the others, with their weights, and no value is told."""
    good = written(tmp_path / "good", "sk-good")
    settings = ProviderSettings.model_validate({
        "base_url": "https://p/v1",
        "api_keys": [
            {"file": good, "weight": 3}, {"env": "UNSET"}, {"env": "SPACED"}, {"env": "OTHER", "weight": 2},
        ],
    })  # fmt: skip
    found = credentials(settings, {"SPACED": "sk-two words", "OTHER": "sk-other"}, Clock())
    assert [key.current() for key in found.credentials] == ["sk-good", "sk-other"]
    assert (list(found.weights), list(found.names)) == ([3, 2], [str(good), "OTHER"])
    assert found.problem == ""
    assert len(found.warnings) == 2
    assert "UNSET is not set" in found.warnings[0]
    assert "sk-" not in "".join(found.warnings)


def test_no_key_of_several_is_good(tmp_path: Path) -> None:
    """With no good key at all the provider cannot be used, and every problem is named."""
    keys = [{"env": "UNSET"}, {"file": tmp_path / "missing"}]
    settings = ProviderSettings.model_validate({"base_url": "https://p/v1", "api_keys": keys})
    found = credentials(settings, {}, Clock())
    assert "UNSET is not set" in found.problem
    assert "No such file" in found.problem
    assert [key.current() for key in found.credentials] == [""]


def test_holders_show_nothing() -> None:
    """Neither a key nor what holds it shows its value."""
    settings = ProviderSettings.model_validate({"base_url": "https://p/v1", "api_key_env": "K"})
    found = credentials(settings, {"K": "sk-hidden"}, Clock())
    (key,) = found.credentials
    assert isinstance(key, Key)
    assert "sk-hidden" not in f"{found!r} {key!r} {vars(key)!r}"
