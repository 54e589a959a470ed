"""The watch: windows from censuses, checks with their causes, alarms that begin once and end, one worker that looks."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from rich.console import Console

from fraudstream.adapters.memory import MemoryPublisher
from fraudstream.cli.drift import show
from fraudstream.codec import decode_model_event
from fraudstream.core import watch as of_watch
from fraudstream.core.alarms import AlarmBook, Check
from fraudstream.core.census import HOUR_MS, RUN_OFFSETS, SCORE, Counts, Monitor, Seen
from fraudstream.core.drift import LOOKS_PER_WINDOW, alpha_of
from fraudstream.core.ports import Outgoing
from fraudstream.core.quality import Judged, Quality, Tallies
from fraudstream.core.watch import Bins, Limits, Reference, Windows, checks, estimated, loss_check
from fraudstream.core.windows import FloatArray
from fraudstream.errors import BrokerUnavailable, StateUnavailable
from fraudstream.events import ModelEvent
from fraudstream.models.drift_page import render
from fraudstream.services import adwin as of_adwin
from fraudstream.services.adwin import LossMeans, ScoreMeans
from fraudstream.services.watching import Watched, Watcher, read_state
from fraudstream.topics import TOPICS

DAY_MS = 24 * HOUR_MS
EDGES = [10.0, 20.0, 40.0]
MONITOR = Monitor({"amount": EDGES}, [0.1, 0.5], ("new.terminal",))
REFERENCE = Reference(
    {"amount": Bins((2_500,) * 4, None, None), SCORE: Bins((9_000, 800, 200), None, None)}, 2_000, (2_400.0, 50.0)
)
LIMITS = Limits()
NOW_MS = 1_000 * DAY_MS  # later than all that is counted


def seen(count: int, *, at_ms: int = 0, scale: float = 1.0, seed: int = 0, first: int = 0) -> Seen:
    """Amounts by the reference's quarters, times `scale`; scores by its tenths."""
    random = np.random.default_rng(seed)
    amounts = np.array([5.0, 15.0, 30.0, 80.0])[random.integers(0, 4, count)] * scale
    scores = np.array([0.05, 0.3, 0.7])[random.choice(3, count, p=[0.9, 0.08, 0.02])]
    return Seen(
        np.zeros(count, np.int64), np.arange(first, first + count), np.full(count, at_ms), np.rint(amounts * 100).astype(np.int64),
        amounts.astype(np.float32)[:, None], scores, scores, scores > 0.5, scores > 0.9, {},
    )  # fmt: skip


@dataclass
class Ledger:
    """Censuses as a state store keeps them, of one partition."""

    held: dict[str, bytes] = field(default_factory=dict)
    decided: int = 0
    watermark: int = -1  # where it is not the number of transactions that were decided

    def add(self, batch: Seen) -> None:
        names = MONITOR.names(0, batch.offsets.tolist(), batch.times_ms.tolist())
        self.held.update(MONITOR.count({name: self.held.get(name) for name in names}, batch))
        self.decided += len(batch.offsets)

    def hours(self, start: int, stop: int, *, scale: float = 1.0) -> None:
        for hour in range(start, stop):
            self.add(seen(100, at_ms=hour * HOUR_MS, scale=scale, seed=hour, first=self.decided))

    def rows(self, keys):  # type: ignore[no-untyped-def]
        return {name: [self.held.get(key) for key in wanted] for name, wanted in keys.items()}

    def watermarks(self) -> dict[int, int]:
        return {0: max(self.watermark, self.decided - 1)} if self.decided else {}

    def counts(self) -> dict[str, int]:
        return {"decided": self.decided}


@dataclass
class Slate:
    """The watch's state in memory; `holder` is who may write."""

    state: bytes | None = None
    holder: str = ""
    away: bool = False  # does not answer a save
    lost: bool = False  # the lease, between a look's beginning and its save
    judged: dict[str, bytes] = field(default_factory=dict)

    def hold(self, owner: str, ttl_ms: int) -> bool:
        self.holder = self.holder or owner
        return self.holder == owner

    def load(self) -> bytes | None:
        return self.state

    def save(self, owner: str, state: bytes) -> bool:
        if self.away:
            raise StateUnavailable("planted")
        if self.lost:
            return False
        self.state = state
        return True

    def quality(self) -> dict[str, bytes]:
        return self.judged


def watcher(
    ledger: Ledger, slate: Slate, publisher: MemoryPublisher | None = None, *, wall_ms: int = NOW_MS
) -> Watcher:
    return Watcher(
        ("fraud", "1"), MONITOR, REFERENCE, ledger, state=slate, publisher=publisher or MemoryPublisher(),
        limits=LIMITS, cool_down_ms=DAY_MS, look_every_ms=1_000, wall_ms=lambda: wall_ms,
    )  # fmt: skip


@dataclass
class Broker(MemoryPublisher):
    """A publisher whose broker can be away."""

    away: bool = False

    def __post_init__(self) -> None:
        super().__init__()

    def publish(self, messages: Sequence[Outgoing]) -> None:
        if self.away:
            raise BrokerUnavailable("planted")
        super().publish(messages)

    def events(self) -> list[ModelEvent]:
        return [decode_model_event(message.value or b"") for message in self.messages]


def counts_of(batch: Seen) -> Counts:
    return MONITOR.read(row for name, row in MONITOR.count({}, batch) if ":h" in name)


def named(found: list[Check], name: str) -> Check:
    return next(check for check in found if check.name == name)


# --- checks ------------------------------------------------------------------------------------------------------------


def test_the_same_world_passes_no_limit_and_another_does() -> None:
    """Amounts as in the reference stay inside; scaled by half again they pass, and the message says what moved."""
    quiet = checks(REFERENCE, Windows(0, counts_of(seen(2_400)), counts_of(seen(2_400))), LIMITS)
    assert [check.name for check in quiet if check.value > check.limit] == []
    moved = checks(REFERENCE, Windows(0, counts_of(seen(2_400, scale=1.5))), LIMITS)
    check = named(moved, "psi_day:amount")
    assert check.value > check.limit
    assert re.fullmatch(r"amount: [\d.]+% of the last day lie in .*, 25.0% did in the reference period", check.message)
    assert 0 < check.values["kolmogorov_smirnov"] < 1


def test_a_calendar_feature_is_told_and_never_alarms() -> None:
    """It drifts with the clock: its figure is there, marked as informative."""
    bins = {**REFERENCE.bins, "amount": msgspec.structs.replace(REFERENCE.bins["amount"], told_only=True)}
    reference = msgspec.structs.replace(REFERENCE, bins=bins)
    check = named(checks(reference, Windows(0, counts_of(seen(2_400, scale=3.0))), LIMITS), "psi_day:amount")
    assert check.value > check.limit
    assert check.informative
    assert AlarmBook().judge([check], 0, cool_down_ms=0) == []


def test_a_small_window_is_not_judged() -> None:
    """Below 500 transactions there is a rate of arrivals to tell, and no shape."""
    found = checks(REFERENCE, Windows(0, counts_of(seen(499))), LIMITS)
    assert [check.name for check in found] == ["rate:arrivals"]
    assert found[0].value > found[0].limit


@pytest.mark.parametrize(("count", "alarm"), [(2_400, False), (2_900, False), (3_100, True), (1_700, True)])
def test_a_trickle_and_a_flood_are_told(count: int, alarm: bool) -> None:
    """A day's transactions may differ by a quarter from those before training."""
    check = named(checks(REFERENCE, Windows(0, counts_of(seen(count))), LIMITS), "rate:arrivals")
    assert (check.value > check.limit) is alarm


def test_rejects_and_first_sights_are_told_as_shares() -> None:
    """More than 1 % of the recent records rejected, or more than 5 % of the day's terminals new."""
    batch = replace(seen(2_000), firsts={"new.terminal": np.arange(150)})
    rows = dict(MONITOR.count({}, batch, rejected={0: list(range(30))}))
    records = MONITOR.read(row for name, row in rows.items() if ":r" in name)
    found = checks(REFERENCE, Windows(0, counts_of(batch), records=records), LIMITS)
    rejects, new = named(found, "rate:rejects"), named(found, "new:terminal")
    assert rejects.value == pytest.approx(30 / 2_030)
    assert rejects.value > rejects.limit
    assert new.value == pytest.approx(0.075)
    assert "first time for 7.5%" in new.message


def test_values_that_were_never_seen_are_told_by_field() -> None:
    """Amounts above the largest, or below the smallest, of the reference period: more than 5 % of a day are an alarm."""
    monitor = Monitor({"amount": EDGES}, [0.1, 0.5], (), {"amount": (5.0, 80.0)})
    for scale, share in ((1.0, 0.0), (1.5, 0.25), (0.9, 0.25)):
        batch = seen(2_000, scale=scale)
        hours = (row for name, row in monitor.count({}, batch) if ":h" in name)
        check = named(checks(REFERENCE, Windows(0, monitor.read(hours)), LIMITS), "outside:amount")
        assert check.value == pytest.approx(share, abs=0.03)
        assert (check.value > check.limit) is (share > 0)
    assert check.message.startswith("amount was smaller or larger than ever in the reference period for 2")


def tallied(frauds: int, loss: float, seed: int) -> Tallies:
    return tallied_of(np.exp(-np.random.default_rng(seed).exponential(loss, frauds)))


def tallied_equal(frauds: int, loss: float) -> Tallies:
    return tallied_of(np.full(frauds, np.exp(-loss)))


def tallied_of(scores: FloatArray) -> Tallies:
    frauds = len(scores)
    quality = Quality()
    quality.update(
        Judged("v", np.zeros(frauds, np.int64), np.ones(frauds, np.bool_), np.ones(frauds, np.int64), np.ones(frauds),
               np.ones(frauds), {"champion": scores})
    )  # fmt: skip
    return quality.total("v", "champion")


def test_frauds_that_surprise_the_champion_are_told() -> None:
    """Twice the loss of each fraud passes the limit, the same loss does not, and a few frauds say nothing."""
    before = [tallied(40, 1.5, seed) for seed in range(10)]
    assert loss_check(before[:3], LIMITS) is None
    same = loss_check([*before, *(tallied(40, 1.5, seed) for seed in range(20, 25))], LIMITS)
    worse = loss_check([*before, *(tallied(40, 3.0, seed) for seed in range(20, 25))], LIMITS)
    assert same is not None
    assert worse is not None
    assert same.value < same.limit
    assert worse.value > worse.limit


def test_frauds_that_all_cost_the_same_have_no_variance() -> None:
    """Rounding makes the variance of equal losses a little negative: that is none, and no reason to stop."""
    for loss in (0.1, 0.7, 1.3, 2.1):
        days = [tallied_equal(150, loss), tallied_equal(150, loss)]
        found = loss_check(days, LIMITS)
        assert found is not None
        assert found.value == pytest.approx(0.0, abs=1e-3)


def test_quality_is_estimated_from_calibrated_scores() -> None:
    """Labels drawn by the scores: expected precision and recall are what they come to."""
    random = np.random.default_rng(3)
    n = 200_000
    scores = random.beta(0.3, 6.0, n)
    frauds = random.random(n) < scores
    batch = replace(
        seen(n), champion=scores, scores=scores, alerts=scores > 0.4, blocks=scores > 0.9,
        amounts_minor=random.integers(100, 10_000, n),
    )  # fmt: skip
    found = estimated(counts_of(batch).sums)
    assert found.precision == pytest.approx(frauds[scores > 0.4].mean(), abs=0.02)
    assert found.recall == pytest.approx((scores > 0.4)[frauds].mean(), abs=0.02)
    assert found.alert_rate == (scores > 0.4).mean()
    missed = batch.amounts_minor[frauds & ~batch.alerts].sum() / 100
    assert found.amount_missed == pytest.approx(missed, rel=0.03)


# --- alarms ------------------------------------------------------------------------------------------------------------


def check(value: float, limit: float = 1.0) -> Check:
    return Check("amount", "psi_day", value, limit, "why")


def test_an_alarm_begins_once_and_ends_after_the_cool_down() -> None:
    """Above the limit it begins; between half and all of it nothing happens; well below for a day it ends."""
    book, news = AlarmBook(), []
    for hour, value in enumerate([0.9, 1.1, 2.0, 0.9, 0.6, *[0.2] * 25]):
        news += [(hour, alarm.ended_ms) for alarm in book.judge([check(value)], hour * HOUR_MS, cool_down_ms=DAY_MS)]
    assert news == [(1, None), (28, 28 * HOUR_MS)]
    assert not book.lasting
    assert book.ended[0].peak == 2.0
    assert book.judge([check(5.0)], 30 * HOUR_MS, cool_down_ms=DAY_MS) == []  # cooling down
    assert len(book.judge([check(5.0)], 60 * HOUR_MS, cool_down_ms=DAY_MS)) == 1


# --- the watcher -------------------------------------------------------------------------------------------------------


def test_a_day_is_judged_once_it_is_full_and_the_recent_ones_once_they_are_enough() -> None:
    """Before there is a day before, no day; before there are as many transactions as asked for, no recent window."""
    ledger = Ledger()
    look = watcher(ledger, Slate()).windows
    assert look() == Windows()
    ledger.hours(0, 10)
    found = look()
    assert (found.day, found.recent, found.newest_ms) == (None, None, 9 * HOUR_MS)
    ledger.hours(10, 30)
    found = look()
    assert found.day is not None
    assert found.recent is not None
    assert found.day.transactions == 24 * 100  # whole hours: the one that goes on is no part of a day
    assert 2_000 <= found.recent.transactions <= 3_024


def test_a_clock_that_is_ahead_does_not_move_the_day() -> None:
    """One event 23 hours ahead of now is taken; the last day stays the one before now, and arrivals are no alarm."""
    ledger, slate = Ledger(), Slate()
    ledger.hours(0, 72)
    ledger.add(seen(1, at_ms=95 * HOUR_MS, first=ledger.decided))
    watch = watcher(ledger, slate, wall_ms=72 * HOUR_MS)
    found = watch.windows()
    assert found.day is not None
    assert (found.newest_ms, found.day.transactions) == (72 * HOUR_MS, 2_400)
    assert watch.look() == []
    assert read_state(slate.state).at_ms == 72 * HOUR_MS


def test_an_event_time_ahead_of_now_leaves_the_state() -> None:
    """A state that was written with such a time does not wait for the clock to reach it."""
    ledger, slate = Ledger(), Slate(state=msgspec.json.encode(Watched("fraud", "1", at_ms=900 * HOUR_MS)))
    ledger.hours(0, 72)
    watcher(ledger, slate, wall_ms=72 * HOUR_MS).look()
    assert read_state(slate.state).at_ms <= 72 * HOUR_MS


@pytest.mark.parametrize("spread", [1, 10])
def test_offsets_without_a_transaction_do_not_make_the_recent_window_silent(spread: int) -> None:
    """Rejected records and markers take offsets: the window goes back until it has its transactions."""
    ledger = Ledger()
    for hour in range(30):
        batch = seen(100, at_ms=hour * HOUR_MS, seed=hour)
        ledger.add(replace(batch, offsets=np.arange(hour * 100, hour * 100 + 100) * spread))
    ledger.watermark = 30 * 100 * spread - 1
    found = watcher(ledger, Slate()).windows()
    assert found.recent is not None
    assert 2_000 <= found.recent.transactions <= 3_000


def test_nothing_but_rejects_are_told() -> None:
    """Their share is that of the newest records: it needs no transaction."""
    ledger, slate = Ledger(), Slate()
    ledger.hours(0, 30)
    for run in range(3, 250):  # more than the transactions' window goes back
        offsets = range(run * RUN_OFFSETS, (run + 1) * RUN_OFFSETS)
        ledger.held.update(MONITOR.count({}, seen(0), {0: list(offsets)}))
    ledger.watermark = 250 * RUN_OFFSETS - 1
    last = ledger.decided // RUN_OFFSETS
    assert last < 3
    ledger.add(seen(1, at_ms=30 * HOUR_MS, first=ledger.watermark))
    watch = watcher(ledger, slate)
    assert watch.windows().recent is None
    assert {alarm.subject for alarm in watch.look()} == {"rejects"}


def test_without_a_day_the_recent_window_shares_by_the_arrivals_before_training() -> None:
    """On the first day as later, as many windows a month are looked at as there are transactions for them."""
    day, recent = counts_of(seen(48_000)), counts_of(seen(600))
    daily = msgspec.structs.replace(REFERENCE, daily=(48_000.0, 500.0))
    limits = [named(checks(daily, Windows(0, of, recent), LIMITS), "psi_recent:amount").limit for of in (day, None)]
    assert limits[0] == pytest.approx(limits[1])
    assert limits[1] > named(checks(REFERENCE, Windows(0, None, recent), LIMITS), "psi_recent:amount").limit


def test_the_alarms_asked_for_are_handed_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The probabilities of a false alarm, over all checks and looks of a month, add up to what was asked for."""
    given: list[float] = []

    def noted(alarms: float, count: int, windows_per_month: float) -> float:
        found = alpha_of(alarms, count, windows_per_month)
        given.append(found * windows_per_month * LOOKS_PER_WINDOW)
        return found

    monkeypatch.setattr(of_watch, "alpha_of", noted)
    monkeypatch.setattr(of_adwin, "alpha_of", noted)
    window = counts_of(seen(2_400))
    checks(REFERENCE, Windows(0, window, window), LIMITS)
    day, recent, arrivals = given
    of_reference = 2 * (day + recent) + arrivals
    given.clear()
    loss_check([tallied(200, 1.5, seed) for seed in range(4)], LIMITS)
    ScoreMeans(LIMITS.by_labels)
    LossMeans(LIMITS.by_labels)
    assert of_reference + sum(given) == pytest.approx(LIMITS.alarms_per_month)


def test_drift_is_alarmed_published_and_kept() -> None:
    """Amounts scaled: an event on `model-events` with the cause, the alarm in the state, and not a second event."""
    ledger, slate, publisher = Ledger(), Slate(), MemoryPublisher()
    watch = watcher(ledger, slate, publisher)
    ledger.hours(0, 48)
    assert watch.look() == []
    ledger.hours(48, 72, scale=1.5)
    names = {alarm.subject for alarm in watch.look()}
    assert names == {"amount"}
    told = [decode_model_event(message.value or b"") for message in publisher.messages]
    assert {message.topic for message in publisher.messages} == {TOPICS.model_events}
    assert {(event.kind, event.state, event.subject, event.time_ms) for event in told} == {
        ("drift", "began", "amount", NOW_MS)
    }
    assert "in the reference period" in told[0].message
    assert watch.look() == []
    kept = read_state(slate.state)
    assert kept.alarms.lasting["psi_day:amount"].transactions == 7_200
    assert set(kept.days) == {0, 1, 2}


def test_an_alarm_outlives_a_broker_that_is_away() -> None:
    """It is kept, and told by whoever looks next, under the id and with the content it began with; then never again."""
    ledger, slate, broker = Ledger(), Slate(), Broker(away=True)
    watch = watcher(ledger, slate, broker)
    ledger.hours(0, 72, scale=1.5)
    with pytest.raises(BrokerUnavailable):
        watch.look()
    kept = read_state(slate.state).unpublished
    ledger.hours(72, 110)  # what began is over: another look would not find it
    broker.away, slate.holder = False, ""
    watcher(ledger, slate, broker).look()
    assert kept
    assert broker.events()[: len(kept)] == kept
    assert read_state(slate.state).unpublished == []
    assert [alarm.subject for alarm in watch.look()] == []  # the lease is another's by now
    assert len({event.event_id for event in broker.events()}) == len(broker.events())


def test_alarms_count_for_the_worker_that_found_them_though_the_broker_was_away() -> None:
    """The look that ends well returns those of the looks that did not."""
    ledger, slate, broker = Ledger(), Slate(), Broker(away=True)
    watch = watcher(ledger, slate, broker)
    ledger.hours(0, 72, scale=1.5)
    with pytest.raises(BrokerUnavailable):
        watch.look()
    broker.away = False
    assert [alarm.subject for alarm in watch.look()] == ["amount"] * len(broker.messages)
    assert watch.look() == []


def test_what_is_not_saved_is_not_published() -> None:
    """Redis away at the save, or the lease lost by then: another look begins the alarm, once, and under one id."""
    ledger, slate, broker = Ledger(), Slate(away=True), Broker()
    watch = watcher(ledger, slate, broker)
    ledger.hours(0, 72, scale=1.5)
    with pytest.raises(StateUnavailable):
        watch.look()
    slate.away, slate.lost = False, True
    assert watch.look() == []
    assert broker.events() == []
    ledger.hours(72, 73, scale=1.5)
    slate.lost = False
    assert watch.look()
    ids = [event.event_id for event in broker.events()]
    lasting = read_state(slate.state).alarms.lasting.values()
    assert sorted(ids) == sorted(f"{alarm.event_id}:began" for alarm in lasting)


def with_a_moved_score(slate: Slate) -> None:
    watched = read_state(slate.state)
    watched.score.moved = True
    slate.state = msgspec.json.encode(watched)


def test_a_moved_mean_waits_for_its_alarm() -> None:
    """Neither a look that fails nor the time in which an alarm cools down takes it away; one alarm tells of it, once."""
    ledger, slate, broker = Ledger(), Slate(), Broker()
    watch = watcher(ledger, slate, broker)
    ledger.hours(0, 48)
    watch.look()
    with_a_moved_score(slate)
    slate.away = True
    with pytest.raises(StateUnavailable):
        watch.look()
    slate.away = False
    assert [alarm.kind for alarm in watch.look()] == ["adwin"]
    ledger.hours(48, 72)
    assert [alarm.ended_ms is None for alarm in watch.look()] == [False]
    with_a_moved_score(slate)
    assert watch.look() == []  # cooling down
    ledger.hours(72, 96)
    assert [alarm.kind for alarm in watch.look()] == ["adwin"]
    ledger.hours(96, 120)
    assert [alarm.ended_ms is None for alarm in watch.look()] == [False]
    assert [(event.subject, event.state) for event in broker.events()] == [("score", "began"), ("score", "ended")] * 2


def test_the_time_of_day_moves_no_mean() -> None:
    """Scores that are three times as high by night as by day, on a stream that fills twenty runs an hour: no alarm."""
    ledger, slate = Ledger(), Slate()
    watch, alarms = watcher(ledger, slate), []
    batch = seen(20 * RUN_OFFSETS)
    for hour in range(4 * 24):
        score = 0.03 if hour % 24 < 8 else 0.01
        offsets, times_ms = batch.offsets + ledger.decided, batch.times_ms + hour * HOUR_MS
        ledger.add(replace(batch, offsets=offsets, times_ms=times_ms, scores=np.full(len(offsets), score)))
        if hour % 6 == 5:
            alarms += [alarm for alarm in watch.look() if alarm.kind == "adwin"]
    assert alarms == []
    assert len(read_state(slate.state).score.figures) == 2  # without the first day, and the one that goes on


def test_figures_of_quality_that_cannot_be_read_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """One broken field stops no look: the rest is judged, and the log says once which it is."""
    ledger, slate = Ledger(), Slate(judged={"fraud 1|champion|3": b"broken"})
    watch = watcher(ledger, slate)
    ledger.hours(0, 72, scale=1.5)
    assert watch.look()
    watch.look()
    told = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert len(told) == 1
    assert "fraud 1|champion|3" in told[0]


def test_one_worker_watches() -> None:
    """Another worker's look does nothing while the lease is held."""
    ledger, slate = Ledger(), Slate()
    ledger.hours(0, 48, scale=3.0)
    first, second = watcher(ledger, slate), watcher(ledger, slate)
    assert first.look()
    slate.state = None
    assert second.look() == []
    assert slate.state is None


def test_a_new_version_begins_anew_and_a_broken_state_too() -> None:
    """Alarms belong to a reference; what cannot be read is no reason to stop looking."""
    ledger, slate = Ledger(), Slate(state=msgspec.json.encode(Watched("fraud", "0", alarms=AlarmBook({"x": None}))))  # type: ignore[dict-item]
    assert read_state(slate.state).alarms == AlarmBook()
    slate.state = msgspec.json.encode(Watched("fraud", "0", at_ms=5))
    ledger.hours(0, 48)
    watcher(ledger, slate).look()
    assert read_state(slate.state).version == "1"


def test_what_was_found_is_shown_in_the_terminal_and_as_a_page(tmp_path: Path) -> None:
    """Alarm, causes, histograms and days; the page needs nothing beside itself."""
    ledger, slate = Ledger(), Slate()
    ledger.hours(0, 48, scale=1.5)
    watcher(ledger, slate).look()
    watched = read_state(slate.state)
    console = Console(record=True, width=200, file=(tmp_path / "out").open("w"))
    show(watched, console)
    text = console.export_text()
    assert "psi_day amount" in text
    assert "█" in text
    page = render(watched)
    assert page.count("<svg") == 2
    assert "http" not in page.replace("http-equiv", "")
    assert "reference period" in page
