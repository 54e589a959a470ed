"""The model card: what a version is for, what it was made of, how good it is and where it ends, in Markdown."""

from collections.abc import Mapping

from fraudstream.core.features import DAY_MS
from fraudstream.models.artefact import Manifest
from fraudstream.models.quality import label_of

_INTENDED_USE = """\
Scores single card transactions with the probability that the card holder did not make them. Transactions at or above the
review threshold go to an analyst, those at or above the block threshold are declined. It is not made for decisions about
persons (credit, employment, insurance), nor for other kinds of payments than those it was trained on."""

_LIMITS = """\
Card and terminal features need history: for a card that is new, and in the first 30 days of a new system, the score leans
on the amount. Frauds of a kind that is not in the labels are found by chance only. Precision and recall depend on the share
of frauds, which changes; calibration ends where drift begins."""


def render(manifest: Manifest) -> str:
    """Write the card from the manifest; every figure in it is from there."""
    validation, thresholds = manifest.validation, manifest.thresholds
    block = "off: no score reached the precision asked for"
    if thresholds.block is not None:
        block = f"{thresholds.block:.6g}, for a precision of {thresholds.block_precision:g}"
    sections = [
        f"# Model card: {manifest.name}, version {manifest.version}",
        f"Created {manifest.created_at} by fraudstream {manifest.libraries.get('fraudstream', '?')}.",
        "## Intended use",
        _INTENDED_USE,
        "## Data",
        _list(_data(manifest)),
        "## Model",
        _list(_model(manifest)),
        "## Quality",
        (
            f"Held out: {validation.from_time} to {validation.until_time}, {validation.transactions:,} transactions, "
            f"{validation.frauds:,} frauds, scored by the same estimator fitted on transactions before "
            f"{validation.fitted_until} only, whose labels were known when the held-out stretch began, at the thresholds set "
            "on it. The version itself was fitted once more on everything known, the held-out stretch included; its later "
            "quality is `fraudstream evaluate`'s to tell."
        ),
        _table(validation.metrics),
        "By slice:",
        _slices(validation.slices),
        "## Thresholds",
        _list({"Review": f"{thresholds.review:.6g}, for {thresholds.alerts_per_day:g} alerts a day", "Block": block}),
        "## Limits",
        _LIMITS,
        "## Libraries",
        _list(dict(sorted(manifest.libraries.items()))),
    ]
    return "\n\n".join(sections) + "\n"


def _data(manifest: Manifest) -> Mapping[str, str]:
    training = manifest.training
    return {
        "Source": training.source,
        "Range": f"{training.from_time} to {training.until_time} (not included)",
        "Labels": f"known {training.label_delay_ms / DAY_MS:g} days after the transaction; transactions from "
        f"{training.labels_known_until} on were not fitted, because their labels were not yet known",
        "Fitted": f"{training.transactions:,} transactions, {training.frauds:,} frauds; "
        f"{training.legit_share:.0%} of the legitimate ones were taken, and the scores corrected for it",
        **{f"Note {at}": note for at, note in enumerate(training.notes, start=1)},
    }


def _model(manifest: Manifest) -> Mapping[str, str]:
    training, parity, features = manifest.training, manifest.parity, manifest.features
    return {
        "Estimator": f"`{training.estimator}`",
        "Parameters": f"`{training.params}`, seed {training.seed}",
        "Features": f"{len(features.names)} (digest `{features.digest[:16]}`): "
        + ", ".join(f"`{name}`" for name in features.names),
        "Export": f"ONNX; differs from the estimator by at most {parity.max_abs_difference:.2g} on {parity.rows:,} "
        f"transactions (tolerance {parity.tolerance:g}), {parity.decision_flips} decisions differ",
        "Reasons": "by occlusion against the medians of legitimate transactions; they tell what the score leans on, not "
        "what caused the fraud",
    }


def figure(value: float | None) -> str:
    """A metric as it is printed: whole numbers as such, others with four decimals, what cannot be computed as n/a."""
    if value is None or value != value:  # noqa: PLR0124 - nan is the one number that is not itself
        return "n/a"
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) >= 1 else f"{value:.4f}"


def _list(entries: Mapping[str, str]) -> str:
    return "\n".join(f"- {key}: {value}" for key, value in entries.items())


def _table(metrics: Mapping[str, float | None]) -> str:
    rows = [f"| {label_of(name)} | {figure(value)} |" for name, value in metrics.items()]
    return "\n".join(["| metric | value |", "|---|---|", *rows])


def _slices(slices: Mapping[str, Mapping[str, float | None]]) -> str:
    columns = list(next(iter(slices.values()), {}))
    head = [
        "| slice | " + " | ".join(label_of(name) for name in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    return "\n".join(
        [*head, *(f"| {name} | " + " | ".join(figure(row[c]) for c in columns) + " |" for name, row in slices.items())]
    )
