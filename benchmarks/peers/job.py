"""The job that every peer does, as a careful user would write it in plain Python: the same features, model and answers.

State is one value a card and one a terminal in Redis: a dictionary of tiles, packed. It is read, changed and written
back; there is no fence, no watermark and no stored decision, so a crash counts some transactions twice. That is less
than fraudstream does, in the peers' favour. Two ways to work: `one` event at a time, or `many` with one MGET, one call of
the model and one MSET for all of them.
"""

import os
import pickle
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import redis
import redis.asyncio

from fraudstream.codec import encode_alert, encode_decision
from fraudstream.core.features import FeatureSet
from fraudstream.core.windows import States
from fraudstream.events import Decision
from fraudstream.models.champion import OnnxModel
from fraudstream.models.registry import Registry

SIX_HOURS_MS: Final = 6 * 3_600_000
DAY_MS: Final = 86_400_000
# As many tiles as the windows need, and two days more for records that come late.
SHORT_CARD, LONG_CARD = 12, 32
SHORT_TERMINAL, LONG_TERMINAL = 65, 40

# tile number -> count, amount, largest amount (hundredths); of a terminal: count, frauds
Tiles = dict[int, list[int]]
pack = msgspec.msgpack.encode
unpack = msgspec.msgpack.Decoder(tuple[Tiles, Tiles]).decode
Answer = tuple[bytes, bytes, bytes | None]  # key, decision, alert


class Transaction(msgspec.Struct):
    transaction_id: str
    event_time: datetime
    card_id: str
    terminal_id: str
    amount: float


read = msgspec.json.Decoder(Transaction).decode


class Job:
    """Opened once a process; settings come from the environment that the runner sets."""

    def __init__(self) -> None:
        artefact = Registry(Path(os.environ["PEER_REGISTRY"])).load("fraud", "champion")
        features = artefact.feature_set()
        assert features.digest == FeatureSet.default().digest, "the job is written for the default features"
        self._model = OnnxModel(artefact, features)
        self._width = len(features.names)
        self._client = redis.Redis.from_url(os.environ["PEER_REDIS"])
        self._async_client = redis.asyncio.Redis.from_url(os.environ["PEER_REDIS"])
        self._prefix = os.environ["PEER_PREFIX"]
        self._score = lambda matrix: self._model.score(matrix).score
        if path := os.environ.get("PEER_ESTIMATOR"):
            from fraudstream.models.export import corrected  # noqa: PLC0415 - only here scikit-learn is needed

            fitted = pickle.loads(Path(path).read_bytes())
            # Not `fitted.score`: it sets up a thread pool at each call, which a batch does not notice and one row does.
            self._score = lambda matrix: corrected(fitted.estimator.predict_proba(matrix)[:, 1], fitted.legit_share)

    def one(self, value: bytes, partition: int, offset: int) -> Answer:
        """Decide one transaction: a round trip to read, one to write."""
        transaction = read(value)
        names = self._names(transaction)
        card, terminal = (unpack(packed) if packed else ({}, {}) for packed in self._client.mget(names))
        row = features_of(transaction, card, terminal)
        self._client.mset(dict(zip(names, (pack(card), pack(terminal)), strict=True)))
        return self._answers([transaction], [row], [(partition, offset)])[0]

    async def one_async(self, value: bytes, partition: int, offset: int) -> Answer:
        """`one` with the client that does not hold up the event loop."""
        transaction = read(value)
        names = self._names(transaction)
        card, terminal = (unpack(packed) if packed else ({}, {}) for packed in await self._async_client.mget(names))
        row = features_of(transaction, card, terminal)
        await self._async_client.mset(dict(zip(names, (pack(card), pack(terminal)), strict=True)))
        return self._answers([transaction], [row], [(partition, offset)])[0]

    def many(self, values: Sequence[bytes], places: Sequence[tuple[int, int]]) -> list[Answer]:
        """Decide transactions in order, with two round trips for all of them."""
        if not values:
            return []
        transactions = [read(value) for value in values]
        names = list(dict.fromkeys(name for t in transactions for name in self._names(t)))
        found = zip(names, self._client.mget(names), strict=True)
        state = {name: unpack(packed) if packed else ({}, {}) for name, packed in found}
        rows = []
        for transaction in transactions:
            card, terminal = self._names(transaction)
            rows.append(features_of(transaction, state[card], state[terminal]))
        self._client.mset({name: pack(tiles) for name, tiles in state.items()})
        return self._answers(transactions, rows, places)

    def _names(self, transaction: Transaction) -> tuple[str, str]:
        return f"{self._prefix}:c:{transaction.card_id}", f"{self._prefix}:t:{transaction.terminal_id}"

    def _answers(
        self, transactions: Sequence[Transaction], rows: Iterable[Any], places: Sequence[tuple[int, int]]
    ) -> list[Answer]:
        model = self._model
        matrix = np.array(list(rows), np.float32)
        answers: list[Answer] = []
        for at, score in enumerate(self._score(matrix).tolist()):
            transaction = transactions[at]
            block, review = score >= model.block_threshold, score >= model.review_threshold
            partition, offset = places[at]
            event_time_ms = round(transaction.event_time.timestamp() * 1000)
            decision = Decision(
                transaction_id=transaction.transaction_id,
                card_id=transaction.card_id,
                terminal_id=transaction.terminal_id,
                event_time_ms=event_time_ms,
                decided_at_ms=event_time_ms,
                amount=transaction.amount,
                action="block" if block else "review" if review else "allow",
                score=score,
                champion_score=score,
                threshold=model.block_threshold if block else model.review_threshold,
                model_name=model.name,
                model_version=model.version,
                features_digest=model.features_digest,
                features=matrix[at].astype("<f4").tobytes(),
                reasons=model.reasons(matrix[at : at + 1])[0] if review else (),
                partition=partition,
                offset=offset,
            )
            alert = encode_alert(decision) if review else None
            answers.append((transaction.card_id.encode(), encode_decision(decision), alert))
        return answers


def features_of(transaction: Transaction, card: tuple[Tiles, Tiles], terminal: tuple[Tiles, Tiles]) -> list[float]:
    """Add a transaction to its card's and terminal's tiles, and compute the default feature list."""
    at_ms, amount = round(transaction.event_time.timestamp() * 1000), transaction.amount
    minor = round(amount * 100)
    short, day = at_ms // SIX_HOURS_MS, at_ms // DAY_MS
    add(card[0], short, SHORT_CARD, minor)
    add(card[1], day, LONG_CARD, minor)
    count_1d, sum_1d, _ = total(card[0], short - 3, short)
    count_7d, sum_7d, max_7d = total(card[1], day - 6, day)
    count_30d, sum_30d, _ = total(card[1], day - 29, day)
    add(terminal[0], short, SHORT_TERMINAL, 0)
    add(terminal[1], day, LONG_TERMINAL, 0)
    # Seven days late, and only tiles that ended by then: labels are known for all of it.
    seen_1d, frauds_1d, _ = total(terminal[0], short - 32, short - 29)
    seen_7d, frauds_7d, _ = total(terminal[0], short - 56, short - 29)
    seen_30d, frauds_30d, _ = total(terminal[1], day - 37, day - 8)
    mean_30d = sum_30d / count_30d / 100.0
    weekday, hour = (day + 3) % 7, at_ms // 3_600_000 % 24
    return [
        amount, float(weekday >= 5), float(hour <= 6),
        count_1d, count_7d, count_30d,
        sum_1d / count_1d / 100.0, sum_7d / count_7d / 100.0, mean_30d,
        max_7d / 100.0,
        amount / mean_30d if mean_30d else 0.0, max_7d / 100.0 / mean_30d if mean_30d else 0.0,
        seen_1d, seen_7d, seen_30d,
        frauds_7d,
        frauds_1d / seen_1d if seen_1d else 0.0, frauds_7d / seen_7d if seen_7d else 0.0,
        frauds_30d / seen_30d if seen_30d else 0.0,
    ]  # fmt: skip


def add(tiles: Tiles, number: int, kept: int, minor: int) -> None:
    """Count a transaction in its tile; forget the tiles that no window reaches any more."""
    tile = tiles.get(number)
    if tile is None:
        tiles[number] = [1, minor, minor]
        if len(tiles) > kept:
            newest = max(tiles)
            for old in [n for n in tiles if n <= newest - kept]:
                del tiles[old]
    else:
        tile[0] += 1
        tile[1] += minor
        tile[2] = max(tile[2], minor)


def total(tiles: Tiles, first: int, last: int) -> tuple[int, int, int]:
    """Count, sum and maximum over the tiles `first` to `last`; there are fewer tiles than numbers as a rule."""
    count = amount = largest = 0
    for number, tile in tiles.items():
        if first <= number <= last:
            count += tile[0]
            amount += tile[1]
            largest = max(largest, tile[2])
    return count, amount, largest


def load(client: "redis.Redis", prefix: str, features: FeatureSet, rows: dict[str, dict[str, bytes]]) -> None:
    """Write the history of cards and terminals, as fraudstream's rows hold it, into the peers' form of state."""
    for entity in features.entities:
        of_entity = rows[entity.name]
        names, states = list(of_entity), States.from_rows(entity.layout, list(of_entity.values()))
        letter = entity.name[0]
        pipe = client.pipeline(transaction=False)
        for at, name in enumerate(names):
            pipe.set(f"{prefix}:{letter}:{name}", pack(tuple(_tiles(states, ring, at) for ring in (0, 1))))
        pipe.execute()


def _tiles(states: States, ring: int, at: int) -> Tiles:
    layout, columns = states.layout.rings[ring], states.columns[ring]
    head, tiles = int(states.heads[ring][at]), {}
    second = columns.get("frauds", columns.get("sum"))
    assert second is not None
    for number in range(head - layout.tiles + 1, head + 1):
        slot = number % layout.tiles
        if count := int(columns["count"][at, slot]):
            largest = int(columns["maximum"][at, slot]) if "maximum" in columns else 0
            tiles[number] = [count, int(second[at, slot]), largest]
    return tiles
