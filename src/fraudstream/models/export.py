"""Estimator to ONNX, and the proof that both give the same answers.

The exported graph is the whole scorer: input `features` (n, width) float32, output `score` (n,) float32, the probability
of fraud, correction for sampling included. Any runtime that reads ONNX can decide with it, without this package.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import convert_sklearn, update_registered_converter
from skl2onnx.common.data_types import FloatTensorType
from skl2onnx.common.exceptions import MissingConverter, MissingShapeCalculator
from skl2onnx.common.shape_calculator import calculate_linear_classifier_output_shapes
from sklearn.ensemble import HistGradientBoostingClassifier

from fraudstream.core.windows import FloatArray
from fraudstream.errors import ModelError
from fraudstream.models.artefact import Matrix, ParityPart
from fraudstream.models.champion import INPUT, OUTPUT, OnnxScorer

# float32 sums over some hundred trees differ from float64 by about 1e-6; a split that falls to the other side of a
# threshold moves a score by 1e-3 and more. Between the two lies what is rounding and what is another model.
PARITY_TOLERANCE: Final = 1e-4
# Within the tolerance a score next to a threshold may cross it. More than one row in a thousand doing so means that many
# scores sit on the threshold: such a model decides by rounding.
FLIPS_SHARE_MAX: Final = 1e-3
# ONNX features that onnxruntime 1.18, the oldest one we take, knows.
OPSET: Final = {"": 18, "ai.onnx.ml": 3}
_ML: Final = "ai.onnx.ml"


def to_onnx(estimator: Any, width: int, *, legit_share: float = 1.0) -> bytes:
    """Export a fitted classifier.

    Parameters
    ----------
    estimator
        A fitted scikit-learn classifier (or pipeline) of two classes, `True` the second.
    width
        Number of features.
    legit_share
        The share of legitimate transactions it was fitted on, in (0, 1]; its probabilities are corrected for it.

    Raises
    ------
    ModelError
        If there is no exporter for it.
    """
    kind = type(estimator).__name__
    try:
        graph = convert_sklearn(
            estimator,
            initial_types=[(INPUT, FloatTensorType([None, width]))],
            target_opset=OPSET,
            options={"zipmap": False},
        )
    except (MissingConverter, MissingShapeCalculator) as error:
        raise ModelError(f"{kind} has no ONNX exporter: choose another estimator ({_one_line(error)})") from error
    except Exception as error:  # converters fail in their own ways; all mean that there is no export
        raise ModelError(f"{kind} cannot be exported to ONNX: {_one_line(error)}") from error
    if len(graph.graph.output) != 2:
        raise ModelError(f"{kind} exports {len(graph.graph.output)} outputs, not label and probabilities")
    return bytes(_scorer(graph, legit_share).SerializeToString())


def _scorer(model: Any, legit_share: float) -> Any:
    """Reduce (label, probabilities) to the corrected probability of the second class."""
    graph = model.graph
    probabilities = graph.output[1].name
    graph.initializer.append(numpy_helper.from_array(np.array(1, np.int64), "fraudstream_fraud_class"))
    sampled = OUTPUT if legit_share >= 1.0 else "fraudstream_sampled_score"
    graph.node.append(helper.make_node("Gather", [probabilities, "fraudstream_fraud_class"], [sampled], axis=1))
    if legit_share < 1.0:
        # p' = p r / (p r + 1 - p): the odds fall by the share r of legitimate rows that were kept.
        graph.initializer.append(numpy_helper.from_array(np.array(legit_share, np.float32), "fraudstream_legit_share"))
        graph.initializer.append(numpy_helper.from_array(np.array(1.0, np.float32), "fraudstream_one"))
        graph.node.extend(
            [
                helper.make_node("Mul", [sampled, "fraudstream_legit_share"], ["fraudstream_fraud_mass"]),
                helper.make_node("Sub", ["fraudstream_one", sampled], ["fraudstream_legit_mass"]),
                helper.make_node("Add", ["fraudstream_fraud_mass", "fraudstream_legit_mass"], ["fraudstream_mass"]),
                helper.make_node("Div", ["fraudstream_fraud_mass", "fraudstream_mass"], [OUTPUT]),
            ]
        )
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [None]))
    _prune(graph)
    # The same model is the same bytes: the exporter's random name goes.
    graph.name, graph.doc_string, model.doc_string = "fraudstream", "", ""
    onnx.checker.check_model(model)
    return model


def _prune(graph: Any) -> None:
    """Drop the nodes and constants that only the label needed."""
    wanted = {output.name for output in graph.output}
    kept = []
    for node in reversed(graph.node):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            kept.append(node)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    constants = [constant for constant in graph.initializer if constant.name in wanted]
    del graph.initializer[:]
    graph.initializer.extend(constants)


def corrected(scores: FloatArray, legit_share: float) -> FloatArray:
    """Probabilities of a model that saw all frauds and `legit_share` of the rest, as they are for all transactions.

    >>> corrected(np.array([0.5]), 0.1).round(4)
    array([0.0909])
    """
    return scores * legit_share / (scores * legit_share + (1.0 - scores))


def check_parity(model: bytes, matrix: Matrix, expected: FloatArray, thresholds: Sequence[float]) -> ParityPart:
    """Compare an export with the estimator's own scores `expected` (n,) of the rows of `matrix` (n, features).

    Raises
    ------
    ModelError
        If a score differs by more than the tolerance, if more than a thousandth of the rows fall to the other side of a
        threshold, or if the export cannot be run at all.
    """
    try:
        scores = OnnxScorer(model, matrix.shape[1])(matrix)
    except ValueError as error:
        raise ModelError(f"the exported model cannot be loaded: {error}") from error
    differences = np.abs(scores - expected)
    worst = float(np.max(differences, initial=0.0))
    flips = sum(int(np.count_nonzero((scores >= t) != (expected >= t))) for t in thresholds)
    if not worst <= PARITY_TOLERANCE:
        beyond = int(np.count_nonzero(~(differences <= PARITY_TOLERANCE)))
        raise ModelError(
            f"the exported model differs from the estimator by up to {worst:.2g} ({beyond} of {len(expected)} rows "
            f"beyond {PARITY_TOLERANCE:g}, {flips} other decisions): not registered; choose another estimator"
        )
    if flips > FLIPS_SHARE_MAX * len(expected):
        raise ModelError(
            f"the exported model decides {flips} of {len(expected)} rows otherwise than the estimator, though its scores "
            f"differ by {worst:.2g} at most: not registered; too many scores lie on a threshold, choose another estimator"
        )
    return ParityPart(len(expected), worst, PARITY_TOLERANCE, flips)


# --- histogram gradient boosting ---------------------------------------------------------------------------------------
# skl2onnx 1.20 hands numpy booleans of scikit-learn 1.9's trees to protobuf, which refuses them. This converter also
# rounds thresholds down to float32, which makes each split exact for float32 features: x <= t just if x <= floor32(t).


def _convert_hist_gradient_boosting(scope: Any, operator: Any, container: Any) -> None:
    estimator = operator.raw_operator
    if len(estimator.classes_) != 2:
        raise ValueError("two classes are needed")
    attributes: dict[str, Any] = _tree_attributes([trees[0].nodes for trees in estimator._predictors])
    attributes["base_values"] = [float(np.ravel(estimator._baseline_prediction)[0])]
    attributes |= {"n_targets": 1, "aggregate_function": "SUM", "post_transform": "NONE"}
    label, probabilities = (output.full_name for output in operator.outputs)
    margin, fraud = scope.get_unique_variable_name("margin"), scope.get_unique_variable_name("fraud")
    legit, one = scope.get_unique_variable_name("legit"), scope.get_unique_variable_name("one")
    container.add_initializer(one, TensorProto.FLOAT, [], [1.0])
    name = scope.get_unique_operator_name("trees")
    container.add_node(
        "TreeEnsembleRegressor",
        [operator.inputs[0].full_name],
        [margin],
        op_domain=_ML,
        op_version=3,
        name=name,
        **attributes,
    )
    for op_type, inputs, output, extra in (
        ("Sigmoid", [margin], fraud, {}),
        ("Sub", [one, fraud], legit, {}),
        ("Concat", [legit, fraud], probabilities, {"axis": 1}),
        ("ArgMax", [probabilities], label, {"axis": 1, "keepdims": 0}),
    ):
        container.add_node(
            op_type, inputs, output, name=scope.get_unique_operator_name(op_type), op_version=13, **extra
        )


def _tree_attributes(trees: Sequence[Any]) -> dict[str, Any]:
    """The attributes of ONNX's TreeEnsembleRegressor for the node tables of scikit-learn's histogram trees."""
    table: dict[str, list[Any]] = {}
    names = ("treeids", "nodeids", "featureids", "values", "modes", "truenodeids", "falsenodeids")
    for name in (*names, "missing_value_tracks_true"):
        table[f"nodes_{name}"] = []
    for name in ("treeids", "nodeids", "ids", "weights"):
        table[f"target_{name}"] = []
    for tree, nodes in enumerate(trees):
        if nodes["is_categorical"].any():
            raise ValueError("categorical splits have no counterpart in ONNX")
        leaf = nodes["is_leaf"].astype(bool)
        n = len(nodes)
        table["nodes_treeids"] += [tree] * n
        table["nodes_nodeids"] += range(n)
        table["nodes_featureids"] += np.where(leaf, 0, nodes["feature_idx"]).astype(int).tolist()
        table["nodes_values"] += np.where(leaf, 0.0, floor32(nodes["num_threshold"])).tolist()
        table["nodes_modes"] += ["LEAF" if is_leaf else "BRANCH_LEQ" for is_leaf in leaf.tolist()]
        table["nodes_truenodeids"] += np.where(leaf, 0, nodes["left"]).astype(int).tolist()
        table["nodes_falsenodeids"] += np.where(leaf, 0, nodes["right"]).astype(int).tolist()
        table["nodes_missing_value_tracks_true"] += nodes["missing_go_to_left"].astype(int).tolist()
        leaves = np.flatnonzero(leaf).tolist()
        table["target_treeids"] += [tree] * len(leaves)
        table["target_nodeids"] += leaves
        table["target_ids"] += [0] * len(leaves)
        table["target_weights"] += nodes["value"][leaf].astype(float).tolist()
    return table


def floor32(values: FloatArray) -> FloatArray:
    """The largest float32 that is not above each value, as float64."""
    with np.errstate(over="ignore"):
        near = values.astype(np.float32)
    down = np.where(near.astype(np.float64) > values, np.nextafter(near, np.float32(-np.inf)), near)
    return down.astype(np.float64)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]


update_registered_converter(
    HistGradientBoostingClassifier,
    "FraudstreamHistGradientBoostingClassifier",
    calculate_linear_classifier_output_shapes,
    _convert_hist_gradient_boosting,
    overwrite=True,
    options={"zipmap": [True, False, "columns"], "nocl": [True, False], "output_class_labels": [False, True]},
)
