"""Scores of concept pairs as ONNX operators."""

import numpy as np

from faultlens.arrays import Array
from faultlens.deploy.onnx_inputs import Inputs
from faultlens.monitor.heatmap import HeatmapDetector, JaccardHeatmap
from faultlens.monitor.heatmap_few import FewPairs
from faultlens.monitor.pairs import concept_pairs


def heatmap(inputs: Inputs, detector: HeatmapDetector) -> str:
    """Add the score of a heatmap detector whose measure is a sum and an offset, (N, 1)."""
    fitted = detector.fitted()
    sums = _pair_sums(inputs, fitted["weights"])
    offset = inputs.of_class(fitted["offset"].astype(np.float64)[:, None])
    return inputs.nodes.op("Add", sums, offset)


def few_pairs(inputs: Inputs, detector: FewPairs) -> str:
    """Add the score of `FewPairs`, (N, 1): only its pairs are compared."""
    n, fitted, strengths = inputs.nodes, detector.fitted(), inputs.space("strengths")
    first, second = (
        n.op("Gather", strengths, fitted["pairs"][:, i].astype(np.int64), axis=1) for i in (0, 1)
    )
    signs = n.op("Sub", n.single(n.op("Greater", first, second)),
                 n.single(n.op("Less", first, second)))  # fmt: skip
    own = inputs.of_class(fitted["few"])
    sums = n.double(n.reduce("ReduceSum", n.op("Mul", own, signs), axis=1))
    return n.op("Add", sums, inputs.of_class(fitted["offset"].astype(np.float64)[:, None]))


def jaccard(inputs: Inputs, detector: JaccardHeatmap) -> str:
    """Add the score of `JaccardHeatmap`, (N, 1)."""
    n, fitted = inputs.nodes, detector.fitted()
    sums = _pair_sums(inputs, fitted["weights"])
    defined = inputs.of_class(fitted["n_defined"].astype(np.float64))
    shared = n.op("Add", n.op("Mul", defined, np.full((1, 1), 0.5)), sums)
    union = n.op("Sub", n.op("Mul", defined, np.full((1, 1), 2.0)), shared)
    # Sets of no pairs share none: 0 / 1.
    index = n.op("Div", shared, n.op("Max", union, np.ones((1, 1))))
    return n.op("MatMul", index, np.array([[1.0], [-1.0]]))


def _pair_sums(inputs: Inputs, weights: Array) -> str:
    """Add the (N, J) float64 sums of `pair_sums`.

    All C x C comparisons at once: picking the pairs a < b would take longer than to compare both
    ways, with the opposite weight for (b, a).
    """
    n, strengths = inputs.nodes, inputs.space("strengths")
    n_classes, n_sums, n_pairs = weights.shape
    c = round((1 + np.sqrt(1 + 8 * n_pairs)) / 2)
    first, second = concept_pairs(c)
    both_ways = np.zeros((n_classes, n_sums, c, c), np.float32)
    both_ways[:, :, first, second] = weights
    both_ways[:, :, second, first] = -weights
    column, row = (
        n.op("Reshape", strengths, np.array([-1, *shape], np.int64)) for shape in ((c, 1), (1, c))
    )
    wins = n.single(n.op("Greater", column, row))
    flat = n.op("Reshape", wins, np.array([-1, 1, c * c], np.int64))
    own = inputs.of_class(both_ways.reshape(n_classes, n_sums, c * c))
    # A product with one column is slower in ONNX Runtime.
    sums = n.reduce("ReduceSum", n.op("Mul", own, flat), axis=2)
    return n.double(n.op("Reshape", sums, np.array([-1, n_sums], np.int64)))
