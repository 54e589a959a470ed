"""Every feature against its definition over the plain list of transactions."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st

from fraudstream.core import spec as specs
from fraudstream.core.features import FLOAT32_MAX, FeatureSet, key_of
from fraudstream.core.windows import IntArray, States
from fraudstream.events import Transaction
from tests.support.feature_lists import (
    START_MS,
    Seen,
    by_definition,
    documents,
    ill_conditioned,
    key_by_definition,
    streams,
)


class Memory:
    """The rows of every key, kept between batches as bytes, as a store keeps them."""

    def __init__(self, features: FeatureSet) -> None:
        self.features = features
        self.rows: dict[tuple[str, str], bytes] = {}

    def matrix(self, batch: Sequence[Seen]) -> npt.NDArray[np.float32]:
        """Observe a batch and return its features."""
        columns = self.features.columns([seen.transaction for seen in batch])
        frauds = np.array([seen.fraud for seen in batch], np.int64)
        observed = {}
        for entity in self.features.entities:
            names = sorted({key for key in columns.keys[entity.name] if key is not None})
            states = States.from_rows(entity.layout, [self.rows.get((entity.name, name)) for name in names])
            key: IntArray = np.array([-1 if k is None else names.index(k) for k in columns.keys[entity.name]], np.int64)
            observed[entity.name] = self.features.observe(entity, states, key, columns, frauds)
            self.rows.update({(entity.name, name): row for name, row in zip(names, states.to_rows(), strict=True)})
        return self.features.matrix(columns, observed)


@settings(max_examples=200)
@given(documents(), streams(), st.data())
def test_every_feature_of_every_transaction_is_its_definition(
    document: dict[str, Any], stream: list[Seen], data: st.DataObject
) -> None:
    """At every prefix, and however the stream is cut into batches, each number is that of the plain list."""
    features = FeatureSet(specs.parse(document))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=3)))
    memory = Memory(features)
    parts = [memory.matrix(stream[a:b]) for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    matrix = np.concatenate(parts)
    assert matrix.shape == (len(stream), len(features.names))
    for at, expected in enumerate(by_definition(features.spec, stream)):
        for column, name in enumerate(features.names):
            feature = features.spec.features[name]
            if not ill_conditioned(expected, feature):
                # float32, and a standard deviation from 64-bit sums of squares of amounts up to 50,000.00.
                tolerance = max(1e-5 * abs(expected[name]), 1e-3 if feature.aggregate == "std" else 1e-5)
                loose = bool(feature.ratio or feature.deviation)
                difference = abs(float(matrix[at, column]) - expected[name])
                assert difference <= (max(tolerance, 1e-2 * abs(expected[name]), 1e-2) if loose else tolerance), (
                    at,
                    name,
                )
    whole = Memory(features)
    assert np.array_equal(whole.matrix(stream), matrix)
    assert whole.rows == memory.rows


@given(streams())
def test_keys_are_text_or_integers(stream: list[Seen]) -> None:
    """An own field is a key if it is text of at most 128 characters or an integer; else there is no history."""
    for seen in stream:
        assert key_of(seen.transaction, "shop") == key_by_definition(seen.transaction, "shop")


@given(st.one_of(st.floats(), st.integers(), st.none(), st.text(), st.lists(st.integers()), st.just(10**400)))
def test_no_value_of_an_own_field_makes_a_number_a_model_cannot_take(value: Any) -> None:
    """Whatever stands in a numeric field, and in a ratio under it, the matrix is finite."""
    features = FeatureSet(
        specs.parse(
            {
                "features": {
                    "x": {"field": "x"},
                    "amount": {"field": "amount"},
                    "ratio": {"ratio": ("amount", "x")},
                    "again": {"ratio": ("ratio", "x")},
                    "deviation": {"deviation": ("x", "amount", "x")},
                }
            }
        )
    )
    transaction = Transaction("t", START_MS, "c", "w", 12.34, 1234, extra={"x": value})
    matrix = features.matrix(features.columns([transaction]), {})
    assert np.isfinite(matrix).all()
    if isinstance(value, int | float) and abs(value) < FLOAT32_MAX:
        assert matrix[0, 0] == np.float32(value)
