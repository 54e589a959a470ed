"""What one model version consists of: the manifest, the files it vouches for, and how they are read back.

The layout is documented in docs/reference/model-artefact.md; FORMAT counts its incompatible changes.
"""

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Struct

from fraudstream.core import spec as specs
from fraudstream.core.census import SCORE, Monitor
from fraudstream.core.drift import Null
from fraudstream.core.features import FeatureSet
from fraudstream.core.watch import Bins, Reference
from fraudstream.core.windows import FloatArray
from fraudstream.errors import ModelError, SettingsError

# A window that sees a sudden drift: large enough for a hundred transactions in the rarest bin of the scores.
RECENT_TRANSACTIONS: Final = 10_000

Matrix = npt.NDArray[np.float32]

FORMAT: Final = 1
MODEL, BASELINE, GOLDEN, CARD, MANIFEST = "model.onnx", "baseline.json", "golden.npz", "card.md", "manifest.json"
FILES: Final = (MODEL, BASELINE, GOLDEN, CARD)


class FeaturesPart(Struct, frozen=True):
    """The feature list: its digest, the names in matrix order, and the whole declaration to compile it from."""

    digest: str
    names: tuple[str, ...]
    declared: dict[str, Any]


class TrainingPart(Struct, frozen=True):
    """Where the model comes from. Transactions in [`from_time`, `labels_known_until`) were fitted, as sampled."""

    source: str
    from_time: str
    until_time: str
    label_delay_ms: int
    labels_known_until: str
    transactions: int
    frauds: int
    legit_share: float
    estimator: str
    params: dict[str, Any]
    seed: int
    notes: tuple[str, ...] = ()


class ValidationPart(Struct, frozen=True):
    """Quality on the newest labelled stretch, by a model that was fitted on what was known before it."""

    from_time: str
    until_time: str
    fitted_until: str
    transactions: int
    frauds: int
    metrics: dict[str, float | None]
    slices: dict[str, dict[str, float | None]]


class ThresholdsPart(Struct, frozen=True):
    """Scores from which a transaction is reviewed or blocked; `block` is None where blocking is off."""

    review: float
    block: float | None
    alerts_per_day: float
    block_precision: float


class ParityPart(Struct, frozen=True):
    """How far the exported model is from the estimator it was exported from, on `rows` transactions."""

    rows: int
    max_abs_difference: float
    tolerance: float
    decision_flips: int


class Manifest(Struct, frozen=True):
    """The manifest of a version. `digest` is the sha256 of the manifest itself without this field."""

    format: int
    name: str
    version: int
    created_at: str
    features: FeaturesPart
    training: TrainingPart
    validation: ValidationPart
    thresholds: ThresholdsPart
    parity: ParityPart
    libraries: dict[str, str]
    files: dict[str, str]
    digest: str = ""

    def sealed(self) -> "Manifest":
        """The same with its digest."""
        return msgspec.structs.replace(self, digest=self._own_digest())

    def is_sealed(self) -> bool:
        """Whether it is, to the last digit, what was sealed."""
        return self.digest == self._own_digest()

    def _own_digest(self) -> str:
        return sha256(msgspec.json.encode(msgspec.structs.replace(self, digest=""), order="sorted"))


class FeatureBaseline(Struct, frozen=True):
    """One feature in the reference period and what it is like for legitimate transactions.

    Bin `i` of `counts` holds the values v with `edges[i-1] < v <= edges[i]`; the first and the last bin are open.
    `null_day` and `null_recent` tell what the stability index of a day, and of the last `Baseline.recent` transactions, is
    without drift; None (also in versions that were trained before it was learned): independence is assumed. `low` and `high`
    are the smallest and the largest value; None in versions that were trained before they were kept.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    legit_median: float
    null_day: Null | None = None
    null_recent: Null | None = None
    low: float | None = None
    high: float | None = None


class ScoreBaseline(Struct, frozen=True):
    """The scores in the reference period, binned as a feature is."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    null_day: Null | None = None
    null_recent: Null | None = None


class RateBaseline(Struct, frozen=True):
    """Something counted a day: mean and standard deviation over the days before the reference period."""

    mean: float
    sd: float


class Baseline(Struct, frozen=True):
    """What drift and reasons are measured against: the transactions of [`from_time`, `until_time`)."""

    from_time: str
    until_time: str
    transactions: int
    features: dict[str, FeatureBaseline]
    score: ScoreBaseline
    recent: int = RECENT_TRANSACTIONS
    daily: RateBaseline | None = None

    def monitor(self, features: FeatureSet) -> Monitor:
        """What commits count, so that it can be compared with this."""
        edges = {name: self.features[name].edges for name in features.names}
        ranges = {
            name: (of.low, of.high)
            for name, of in self.features.items()
            if features.spec.features[name].field and of.low is not None and of.high is not None
        }
        return Monitor(edges, self.score.edges, features.extra_counts, ranges)

    def reference(self, features: FeatureSet) -> Reference:
        """What the watch compares with. Features of the calendar are told, but never alarm: they drift with the clock."""
        bins = {
            name: Bins(of.counts, of.null_day, of.null_recent, told_only=bool(features.spec.features[name].calendar))
            for name, of in self.features.items()
        }
        bins[SCORE] = Bins(self.score.counts, self.score.null_day, self.score.null_recent)
        daily = None if self.daily is None else (self.daily.mean, self.daily.sd)
        return Reference(bins, self.recent, daily)


@dataclass(frozen=True)
class Golden:
    """Rows and the scores that the estimator itself gave them. `matrix` (n, features), `scores` (n,)."""

    matrix: Matrix
    scores: FloatArray

    def to_bytes(self) -> bytes:
        buffer = io.BytesIO()
        np.savez(buffer, matrix=self.matrix, scores=self.scores)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Golden":
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return cls(arrays["matrix"].astype(np.float32), arrays["scores"].astype(np.float64))


@dataclass(frozen=True)
class Artefact:
    """A version whose files were verified. `files` holds their bytes, so that what was verified is what is used."""

    manifest: Manifest
    files: Mapping[str, bytes]

    @property
    def label(self) -> str:
        return f"{self.manifest.name} version {self.manifest.version}"

    def feature_set(self) -> FeatureSet:
        """Compile the version's own feature list. Raises `ModelError` if it is not the one its digest names."""
        try:
            features = FeatureSet(specs.parse(self.manifest.features.declared))
        except SettingsError as error:
            raise ModelError(f"{self.label}: its feature list cannot be read: {error}") from error
        if features.digest != self.manifest.features.digest or features.names != self.manifest.features.names:
            raise ModelError(f"{self.label}: its feature list is not the one it was trained on; register it anew")
        return features

    def baseline(self) -> Baseline:
        """What drift and reasons are measured against."""
        try:
            return msgspec.json.decode(self.files[BASELINE], type=Baseline)
        except msgspec.MsgspecError as error:
            raise ModelError(f"{self.label}: {BASELINE} cannot be read: {error}") from error

    def golden(self) -> Golden:
        """Rows to replay before the model may decide."""
        try:
            return Golden.from_bytes(self.files[GOLDEN])
        except (ValueError, KeyError, OSError) as error:
            raise ModelError(f"{self.label}: {GOLDEN} cannot be read: {error}") from error


def declared_of(features: FeatureSet) -> dict[str, Any]:
    """A feature list as plain values that `core.spec.parse` reads back, texts included."""
    built: dict[str, Any] = msgspec.to_builtins(features.spec)
    return built


def decode_manifest(data: bytes, where: str) -> Manifest:
    """Read a manifest. Raises `ModelError` for another format, a missing field, or a changed character."""
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except msgspec.MsgspecError as error:
        raise ModelError(f"{where}: {MANIFEST} cannot be read: {error}") from error
    if manifest.format != FORMAT:
        raise ModelError(f"{where}: artefact format {manifest.format} is not {FORMAT}; train it anew")
    if not manifest.is_sealed():
        raise ModelError(f"{where}: {MANIFEST} was changed after it was written; train or restore the version")
    return manifest


def encode_manifest(manifest: Manifest) -> bytes:
    """Render a manifest as the file holds it."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def sha256(data: bytes) -> str:
    """SHA-256 as lower-case hex."""
    return hashlib.sha256(data).hexdigest()
