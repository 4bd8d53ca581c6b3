"""Counting of limits: against a log of what was really used, and case by case."""

from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshkit.errors import InvalidRequest
from services.auth.domain.rate_lease import Demand, Leased, lease
from services.auth.domain.rate_window import REMEMBERED_S, Rule, Window

_GOOD_S = 10.0
_START_S = 1_790_000_000.25
_RULE = Rule(total=100, slides=True, good_for_s=_GOOD_S, retry_s=0.2)
_SLOTS = Rule(total=10, slides=False, good_for_s=_GOOD_S, retry_s=0.2)


@dataclass
class _Router:
    """A holder that keeps the protocol."""

    name: str
    used: int = 0
    at_hand: int = 0
    good_until_s: float = 0.0

    def held(self, now_s: float) -> int:
        """What it may spend."""
        if now_s >= self.good_until_s:
            self.at_hand = 0
        return self.at_hand


@dataclass
class _World:
    """One limit, its routers, and a log of every use in true time, which the store's clock need not tell."""

    rule: Rule
    window: Window = field(default_factory=Window)
    now_s: float = 0.0
    clock_s: float = _START_S
    routers: list[_Router] = field(default_factory=lambda: [_Router(f"r{n}") for n in range(3)])
    log: list[tuple[float, int]] = field(default_factory=list)
    born: int = 0

    def use(self, who: int, units: int) -> None:
        """Some of what is at hand is used; a slot is only kept."""
        router = self.routers[who]
        units = min(units, router.held(self.now_s))
        if units and self.rule.slides:
            router.at_hand -= units
            router.used += units
            self.log.append((self.now_s, units))

    def call(self, who: int, keep: int, wanted: int, fate: str, late_s: float) -> None:
        """One exchange: gives back all but `keep`; what it has goes on being used until the answer comes."""
        router, begun_s = self.routers[who], self.now_s
        router.at_hand = min(keep, router.held(begun_s))
        demand = Demand(router.used, router.at_hand, wanted)
        if fate == "request lost":
            return
        self.wait(late_s)
        self.use(who, 1)
        granted = lease(self.window, router.name, demand, self.clock_s, self.rule).granted
        self.wait(late_s)
        if fate == "answer lost":
            return
        router.held(self.now_s)
        router.at_hand += granted
        router.good_until_s = begun_s + _GOOD_S

    def forget(self, who: int, fate: str) -> None:
        """It names the limit no more, which gives all of it back; what it used was told before."""
        router = self.routers[who]
        holding = self.window.holdings.get(router.name)
        if holding is None or holding.seen != router.used:
            return
        router.at_hand = 0
        if fate != "request lost":
            self.window.give_back(router.name)

    def die(self, who: int) -> None:
        """Its place is taken by a new process."""
        self.born += 1
        self.routers[who] = _Router(f"n{self.born}")

    def wait(self, for_s: float) -> None:
        """Time passes."""
        self.now_s += for_s
        self.clock_s += for_s

    def most_in_a_minute(self) -> int:
        """Of what was really used."""
        most, sum_, first = 0, 0, 0
        for at_s, units in self.log:
            sum_ += units
            while self.log[first][0] <= at_s - 60:
                sum_ -= self.log[first][1]
                first += 1
            most = max(most, sum_)
        return most

    def step(self, chance: Random) -> None:
        """Something happens: mostly greedy routers that use what they get, at times at the last moment."""
        who = chance.randrange(len(self.routers))
        fate = chance.choices(["heard", "request lost", "answer lost"], [8, 1, 1])[0]
        match chance.choices(["call", "use", "wait", "forget", "die", "set back"], [30, 30, 30, 2, 1, 1])[0]:
            case "call":
                self.call(
                    who, chance.choice([0, 1, 500]), chance.choice([0, 3, 500]), fate, chance.choice([0, 0.4])
                )
            case "use":
                self.use(who, chance.choice([1, 500]))
            case "wait":
                pauses = [0.05, 0.9, 3.3, 9.4, 11.0, 30.0, 58.0, 71.0, 601.0]
                self.wait(
                    chance.choices(pauses, [40, 40, 10, 3, 3, 1, 1, 1, 1])[0] * chance.uniform(0.8, 1.0)
                )
            case "forget":
                self.forget(who, fate)
            case "die":
                self.die(who)
            case "set back":
                self.clock_s -= chance.choice([0.001, 0.5, 3.7, 3_600.0])


_SEEDS = st.integers(0, 2**32)


@settings(max_examples=30)
@given(seed=_SEEDS)
def test_no_minute_has_more_uses_than_the_limit(seed: int) -> None:
    """Whatever is lost, whoever is silent or dies, and though the store's clock is set back: never over in any 60 s."""
    world, chance = _World(_RULE), Random(seed)  # noqa: S311 - chance of a test, no secret
    for _ in range(600):
        world.step(chance)
    assert 0 < world.most_in_a_minute() <= _RULE.total


@settings(max_examples=30)
@given(seed=_SEEDS, steps=st.integers(0, 100))
def test_no_unit_is_lost_for_ever(seed: int, steps: int) -> None:
    """A minute after everybody fell silent and what they held lapsed, all of the limit is free again."""
    world, chance = _World(_RULE), Random(seed)  # noqa: S311 - chance of a test, no secret
    for _ in range(steps):
        world.step(chance)
    lease(world.window, "last", Demand(0, 0, 500), world.clock_s, _RULE)
    world.wait(60 + _GOOD_S + 1)
    leased = lease(world.window, "new", Demand(0, 0, 0), world.clock_s, _RULE)
    assert leased == Leased(0, _RULE.total, 0.0, None)
    world.wait(REMEMBERED_S)
    assert world.window.void_s <= world.clock_s


@settings(max_examples=30)
@given(seed=_SEEDS)
def test_never_more_slots_than_the_limit(seed: int) -> None:
    """Requests at the same time: at no moment do all holders together have more."""
    world, chance = _World(_SLOTS), Random(seed)  # noqa: S311 - chance of a test, no secret
    for _ in range(600):
        world.step(chance)
        assert sum(router.held(world.now_s) for router in world.routers) <= _SLOTS.total


def _turn(
    window: Window, at_s: float, *, holder: str = "a", used: int = 0, held: int = 0, wanted: int = 0,
    rule: Rule = _RULE,
) -> Leased:  # fmt: skip
    return lease(window, holder, Demand(used, held, wanted), _START_S + at_s, rule)


def test_a_used_unit_counts_for_a_minute_after_its_report() -> None:
    """And, as seconds are counted whole, for less than a second more."""
    window = Window()
    assert _turn(window, 0, wanted=100).granted == 100
    assert _turn(window, 0.5, used=100, wanted=1) == Leased(0, 0, 60.25, 60.25)
    assert _turn(window, 60.5, used=100, wanted=1).granted == 0
    assert _turn(window, 60.75, used=100, wanted=1).granted == 1


def test_what_is_given_back_is_free_at_once() -> None:
    """Held no more and not used; or named no more."""
    window = Window()
    _turn(window, 0, wanted=100)
    assert _turn(window, 1, held=40).free == 60
    window.give_back("a")
    assert _turn(window, 2, holder="b").free == 100


def test_a_lost_answer_costs_nothing() -> None:
    """What was granted and never came is free again when the holder says what it has."""
    window = Window()
    _turn(window, 0, wanted=100)
    assert _turn(window, 1, held=0, wanted=100).granted == 100


def test_silence_uses_up_what_was_held() -> None:
    """As of the end of the time for which the grant was good; then for a minute."""
    window = Window()
    _turn(window, 0, wanted=30)
    assert _turn(window, 9, holder="b").reset_s == 0.0
    assert _turn(window, 11, holder="b").free == 70
    assert _turn(window, 11, holder="b").reset_s == pytest.approx(59.75)
    assert _turn(window, 70, holder="b").free == 70
    assert _turn(window, 71, holder="b").free == 100


def test_silence_frees_slots() -> None:
    """Nobody knows of requests that ended."""
    window = Window()
    assert _turn(window, 0, wanted=10, rule=_SLOTS).granted == 10
    assert _turn(window, 9, holder="b", wanted=1, rule=_SLOTS) == Leased(0, 0, 0.0, 0.2)
    assert _turn(window, 10, holder="b", wanted=10, rule=_SLOTS).granted == 10


def test_who_comes_back_from_silence_tells_what_it_really_used() -> None:
    """The rest of what it held is free again."""
    window = Window()
    _turn(window, 0, wanted=30)
    assert _turn(window, 20, used=10, held=5).free == 85


def test_after_a_long_silence_the_last_minute_counts() -> None:
    """It went on by its own count: of 300 units in 5 minutes, 60 are of the last one."""
    window = Window()
    _turn(window, 0, used=1_000)
    assert _turn(window, 300, used=1_300).free == 40


@pytest.mark.parametrize("away_s", [0, REMEMBERED_S + 1])
def test_an_unknown_holder_is_believed(away_s: float) -> None:
    """It has what it says, up to the limit; what it used before is not of this count."""
    window = Window()
    _turn(window, 0, used=5)
    assert _turn(window, away_s, holder="b", used=10**9, held=30).free == 70
    assert _turn(window, away_s + 1, holder="c", held=10**9, rule=_RULE).free == 0
    assert window.holdings["c"].held == 100


def test_more_used_than_granted_is_booked() -> None:
    """Nothing is free until enough of it has left."""
    window = Window()
    _turn(window, 0, wanted=100)
    _turn(window, 0.25, used=90, held=10)
    assert _turn(window, 10.25, used=190, wanted=1) == Leased(0, 0, 60.5, 60.5)
    assert _turn(window, 60.75, used=190, wanted=1).free == 0
    assert _turn(window, 80.75, used=190, wanted=1).granted == 1


def test_where_only_held_units_fill_it_nobody_knows_when() -> None:
    """Then it is asked again soon; else when the next used ones leave."""
    window = Window()
    _turn(window, 0, wanted=100)
    assert _turn(window, 1, holder="b", wanted=1).retry_after_s == 0.2
    _turn(window, 1, used=1, held=99)
    assert _turn(window, 2, holder="b", wanted=1).retry_after_s == pytest.approx(59.75)


def test_a_total_that_falls_is_refused() -> None:
    """Counting would be wrong either way."""
    window = Window()
    _turn(window, 0, used=5)
    with pytest.raises(InvalidRequest, match="fell from 5 to 4"):
        _turn(window, 1, used=4)


def test_a_changed_limit_holds_at_once() -> None:
    """A smaller one may be overdrawn, and then grants nothing."""
    window = Window()
    _turn(window, 0, wanted=100)
    small, large = (Rule(total, slides=True, good_for_s=_GOOD_S, retry_s=0.2) for total in (50, 150))
    assert _turn(window, 1, held=100, wanted=9, rule=small).granted == 0
    assert _turn(window, 2, held=100, wanted=99, rule=large).granted == 50


def test_a_window_stays_small() -> None:
    """At most one number for each second, however many reports."""
    window = Window()
    for step in range(2_000):
        _turn(window, step / 10, used=step)
    assert len(window.used) <= 62
