"""History through the core: the same `FeatureSet` that serves live, fed with a file instead of a topic.

What a transaction sees here is what it would have seen live: everything before it, and of the labels only those that
the delay of a fraud window lets through.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from fraudstream.codec.times import read_time
from fraudstream.core.features import Columns, FeatureSet
from fraudstream.core.spec import KEY_LENGTH_MAX, TOPIC_KEY_FIELD
from fraudstream.core.windows import BoolArray, FloatArray, IntArray, Observed, States
from fraudstream.errors import SettingsError
from fraudstream.models.artefact import Matrix
from fraudstream.models.history_file import Chunk, History

OnRows = Callable[[int, int], None]
"""Told how many rows of how many are done."""


@dataclass(frozen=True)
class Replayed:
    """`n` transactions with their features: `matrix` is (n, features); `cards` number the cards by first appearance."""

    ids: pa.Array
    times_ms: IntArray
    cards: IntArray
    amounts: FloatArray
    frauds: BoolArray
    matrix: Matrix


OnFrauds = Callable[[IntArray, IntArray], None]
"""Told the times and the cards of frauds."""


def check_label_delay(features: FeatureSet, label_delay_ms: int) -> None:
    """Raise `SettingsError` if a fraud window ends so late that it holds verdicts which are not known by then."""
    shortest = features.labels_delay_ms
    if shortest is not None and shortest < label_delay_ms:
        raise SettingsError(
            f"the feature list has a fraud window that ends {shortest / 3_600_000:g} h before the transaction, but "
            f"labels come {label_delay_ms / 3_600_000:g} h late: it would look into the future; lengthen its delay"
        )


def replay(
    features: FeatureSet,
    history: History,
    *,
    from_ms: int | None = None,
    until_ms: int | None = None,
    cold: bool = False,
    on_rows: OnRows | None = None,
    on_earlier_frauds: OnFrauds | None = None,
) -> Iterator[Replayed]:
    """Feed a file to the core and yield the transactions in [`from_ms`, `until_ms`) with their features.

    Transactions before `from_ms` only build up the state, or, with `cold`, not even that; `on_earlier_frauds` is told the
    frauds among them in either case.
    """
    replaying = Replaying(features)
    done = 0
    for chunk in history.chunks(until_ms):
        start = 0 if from_ms is None else int(np.searchsorted(chunk.times_ms, from_ms))
        if start:
            earlier = chunk.part(0, start)
            if not cold:
                replaying.observe(earlier)
            if on_earlier_frauds:
                on_earlier_frauds(earlier.times_ms[earlier.frauds], replaying.cards(earlier)[earlier.frauds])
        if start < len(chunk):
            yield replaying.feed(chunk.part(start, len(chunk)))
        done += len(chunk)
        if on_rows:
            on_rows(done, history.rows)
    if on_rows:
        on_rows(done, done)  # the rest of the file lies behind `until_ms`


def moment_ms(text: str) -> int:
    """A date (its midnight, UTC) or an RFC 3339 time in ms since the epoch. Raises `SettingsError` for anything else.

    >>> moment_ms("2018-07-01") == moment_ms("2018-07-01T02:00:00+02:00")
    True
    """
    found = read_time(f"{text}T00:00:00Z" if len(text) == len("2018-07-01") else text)
    if found is None:
        raise SettingsError(f"{text!r} is not a time: write a date, such as 2018-07-01, or 2018-07-01T12:00:00Z")
    return found


def warm_states(
    features: FeatureSet, path: Path, until: str | int | None = None, *, on_rows: OnRows | None = None
) -> dict[str, dict[str, bytes]]:
    """The rows of every key after a file's transactions before `until`, by entity: what `StateStore.load_rows` takes.

    `until` is a date, an RFC 3339 time or ms since the epoch; None takes the whole file. All frauds of the file are
    counted, also those whose label would come later than `until`: their transactions have no stored decision, so that no
    label could add them later, and no window reads them before its delay has passed.
    """
    until_ms = moment_ms(until) if isinstance(until, str) else until
    history = History(path, features, labelled=False)
    replaying = Replaying(features)
    done = 0
    for chunk in history.chunks(until_ms):
        replaying.observe(chunk)
        done += len(chunk)
        if on_rows:
            on_rows(done, history.rows)
    return replaying.rows()


class Numbers:
    """Numbers for texts, in order of first appearance."""

    def __init__(self, field: str) -> None:
        self._field = field
        self._numbers: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def names(self) -> list[str]:
        return list(self._numbers)

    def of(self, texts: pa.Array) -> IntArray:
        """The number of each text; -1 for null and for a text that is no key."""
        encoded = texts.dictionary_encode()
        numbers = self._numbers
        codes = np.empty(len(encoded.dictionary) + 1, np.int64)
        codes[-1] = -1
        for at, text in enumerate(encoded.dictionary.to_pylist()):
            code = numbers.get(text)
            if code is None:
                code = self._new(text)
            codes[at] = code
        found: IntArray = codes[encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)]
        return found

    def _new(self, text: str) -> int:
        if 0 < len(text) <= KEY_LENGTH_MAX:
            return self._numbers.setdefault(text, len(self._numbers))
        if self._field in ("card_id", "terminal_id"):
            raise SettingsError(f"column {self._field}: {text[:20]!r} has {len(text)} characters, not 1 to 128")
        return -1


class Replaying:
    """The state of a replay: rows of all keys seen so far, in memory."""

    def __init__(self, features: FeatureSet) -> None:
        self._features = features
        self._numbers = {field: Numbers(field) for field in (TOPIC_KEY_FIELD, *(e.field for e in features.entities))}
        self._states = {entity.name: States(entity.layout, 0) for entity in features.entities}

    def observe(self, chunk: Chunk) -> None:
        """Add a chunk to the state."""
        self._observe(chunk)

    def feed(self, chunk: Chunk) -> Replayed:
        """Add a chunk to the state and compute its features."""
        columns, observed, codes = self._observe(chunk)
        matrix = self._features.matrix(columns, observed)
        return Replayed(chunk.ids, chunk.times_ms, codes[TOPIC_KEY_FIELD], chunk.amounts, chunk.frauds, matrix)

    def cards(self, chunk: Chunk) -> IntArray:
        """The number of each transaction's card."""
        return self._numbers[TOPIC_KEY_FIELD].of(chunk.keys[TOPIC_KEY_FIELD])

    def rows(self) -> dict[str, dict[str, bytes]]:
        """The rows as the state store keeps them, by entity and key."""
        rows = {}
        for entity in self._features.entities:
            names = self._numbers[entity.field].names
            rows[entity.name] = dict(zip(names, self._states[entity.name].to_rows(), strict=False))
        return rows

    def _observe(self, chunk: Chunk) -> tuple[Columns, Mapping[str, Observed], Mapping[str, IntArray]]:
        columns = Columns(chunk.times_ms, chunk.amounts, chunk.amounts_minor, keys={}, numbers=chunk.numbers)
        codes = {field: numbers.of(chunk.keys[field]) for field, numbers in self._numbers.items()}
        frauds = chunk.frauds.astype(np.int64)
        observed = {}
        for entity in self._features.entities:
            states = self._states[entity.name]
            keys = len(self._numbers[entity.field])
            if keys > len(states):
                states.grow(max(keys, 2 * len(states)))
            observed[entity.name] = self._features.observe(entity, states, codes[entity.field], columns, frauds)
        return columns, observed, codes
