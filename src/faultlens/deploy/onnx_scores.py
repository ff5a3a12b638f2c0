"""Which detectors can be written as ONNX operators, and how."""

from collections.abc import Callable
from typing import cast

from faultlens.deploy.onnx_inputs import Inputs
from faultlens.errors import InputError
from faultlens.monitor.detector import Detector
from faultlens.registry import Registry

_HERE = "faultlens.deploy"
SCORES = Registry(
    "exported detector",
    {
        "msp": f"{_HERE}.onnx_softmax:msp",
        "temperature": f"{_HERE}.onnx_softmax:temperature",
        "max-logit": f"{_HERE}.onnx_softmax:max_logit",
        "margin": f"{_HERE}.onnx_softmax:margin",
        "energy": f"{_HERE}.onnx_softmax:energy",
        "entropy": f"{_HERE}.onnx_softmax:entropy",
        "doctor-alpha": f"{_HERE}.onnx_softmax:doctor_alpha",
        "doctor-beta": f"{_HERE}.onnx_softmax:doctor_beta",
        "pnorm": f"{_HERE}.onnx_softmax:pnorm",
        "relative-uncertainty": f"{_HERE}.onnx_softmax:relative_uncertainty",
        "refit": f"{_HERE}.onnx_distances:refit",
        "refit-strengths": f"{_HERE}.onnx_distances:refit",
        "mahalanobis": f"{_HERE}.onnx_distances:mahalanobis",
        "mahalanobis-strengths": f"{_HERE}.onnx_distances:mahalanobis",
        "relative-mahalanobis": f"{_HERE}.onnx_distances:relative_mahalanobis",
        "relative-mahalanobis-strengths": f"{_HERE}.onnx_distances:relative_mahalanobis",
        "nearest": f"{_HERE}.onnx_distances:nearest",
        "nearest-strengths": f"{_HERE}.onnx_distances:nearest",
        "trust": f"{_HERE}.onnx_distances:trust",
        "trust-strengths": f"{_HERE}.onnx_distances:trust",
        "vim": f"{_HERE}.onnx_distances:vim",
        "heatmap": f"{_HERE}.onnx_heatmaps:heatmap",
        "heatmap-weighted": f"{_HERE}.onnx_heatmaps:heatmap",
        "heatmap-distance": f"{_HERE}.onnx_heatmaps:heatmap",
        "heatmap-bayes": f"{_HERE}.onnx_heatmaps:heatmap",
        "heatmap-attacked": f"{_HERE}.onnx_heatmaps:heatmap",
        "heatmap-few": f"{_HERE}.onnx_heatmaps:few_pairs",
        "heatmap-jaccard": f"{_HERE}.onnx_heatmaps:jaccard",
        "fused": f"{_HERE}.onnx_fused:fused",
        "fused-benign": f"{_HERE}.onnx_fused:fused_benign",
    },
)


def is_exact(detector: Detector) -> bool:
    """Whether the operators run in float64 from the logits on, as NumPy does.

    Example:
        >>> from faultlens.monitor.detector import load_detector
        >>> is_exact(load_detector("msp")), is_exact(load_detector("refit"))
        (True, False)
    """
    return SCORES.get(detector.name, "").startswith(f"{_HERE}.onnx_softmax:")


def add_score(inputs: Inputs, detector: Detector) -> str:
    """Add a fitted detector's score.

    Args:
        inputs: What it may read.
        detector: Fitted.

    Returns:
        Name of the (N, 1) float64 score.

    Raises:
        InputError: The detector has no ONNX form, or reads what the graph does not have.
    """
    if detector.name not in SCORES:
        raise InputError(
            f"detector must be one that ONNX operators can express, got '{detector.name}'; fit "
            f"the monitor with one of {', '.join(sorted(SCORES))}"
        )
    add = cast(Callable[[Inputs, Detector], str], SCORES.load(detector.name))
    return add(inputs, detector)
