"""The two measurements of a running system: how much it does at most, and how late its answers are at a fixed rate."""

import itertools
import multiprocessing
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from fraudstream.benchmark import records as streams
from fraudstream.benchmark.outputs import Acknowledged, LatencyReader, read_ids
from fraudstream.benchmark.probe import Memory
from fraudstream.benchmark.records import Records
from fraudstream.errors import FraudstreamError

# Processor time and rate count from here on: before it, the first batches meet cold caches and connections.
WARM_SHARE: Final = 0.1
LOOK_S: Final = 0.02
SLICES: Final = 10
START_S: Final = 1.0  # from setting the schedule's zero to it: what is left to do takes milliseconds
STANDSTILL_S_MAX: Final = 60.0
DRAIN_S_MAX: Final = 60.0


class MeasureError(FraudstreamError):
    """What was measured did not do its job: there is no figure."""


class Measured(Protocol):
    """What is measured: ours, or another program that does the same job."""

    def cpu_s(self) -> dict[str, float]: ...
    def pids(self) -> dict[str, int]: ...
    def check(self) -> None:
        """Raises if a process ended."""


class Outcome(dict[str, Any]):
    """The figures of a throughput run as plain data, and beside them what the output topics hold."""

    decided: list[str]
    alerted: list[str]


def throughput(
    system: Measured,
    bootstrap_servers: str,
    topics: Mapping[str, str],
    count: int,
    *,
    by_reading: bool = False,
    began_s: float | None = None,
    base: int = 0,
) -> Outcome:
    """Watch a started system work off `count` records that its input topic holds already.

    Rate and processor time are taken from the moment a tenth was decided to the acknowledgement of the last decision.
    `base` decisions were in the topic before; `began_s` (monotonic) is when the workers were started. Raises
    `MeasureError` if it stands still, or if decisions are missing or double.
    """
    output = Acknowledged(bootstrap_servers, topics["decisions"], by_reading=by_reading)
    memory = Memory(system.pids())
    series: list[tuple[float, int]] = []
    first_s: float | None = None
    warm: tuple[float, int, dict[str, float]] | None = None
    try:
        moved_s = time.monotonic()
        while True:
            cpu, done, now_s = system.cpu_s(), output.count() - base, time.monotonic()
            if done and first_s is None:
                first_s = now_s
            if warm is None and done >= WARM_SHARE * count:
                warm = (now_s, done, cpu)
            if not series or done > series[-1][1]:
                moved_s = now_s
                series.append((now_s, done))
            if done >= count:
                break
            if now_s - moved_s > STANDSTILL_S_MAX:
                raise MeasureError(f"no decision for {STANDSTILL_S_MAX:g} s: {done:,} of {count:,} are there")
            system.check()
            time.sleep(LOOK_S)
    finally:
        memory.stop()
        output.close()
    assert warm is not None
    took_s, decided = now_s - warm[0], done - warm[1]
    found = Outcome(
        transactions=count,
        per_s=round(decided / took_s),
        slices_per_s=_slices([point for point in series if point[0] >= warm[0]]),
        cpu_us={name: round(1e6 * (spent - warm[2][name]) / decided, 2) for name, spent in cpu.items()},
        rss_mb=memory.summary(),
        memory={name: _thinned(seen) for name, seen in memory.samples.items()},
    )
    if began_s is not None and first_s is not None:
        found["first_decision_s"] = round(first_s - began_s, 2)
    found.decided, decision_bytes = read_ids(bootstrap_servers, topics["decisions"], base + count)
    found.alerted, alert_bytes = read_ids(bootstrap_servers, topics["alerts"], 1_000_000_000, timeout_s=2.0)
    found["answer_bytes"] = round((decision_bytes + alert_bytes) / (base + count))
    found["decisions"] = len(set(found.decided)) - base
    found["alerts"] = len(set(found.alerted))
    if found["decisions"] != count:
        raise MeasureError(f"{found['decisions']:,} distinct decisions for {count:,} transactions")
    return found


def latency(
    bootstrap_servers: str,
    topics: Mapping[str, str],
    live: Path,
    *,
    faster: int,
    first: int,
    rate: float,
    seconds: float,
    seed: int,
    seen: int,
    cpu_s: Callable[[], dict[str, float]],
) -> dict[str, Any]:
    """Send at a fixed rate, open loop, to a system that has nothing to do, and read its answers.

    Records are those from number `first` of the file `live` on; `seen` decisions are in the topic already. Raises
    `MeasureError` if an answer is missing after a minute.
    """
    count, lead = round(rate * seconds), lead_records(rate)
    records: Records = streams.read(live, first + lead, count, faster=faster)
    reader = LatencyReader(bootstrap_servers, topics["decisions"], topics["alerts"])
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    options = {
        "bootstrap_servers": bootstrap_servers, "topic": topics["transactions"], "file": str(live), "faster": faster,
        "first": first,
        "lead": lead, "count": count, "rate": rate, "seed": seed,
    }  # fmt: skip
    sender = context.Process(target=streams.send_open_loop, args=(options, theirs), daemon=True)
    try:
        _wait(lambda: reader.seen >= seen, "the decisions of before are not read")
        sender.start()
        due_s = streams.schedule_s(rate, count, seed)
        _told(ours, sender, streams.FLUSH_S_MAX)
        zero_s = time.time() + START_S
        # Before the first is sent, or an answer could come that nobody expects yet.
        reader.expect(dict(zip(records.ids, (zero_s + due_s).tolist(), strict=True)))
        ours.send(zero_s)
        cpu = cpu_s()
        late_s = _told(ours, sender, seconds + streams.FLUSH_S_MAX)
        _wait(lambda: reader.waiting == 0, "decisions are missing")
        spent = {name: round(1e6 * (now - cpu[name]) / count, 2) for name, now in cpu_s().items()}
    finally:
        if sender.is_alive():
            sender.terminate()
        reader.close()
    return {
        "rate": rate,
        "seconds": seconds,
        "transactions": count,
        "decision_ms": reader.decisions.summary(),
        "alert_ms": reader.alerts.summary(),
        "curve": reader.decisions.curve(),
        "cpu_us": spent,
        "sender_late_ms_max": round(1000 * late_s, 2),
    }


def lead_records(rate: float) -> int:
    """How many records a run at this rate sends before its schedule begins."""
    return round(rate * streams.LEAD_S)


def slope_mb_per_million(samples: list[tuple[float, int]], transactions: int) -> float:
    """How memory grows with transactions over the second half of a run, by least squares, in MB per million.

    Examples
    --------
    >>> slope_mb_per_million([(0, 0), (1, 100_000_000), (2, 110_000_000), (3, 120_000_000)], 3_000_000)
    10.0
    """
    half = samples[len(samples) // 2 :] if len(samples) > 3 else samples
    if len(half) < 2:
        return 0.0
    at, size = np.array(half, np.float64).T
    per_s = float(np.polyfit(at - at[0], size, 1)[0])
    took_s = samples[-1][0] - samples[0][0]
    return round(per_s * took_s / transactions, 2)


def _slices(series: list[tuple[float, int]]) -> list[int]:
    """The rate in each tenth of the measured stretch: how steady it is."""
    if len(series) < 2:
        return []
    at, done = np.array(series, np.float64).T
    edges = np.interp(np.linspace(done[0], done[-1], SLICES + 1), done, at)
    step = (done[-1] - done[0]) / SLICES
    return [round(step / max(after - before, 1e-9)) for before, after in itertools.pairwise(edges)]


def _thinned(samples: list[tuple[float, int]]) -> list[tuple[float, int]]:
    """At most two hundred samples, for a plot."""
    step = max(1, len(samples) // 200)
    return samples[::step]


def _wait(done: Callable[[], bool], otherwise: str) -> None:
    deadline_s = time.monotonic() + DRAIN_S_MAX
    while not done():
        if time.monotonic() > deadline_s:
            raise MeasureError(f"{otherwise} after {DRAIN_S_MAX:g} s")
        time.sleep(LOOK_S)


def _told(pipe: Any, sender: Any, timeout_s: float) -> float:
    deadline_s = time.monotonic() + timeout_s
    while not pipe.poll(0.2):
        if not sender.is_alive() or time.monotonic() > deadline_s:
            raise MeasureError("the sender ended or hangs; its error is above")
    return float(pipe.recv())
