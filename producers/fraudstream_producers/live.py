"""A simulation as a stream: its days as chunks, from any day on, at its own times or at the wall clock's."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from msgspec import Struct

from fraudstream_producers.columns import LABELS, epoch_ms
from fraudstream_producers.interleave import Chunk
from fraudstream_producers.simulation import Simulation
from fraudstream_producers.world import Ints


class EventClock(Struct, frozen=True):
    """Event times by count instead of by habit: `step_ms` milliseconds of event time from one transaction to the next."""

    start_ms: int
    step_ms: float

    def times_ms(self, first: int, count: int) -> Ints:
        """The event times of the transactions numbered `first` and following."""
        times: Ints = self.start_ms + np.floor((first + np.arange(count)) * self.step_ms).astype(np.int64)
        return times


class Span(Struct, frozen=True, kw_only=True):
    """Which part of a simulation is streamed. None means: no end, or no such rule."""

    first_day: int = 0
    days: int | None = None
    count: int | None = None  # transactions
    from_ms: int | None = None  # transactions of the first day that are earlier are left out
    event_clock: EventClock | None = None
    labels: bool = True
    label_delay_scale: float = 1.0
    earlier_labels: bool = False  # also those of the days before first_day that fall due from first_day on


def chunks(simulation: Simulation, span: Span) -> Iterator[Chunk]:
    """A chunk per day, endless unless the span ends."""
    number = 0
    left = float("inf") if span.count is None else span.count
    day = span.first_day
    while left > 0 and (span.days is None or day < span.first_day + span.days):
        made = simulation.day(day)
        event_ms = epoch_ms(made.transactions["event_time"])
        first = 0 if span.from_ms is None else int(np.searchsorted(event_ms, span.from_ms))
        last = len(event_ms) if len(event_ms) - first <= left else first + int(left)
        whole_day = last == len(event_ms)
        made = made.part(first, last)
        if span.event_clock is not None:
            made = made.retimed(span.event_clock.times_ms(number, last - first))
        labels = made.labels(span.label_delay_scale) if span.labels else LABELS.empty_table()
        if span.labels and span.earlier_labels and day == span.first_day:
            labels = pa.concat_tables([*_earlier_labels(simulation, span), labels])
        until_ms = simulation.day_start_ms(day + 1) - 1
        if last > first and (span.event_clock is not None or not whole_day):
            until_ms = int(epoch_ms(made.transactions["event_time"])[-1])
        if last > first or span.event_clock is None:
            yield Chunk(made.transactions, labels, until_ms)
        number += last - first
        left -= last - first
        day += 1


def _earlier_labels(simulation: Simulation, span: Span) -> Iterator[pa.Table]:
    """The labels of days before the span that fall due in it; no label is later than the cap of the delays."""
    start_ms = simulation.day_start_ms(span.first_day)
    reach_days = int(np.ceil(simulation.settings.labels.cap_days * span.label_delay_scale)) + 1
    for day in range(max(0, span.first_day - reach_days), span.first_day):
        labels = simulation.day(day).labels(span.label_delay_scale)
        due = epoch_ms(labels["label_time"]) >= start_ms
        yield labels.filter(pa.array(due))
