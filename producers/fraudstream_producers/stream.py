"""A simulation on its way to Kafka: which part of it, how fast, at what times, with which faults."""

import time
from collections.abc import Iterator

import msgspec
from msgspec import Struct

from fraudstream_producers.batches import Batch, Pace, Timestamps, batches
from fraudstream_producers.contract import Encoder, TimeFormat
from fraudstream_producers.errors import UsageError
from fraudstream_producers.interleave import Faults, interleave
from fraudstream_producers.live import EventClock, Span, chunks
from fraudstream_producers.simulation import Simulation


class Stream(Struct, frozen=True, kw_only=True):
    """How a simulation is streamed.

    `rate` is in transactions per second of wall time; None means as fast as possible or, with `speed_up`, as event
    time asks: that many seconds of it per second of wall time.
    """

    rate: float | None = 100.0
    speed_up: float | None = None
    seconds: float | None = None
    span: Span = Span()
    faults: Faults = Faults()
    drain_labels: bool = False
    timestamps: Timestamps = "event"
    time_format: TimeFormat = "rfc3339"

    def batches(self, simulation: Simulation) -> Iterator[Batch]:
        """The records, for `run.produce`; endless unless the span ends."""
        plans = interleave(chunks(simulation, self.span), self.faults, drain=self.drain_labels)
        pace = Pace(rate=self.rate, speed=self.speed_up)
        return batches(plans, Encoder(self.time_format), pace, self.timestamps)

    def total(self, simulation: Simulation) -> int | None:
        """About how many transactions there will be; None where nothing but time will tell."""
        ends: list[float] = []
        if self.span.count is not None:
            ends.append(self.span.count)
        if self.span.days is not None:
            ends.append(self.span.days * simulation.transactions_per_day)
        if self.seconds is not None and self.rate is not None:
            ends.append(self.seconds * self.rate)
        return round(min(ends)) if ends else None

    def timed(self, simulation: Simulation, *, now: bool) -> "Stream":
        """The same stream with its event times settled.

        They are those of the simulation, unless `rate` and `speed_up` are both given, or `rate` and `now`: then they
        are counted out evenly, from now or from the span's first day. With `now` and no `rate` the first day is taken
        to be today, and what should have happened before now is left out.

        Raises
        ------
        UsageError
            Labels of days before the span are wanted, but event times are counted out, so they have none.
        """
        start_ms = int(time.time() * 1000) if now else simulation.day_start_ms(self.span.first_day)
        if self.rate is not None and (now or self.speed_up is not None):
            if self.span.earlier_labels:
                raise UsageError(
                    "--earlier-labels needs the simulation's own event times: --rate or --speed-up, no --start now"
                )
            clock = EventClock(start_ms, 1000 * (self.speed_up or 1) / self.rate)
            return msgspec.structs.replace(self, span=msgspec.structs.replace(self.span, event_clock=clock))
        if now:
            return msgspec.structs.replace(self, span=msgspec.structs.replace(self.span, from_ms=start_ms))
        return self
