"""The key set with versions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gen.weir.auth.v1 import Key
from services.auth.domain.key_set import Change, KeySet
from tests.fakes.auth import change_of


def _change(version: int, key_id: str = "", label: str = "") -> Change:
    return change_of(version, Key(id=key_id or f"k{version}", label=label))


def _loaded(version: int, *changes: Change) -> KeySet:
    keys = KeySet()
    keys.replace(version, changes)
    return keys


def test_changes_since_a_version_come_in_order() -> None:
    """Only what lies after the version, oldest first."""
    keys = _loaded(5, _change(3))
    keys.extend(9, [_change(7), _change(8), _change(9)])
    assert [change.version for change in keys.changes_after(7) or ()] == [8, 9]
    assert keys.changes_after(9) == []


def test_a_key_changed_twice_comes_once_in_its_last_form() -> None:
    """A watcher needs no form that is already past."""
    keys = _loaded(5)
    keys.extend(6, [_change(6, "a", "first")])
    keys.extend(8, [_change(7, "b"), _change(8, "a", "second")])
    assert [(c.version, c.key.id, c.key.label) for c in keys.changes_after(5) or ()] == [
        (7, "b", ""),
        (8, "a", "second"),
    ]
    assert len(keys) == 2


@pytest.mark.parametrize("version", [0, 4, 6, 2**63])
def test_changes_since_an_unknown_version_are_not_known(version: int) -> None:
    """Zero, before the whole was taken, and the future ask for a snapshot."""
    assert _loaded(5, _change(3)).changes_after(version) is None


def test_a_replacement_forgets_keys_and_history() -> None:
    """After a gap nothing of before is claimed, a lower version included."""
    keys = _loaded(9, _change(3), _change(9))
    keys.replace(8, [_change(3)])
    assert (keys.version, [change.key.id for change in keys.all_changes()]) == (8, ["k3"])
    assert keys.changes_after(7) is None
    assert keys.changes_after(9) is None
    assert keys.changes_after(8) == []


@pytest.mark.parametrize(
    ("version", "numbers"),
    [(9, [5]), (9, [7, 7]), (9, [8, 7]), (6, [7]), (4, [])],
)
def test_changes_that_do_not_continue_are_refused(version: int, numbers: list[int]) -> None:
    """A mistake in the store's order shows at once instead of as a key that no router hears of."""
    keys = _loaded(5)
    with pytest.raises(ValueError, match="version"):
        keys.extend(version, [_change(number) for number in numbers])
    assert keys.version == 5


@pytest.mark.parametrize(("version", "numbers"), [(9, [7, 7]), (9, [8, 7]), (6, [7]), (9, [0])])
def test_a_replacement_that_contradicts_itself_changes_nothing(version: int, numbers: list[int]) -> None:
    """Else every watcher would be told that there are no keys."""
    keys = _loaded(5, _change(3), _change(5))
    with pytest.raises(ValueError, match="version"):
        keys.replace(version, [_change(number) for number in numbers])
    assert (keys.version, len(keys)) == (5, 2)
    assert [change.version for change in keys.all_changes()] == [3, 5]
    assert keys.changes_after(5) == []


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(1, 3)), max_size=30), st.data())
def test_a_watcher_that_applies_changes_ends_with_the_same_keys(
    steps: list[tuple[str, int]], data: st.DataObject
) -> None:
    """From any version on, what it held then and the changes since make the present set."""
    keys = _loaded(1)
    held: dict[int, dict[str, str]] = {1: {}}
    version = 1
    for key_id, stride in steps:
        version += stride
        keys.extend(version, [_change(version, key_id, str(version))])
        held[version] = {change.key.id: change.key.label for change in keys.all_changes()}
    start = data.draw(st.sampled_from(sorted(held)))
    copy = dict(held[start])
    for change in keys.changes_after(start) or ():
        copy[change.key.id] = change.key.label
    assert copy == {change.key.id: change.key.label for change in keys.all_changes()}
