"""Detectors: what each must offer, the door that checks its input, and the table of all.

A new detector is one file and one line in `DETECTORS`; the contract tests then cover it.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Protocol, Self, cast, runtime_checkable

import numpy as np

from faultlens.arrays import Array, FloatArray, IntArray, check_array, read_only
from faultlens.errors import InputError, NotFittedError, ShapeError, StoreError
from faultlens.monitor.features import Features
from faultlens.registry import Registry

_OPTION = "option."
_WIDTH = "width."


@runtime_checkable
class Detector(Protocol):
    """What tells abnormal images from normal ones; higher scores are more abnormal."""

    @property
    def name(self) -> str:
        """The name in `DETECTORS`."""

    def fit(self, features: Features, labels: IntArray) -> Self:
        """Learn from benign images with their true labels (N,); return the detector itself."""

    def score(self, features: Features) -> FloatArray:
        """Return (N,) float64, higher = more abnormal."""

    def state(self) -> dict[str, Array]:
        """Return everything that `restore` needs, as arrays."""

    @classmethod
    def restore(cls, state: Mapping[str, Array]) -> Self:
        """Return the fitted detector whose state this is."""


@dataclass(eq=False)
class CheckedDetector(ABC):
    """A detector made of two functions of checked arrays, `_learn` and `_measure`.

    Fields of a subclass are its options (numbers or words); they are part of the state.

    Example:
        >>> from faultlens.monitor.energy import Energy
        >>> features = Features(np.ones((2, 3)), np.array([[5.0, 0.0], [0.1, 0.0]]))
        >>> detector = Energy().fit(features, np.array([0, 0]))
        >>> Energy.restore(detector.state()).score(features).round(3).tolist()
        [-5.007, -0.744]
    """

    family: ClassVar[str]
    _fitted: Mapping[str, Array] | None = field(default=None, init=False, repr=False)

    @property
    def name(self) -> str:
        """The name in `DETECTORS`."""
        return self.family

    @property
    def spaces(self) -> tuple[str, ...]:
        """The parts of `Features` it reads; their widths may not change after `fit`."""
        return ("logits",)

    def _read(self, features: Features) -> tuple[str, ...]:
        """Return the parts that it reads of these features."""
        return self.spaces

    @abstractmethod
    def _learn(self, features: Features, labels: IntArray) -> dict[str, Array]:
        """Return what is learned, as arrays."""

    @abstractmethod
    def _measure(self, features: Features, fitted: Mapping[str, Array]) -> FloatArray:
        """Return the (N,) scores, given what `_learn` returned."""

    def fit(self, features: Features, labels: IntArray) -> Self:
        """Learn from benign images.

        Args:
            features: N images.
            labels: (N,) true class of each, in [0, K).

        Returns:
            The detector itself, fitted.

        Raises:
            ShapeError: Labels of another length or range than the logits.
            InputError: Features lack what this detector reads.
        """
        y = check_array(labels, "N", name="labels", kind="int")
        if len(y) != len(features):
            raise ShapeError(
                f"labels must have one entry an image, got {len(y)} for {len(features)}"
            )
        n_classes = features.logits.shape[1]
        if y.min() < 0 or y.max() >= n_classes:
            wrong = y.min() if y.min() < 0 else y.max()
            raise ShapeError(f"labels must be in [0, {n_classes}), got {wrong}")
        widths = {_WIDTH + s: np.array(_points(features, s).shape[1]) for s in self._read(features)}
        learned = {k: np.asarray(v) for k, v in self._learn(features, y).items()}
        self._fitted = {k: read_only(np.array(v)) for k, v in (widths | learned).items()}
        return self

    def score(self, features: Features) -> FloatArray:
        """Return how abnormal each image is.

        Returns:
            (N,) float64, higher = more abnormal, always finite.

        Raises:
            NotFittedError: `fit` was not called.
            ShapeError: Features of another width than those of `fit`.
        """
        fitted = self.fitted()
        for key in (k for k in fitted if k.startswith(_WIDTH)):
            space = key.removeprefix(_WIDTH)
            width, want = _points(features, space).shape[1], int(fitted[key])
            if width != want:
                raise ShapeError(
                    f"{space} must be {want} wide as in fit, got {width}; use the same network"
                )
        return self._measure(features, fitted).astype(np.float64, copy=False)

    def fitted(self) -> Mapping[str, Array]:
        """Return what was learned; raises NotFittedError before `fit`."""
        if self._fitted is None:
            raise NotFittedError(f"{self.name} must be fitted, but it is not; call fit() first")
        return self._fitted

    def state(self) -> dict[str, Array]:
        """Return everything that `restore` needs, as arrays; raises NotFittedError before `fit`."""
        options = {_OPTION + f.name: _as_array(getattr(self, f.name)) for f in self._options()}
        return options | dict(self.fitted())

    @classmethod
    def restore(cls, state: Mapping[str, Array]) -> Self:
        """Return the fitted detector whose state this is.

        Raises:
            StoreError: Options are missing: the state of another detector or version.
        """
        missing = [f.name for f in cls._options() if _OPTION + f.name not in state]
        if missing:
            raise StoreError(
                f"state must hold the options of {cls.family}, got none for "
                f"{', '.join(missing)}; fit the monitor again"
            )
        detector = cls(**{f.name: _as_option(state[_OPTION + f.name]) for f in cls._options()})
        detector._fitted = {
            k: read_only(np.array(v)) for k, v in state.items() if not k.startswith(_OPTION)
        }
        return detector

    @classmethod
    def _options(cls) -> list[Any]:
        return [f for f in fields(cls) if f.init]


@dataclass(eq=False)
class SpaceDetector(CheckedDetector):
    """A detector of distances in one space of the features.

    Attributes:
        space: `embeddings`, `strengths` or the name of an inner layer.
    """

    space: str = "embeddings"

    @property
    def name(self) -> str:
        """The name in `DETECTORS`, by space."""
        return self.family if self.space == "embeddings" else f"{self.family}-{self.space}"

    @property
    def spaces(self) -> tuple[str, ...]:
        """The space it measures in."""
        return (self.space,)


def _points(features: Features, space: str) -> FloatArray:
    return features.logits if space == "logits" else features.space(space)


def _as_array(option: float | str) -> Array:
    """Return an option as an array; words as their UTF-8 bytes, for files that hold no text."""
    if isinstance(option, str):
        return np.frombuffer(option.encode(), np.uint8)
    return np.array(option)


def _as_option(stored: Array) -> float | int | str:
    if stored.dtype == np.uint8 and stored.ndim == 1:
        return stored.tobytes().decode()
    return cast("float | int", stored.item())


DETECTORS = Registry(
    "detector",
    {
        "msp": "faultlens.monitor.msp:Msp",
        "temperature": "faultlens.monitor.temperature:TemperatureMsp",
        "max-logit": "faultlens.monitor.max_logit:MaxLogit",
        "margin": "faultlens.monitor.margin:Margin",
        "energy": "faultlens.monitor.energy:Energy",
        "entropy": "faultlens.monitor.entropy:Entropy",
        "doctor-alpha": "faultlens.monitor.doctor:DoctorAlpha",
        "doctor-beta": "faultlens.monitor.doctor:DoctorBeta",
        "pnorm": "faultlens.monitor.pnorm:PNorm",
        "relative-uncertainty": "faultlens.monitor.relative_uncertainty:RelativeUncertainty",
        "mahalanobis": "faultlens.monitor.mahalanobis:Mahalanobis",
        "mahalanobis-strengths": "faultlens.monitor.mahalanobis:StrengthMahalanobis",
        "relative-mahalanobis": "faultlens.monitor.relative_mahalanobis:RelativeMahalanobis",
        "relative-mahalanobis-strengths": (
            "faultlens.monitor.relative_mahalanobis:StrengthRelativeMahalanobis"
        ),
        "nearest": "faultlens.monitor.nearest:Nearest",
        "nearest-strengths": "faultlens.monitor.nearest:StrengthNearest",
        "vim": "faultlens.monitor.vim:Vim",
        "trust": "faultlens.monitor.trust:Trust",
        "trust-strengths": "faultlens.monitor.trust:StrengthTrust",
        "heatmap": "faultlens.monitor.heatmap:CosineHeatmap",
        "heatmap-weighted": "faultlens.monitor.heatmap:WeightedHeatmap",
        "heatmap-distance": "faultlens.monitor.heatmap:DistanceHeatmap",
        "heatmap-jaccard": "faultlens.monitor.heatmap:JaccardHeatmap",
        "heatmap-bayes": "faultlens.monitor.heatmap:BayesHeatmap",
        "heatmap-attacked": "faultlens.monitor.heatmap_attacked:AttackedHeatmap",
        "heatmap-few": "faultlens.monitor.heatmap_few:FewPairs",
        "layers": "faultlens.monitor.layered:Layers",
        "feature-squeezing": "faultlens.monitor.squeezed:FeatureSqueezing",
        "squeezed-margin": "faultlens.monitor.squeezed:SqueezedMargin",
        "squeezed-joint": "faultlens.monitor.squeezed:SqueezedJoint",
        "vlm-disagreement": "faultlens.monitor.disagreement:Disagreement",
        "refit": "faultlens.monitor.refit:Refit",
        "refit-strengths": "faultlens.monitor.refit:StrengthRefit",
        "fused": "faultlens.monitor.fused:Fused",
        "fused-benign": "faultlens.monitor.fused:FusedBenign",
        "fused-full": "faultlens.monitor.fused:FusedFull",
    },
)


def load_detector(name: str, **options: float | str) -> Detector:
    """Return a new detector, not fitted.

    Args:
        name: A name in `DETECTORS`.
        **options: Its options, such as `k=10`.

    Raises:
        InputError: Unknown name (with the nearest known ones) or option.

    Example:
        >>> load_detector("nearest", k=10).name
        'nearest'
        >>> load_detector("mps")
        Traceback (most recent call last):
        faultlens.errors.InputError: detector must be a known name, got 'mps'; did you mean 'msp'?
    """
    cls = DETECTORS.load(name)
    try:
        return cast(Detector, cls(**options))
    except TypeError as error:
        raise InputError(
            f"options must be those of detector '{name}', got {', '.join(options) or 'none'}; "
            f"see help({cls.__name__})"
        ) from error
