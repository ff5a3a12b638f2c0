"""The runtime monitor: accept or reject a prediction at a stated false-alarm rate, and say why."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from faultlens.arrays import BoolArray, IntArray, check_array
from faultlens.errors import InputError, InsufficientDataError, ShapeError, StoreError, nearest
from faultlens.files import json_value
from faultlens.monitor import store
from faultlens.monitor.choose import Choice, choose
from faultlens.monitor.conformal import Calibration, check_alpha
from faultlens.monitor.detector import DETECTORS, Detector, load_detector
from faultlens.monitor.features import ATTACKED, Features
from faultlens.monitor.reasons import Expected, Reason
from faultlens.monitor.verdict import ConceptMap, Verdict
from faultlens.monitor.vlm_classes import VlmClasses

if TYPE_CHECKING:
    from collections.abc import Callable

    from faultlens.deploy.pytorch import Guard
    from faultlens.session import DebugSession

KIND = "monitor"
Mode = Literal["light", "full", "full-vlm"]
MODES: tuple[Mode, ...] = get_args(Mode)
#: Share of the images that thresholds come from; detectors are fitted on the rest.
CALIBRATION_SHARE = 0.4
MIN_IMAGES = 50


@dataclass(frozen=True, slots=True)
class Settings:
    """How a monitor is fitted.

    Attributes:
        alpha: False-alarm rate: share of correct predictions that are rejected, in (0, 1).
        per_class: Hold it in each predicted class by itself, where that has enough images.
        detector: A name, or `auto` for the best one on held-out images.
        seed: Of the split into images to fit on and images to calibrate on.
        mode: `light` reads the embedding and the logits; `full` also stages inside the encoder
            and changed versions of each picture, at about three times the cost of the network.
            `full-vlm` also asks the vision-language model what it thinks of the predicted class;
            it must then run beside the classifier.

    Raises:
        InputError: A value is out of its range, or a name is unknown.
    """

    alpha: float = 0.05
    per_class: bool = False
    detector: str = "auto"
    seed: int = 0
    mode: Mode = "light"

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise InputError(f"mode must be one of {', '.join(MODES)}, got '{self.mode}'; "
                             f"{nearest(self.mode, MODES)}")  # fmt: skip
        if self.detector != "auto" and self.detector not in DETECTORS:
            raise InputError(f"detector must be a known name, got '{self.detector}'; "
                             f"{nearest(self.detector, DETECTORS)}")  # fmt: skip
        if self.seed < 0:
            raise InputError(f"seed must be 0 or more, got {self.seed}; any such number will do")
        check_alpha(self.alpha)


_SETTINGS = Settings()


@dataclass(frozen=True, slots=True, eq=False)
class RuntimeMonitor:
    """A fitted monitor.

    Attributes:
        detector: Gives the score.
        calibration: Gives thresholds and p-values.
        classes: K names.
        expected: What correct images look like; None without concepts.
        concept_map: Gives strengths to features that have none; None without concepts.
        vlm_classes: What it asks the vision-language model; None where it asks none.
        facts: JSON values: settings, numbers of images, what was chosen among what.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> logits = rng.normal(size=(1000, 3))
        >>> labels = (logits + rng.normal(size=(1000, 3)) / 4).argmax(axis=1)
        >>> monitor = RuntimeMonitor.fit_features(
        ...     Features(logits, logits), labels, settings=Settings(detector="margin"))
        >>> verdict = monitor(Features([[9.0, 0, 0], [1, 0.99, 1]], [[9.0, 0, 0], [1, 0.99, 1]]))
        >>> verdict.accept.tolist(), bool(verdict.p_value[1] <= 0.05)
        ([True, False], True)
    """

    detector: Detector
    calibration: Calibration
    classes: tuple[str, ...]
    expected: Expected | None = None
    concept_map: ConceptMap | None = None
    vlm_classes: VlmClasses | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def fit(
        cls,
        session: "DebugSession",
        alpha: float = 0.05,
        *,
        per_class: bool = False,
        detector: str = "auto",
        seed: int = 0,
        mode: Mode = "light",
    ) -> "RuntimeMonitor":
        """Fit on the images of a finished session; see `Settings` for the arguments.

        Raises:
            InputError: A setting is wrong, or the session's images are no longer there.
            InsufficientDataError: Too few images for the false-alarm rate.
            StoreError: The embeddings of the session are missing or damaged.
        """
        from faultlens import monitoring  # noqa: PLC0415  built on sessions

        return monitoring.fit(session, Settings(alpha, per_class, detector, seed, mode))

    @classmethod
    def fit_features(
        cls,
        features: Features,
        labels: IntArray,
        *,
        settings: Settings = _SETTINGS,
        classes: tuple[str, ...] = (),
        concept_map: ConceptMap | None = None,
    ) -> "RuntimeMonitor":
        """Fit on cached outputs of the classifier.

        Args:
            features: N benign images that the classifier was not trained on.
            labels: (N,) truth.
            settings: See there.
            classes: K names; their numbers by default.
            concept_map: Names the concepts of `features.strengths`, and gives strengths to
                features that come without.

        Raises:
            InputError: A setting is wrong.
            ShapeError: Labels or names do not match.
            InsufficientDataError: Too few images for the false-alarm rate.
        """
        n_classes = features.logits.shape[1]
        classes = classes or tuple(str(k) for k in range(n_classes))
        y = _checked_labels(features, labels, classes)
        features = _with_strengths(features, concept_map)
        rest, held = _split(len(features), settings.seed)
        fitting = features.select(rest)
        choice = _chosen(fitting, y[rest], settings)
        detector = load_detector(choice.name).fit(fitting, y[rest])
        right = features.predictions == y
        calibrating = held[right[held]]
        if not len(calibrating):
            raise InsufficientDataError(
                "features must hold correct predictions to calibrate on, got none; check the "
                "order of the labels"
            )
        chosen = features.select(calibrating)
        calibration = Calibration.of(
            detector.score(chosen), chosen.predictions, n_classes,
            alpha=settings.alpha, per_class=settings.per_class,
        )  # fmt: skip
        expected = None
        if concept_map is not None and fitting.strengths is not None:
            expected = Expected.of(
                fitting.strengths, y[rest], fitting.predictions, concept_map.concepts, classes
            )
        facts = _facts(settings, choice, len(rest), len(calibrating))
        facts["layers"] = sorted(set(features.layers) - {ATTACKED})
        everything = features.select(held)
        rejected = calibration.rejects(detector.score(everything), everything.predictions)
        facts |= {"n_held": len(held), "n_held_rejected": int(rejected.sum())}
        return cls(detector, calibration, classes, expected, concept_map, facts=facts)

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers that features must hold; none in light mode."""
        return tuple(self.facts.get("layers", ()))

    def __call__(self, features: Features) -> Verdict:
        """Judge predictions.

        Args:
            features: N images; strengths may be missing where the monitor has a concept map.

        Raises:
            ShapeError: Features of another network.
            InputError: Features lack what the detector reads.
        """
        if features.logits.shape[1] != len(self.classes):
            raise ShapeError(
                f"logits must be of {len(self.classes)} classes, got {features.logits.shape[1]}; "
                "use the network that the monitor was fitted for"
            )
        features = _with_strengths(features, self.concept_map)
        predictions = features.predictions
        scores = self.detector.score(features)
        accept = ~self.calibration.rejects(scores, predictions)
        p = self.calibration.p_values(scores, predictions)
        return Verdict(accept, scores, p, self._reasons(features, accept))

    def _reasons(self, features: Features, accept: BoolArray) -> tuple[tuple[Reason, ...], ...]:
        s, expected = features.strengths, self.expected
        if s is None or expected is None:
            return ((),) * len(features)
        predictions = features.predictions
        return tuple(
            () if accept[i] else expected.reasons(s[i], int(predictions[i]))
            for i in range(len(features))
        )

    def wrap(
        self,
        module: Any,
        head: str | None = None,
        on_reject: "Callable[[Verdict], None] | None" = None,
    ) -> "Guard":
        """Watch a PyTorch module, whose calls are judged from then on.

        Args:
            module: The network that the monitor was fitted for, a `torch.nn.Module`.
            head: Name of the module at which its head begins; the last linear layer by default.
            on_reject: Called with the verdict of every batch with a rejected prediction.

        Returns:
            A guard: its `verdict` is that of the last batch, `remove()` ends it.

        Raises:
            InputError: There is no such head.
            MissingDependencyError: PyTorch is not installed.
        """
        from faultlens.deploy.pytorch import wrap  # noqa: PLC0415  built on monitors

        return wrap(self, module, head, on_reject)

    def save(self, path: str | Path) -> str:
        """Write the monitor as one safetensors file; returns the file's SHA-256.

        Raises:
            StoreError: The file cannot be written.
        """
        c = self.calibration
        state = {f"detector.{k}": v for k, v in self.detector.state().items()}
        state |= {
            "calibration.scores": c.scores, "calibration.predictions": c.predictions,
            "calibration.thresholds": c.thresholds, "calibration.own": c.own,
        }  # fmt: skip
        if self.expected is not None:
            state |= {f"expected.{k}": v for k, v in self.expected.state().items()}
        if self.concept_map is not None:
            state |= {"map.weight": self.concept_map.weight, "map.offset": self.concept_map.offset}
        asked = self.vlm_classes
        if asked is not None:
            state |= {"vlm.directions": asked.directions}
        facts = {
            "detector": self.detector.name,
            "alpha": c.alpha,
            "classes": self.classes,
            "concepts": () if self.concept_map is None else self.concept_map.concepts,
            "facts": self.facts,
            "vlm": None if asked is None else asked.facts,
        }
        return store.save(path, KIND, state, json_value(facts))

    @classmethod
    def load(cls, path: str | Path) -> "RuntimeMonitor":
        """Read a monitor; nothing in the file is ever run.

        Raises:
            StoreError: The file is absent, damaged or of another version.
            InputError: Its detector is not known here.
        """
        state, facts = store.load(path, KIND)
        classes, concepts = tuple(facts["classes"]), tuple(facts["concepts"])
        groups: dict[str, dict[str, Any]] = {}
        for key, value in state.items():
            group, _, inner = key.partition(".")
            groups.setdefault(group, {})[inner] = value
        try:
            calibration = Calibration(alpha=float(facts["alpha"]), **groups["calibration"])
            detector = store.restore(str(facts["detector"]), groups["detector"])
        except (KeyError, TypeError) as error:
            raise StoreError(
                f"{path} must be a whole monitor, got one without {error}; fit it again"
            ) from error
        expected, mapped, asked = (groups.get(name) for name in ("expected", "map", "vlm"))
        return cls(
            detector, calibration, classes,
            None if expected is None else Expected.restore(expected, concepts, classes),
            None if mapped is None else ConceptMap(mapped["weight"], mapped["offset"], concepts),
            None if asked is None else VlmClasses.restore(asked, facts["vlm"]),
            facts["facts"],
        )  # fmt: skip


def _checked_labels(features: Features, labels: IntArray, classes: tuple[str, ...]) -> IntArray:
    y = check_array(labels, "N", name="labels", kind="int")
    n_classes = features.logits.shape[1]
    if len(y) != len(features):
        raise ShapeError(f"labels must have one entry an image, got {len(y)} for {len(features)}")
    if y.min() < 0 or y.max() >= n_classes:
        raise ShapeError(f"labels must be in [0, {n_classes}), got {y.min()} to {y.max()}")
    if len(classes) != n_classes:
        raise ShapeError(f"classes must have one name a logit, got {len(classes)} for {n_classes}")
    return y


def _with_strengths(features: Features, concept_map: ConceptMap | None) -> Features:
    if concept_map is None or features.strengths is not None:
        return features
    strengths = concept_map(features.embeddings)
    return Features(features.embeddings, features.logits, strengths, features.layers)


def _split(n: int, seed: int) -> tuple[IntArray, IntArray]:
    """Return the images to fit on and those to calibrate on."""
    if n < MIN_IMAGES:
        raise InsufficientDataError(
            f"features must have at least {MIN_IMAGES} images, got {n}; give more"
        )
    order = np.random.default_rng(seed).permutation(n)
    n_held = round(CALIBRATION_SHARE * n)
    return np.sort(order[n_held:]), np.sort(order[:n_held])


def _chosen(features: Features, labels: IntArray, settings: Settings) -> Choice:
    if settings.detector == "auto":
        return choose(features, labels)
    return Choice(settings.detector, f"{settings.detector}, as asked")


def _facts(settings: Settings, choice: Choice, n_fit: int, n_calibration: int) -> dict[str, Any]:
    return {
        "settings": asdict(settings),
        "chosen": choice.told,
        "table": {name: asdict(quality) for name, quality in choice.table.items()},
        "skipped": dict(choice.skipped),
        "n_fit": n_fit,
        "n_calibration": n_calibration,
    }
