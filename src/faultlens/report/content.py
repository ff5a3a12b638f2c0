"""What a report shows: plain values, so that it can be rendered without any other stage."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from faultlens.alignment import AlignmentReport
from faultlens.arrays import IntArray
from faultlens.finding import Finding
from faultlens.heatmaps import ClassCounts, DifferentialHeatmap
from faultlens.validity import ClassValidity, ConceptValidity

Status = Literal["clean", "fault", "unknown"]


@dataclass(frozen=True, slots=True)
class ImageRow:
    """One analysed image.

    Attributes:
        name: As in the image source.
        label: Class index of the truth.
        prediction: Class index predicted.
        confidence: Softmax of the prediction, in [0, 1].
        vlm: Class index of the VLM's zero-shot answer.
        module: Verdict for a misclassified image, `""` for a correct one.
        subclass: `""` if unknown.
    """

    name: str
    label: int
    prediction: int
    confidence: float
    vlm: int
    module: str
    subclass: str = ""


@dataclass(frozen=True, slots=True)
class GroupSummary:
    """Errors of one class or confusion, with how they divide.

    Attributes:
        n: Images of the group (of a class: labelled so; of a confusion: the errors).
        n_errors: Misclassified ones.
        n_judged: Errors with verdict head or encoder.
        head: Share of head among the judged; NaN without any.
        head_interval: Its interval.
        n_data: Likely label errors.
        concepts: Responsible concepts as JSON objects
            (`concept, view, effect, interval, q_value, part`).
    """

    n: int
    n_errors: int
    n_judged: int
    head: float
    head_interval: tuple[float, float]
    n_data: int
    concepts: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class ConfusionSummary:
    """Images of one class predicted as another: `label -> predicted`."""

    label: int
    predicted: int
    summary: GroupSummary
    delta_model: DifferentialHeatmap
    delta_vlm: DifferentialHeatmap


@dataclass(frozen=True, slots=True, eq=False)
class ReportContent:
    """Everything on the page.

    Attributes:
        title: Such as the model's name.
        status: What the run concluded.
        headline: One sentence for the first page.
        findings: Worst first.
        classes: K names.
        concepts: C names.
        images: The analysed images, in the order of their index.
        confusion: (K, K) counts, rows are labels.
        counts: Heatmap counts of the classifier (`model`) and of the VLM (`vlm`).
        class_summaries: One a class.
        confusions: The largest, most errors first.
        overall: The same for all errors.
        alignment: Quality of the map.
        concept_validity: One a concept.
        class_validity: Of all classes.
        thumbnails: JPEG bytes of some images, by index.
        failures: Files that could not be decoded, with the reason.
        run: The run's description: versions, hashes, seeds, settings (nested JSON object).
    """

    title: str
    status: Status
    headline: str
    findings: tuple[Finding, ...]
    classes: tuple[str, ...]
    concepts: tuple[str, ...]
    images: tuple[ImageRow, ...]
    confusion: IntArray
    counts: Mapping[str, ClassCounts]
    class_summaries: tuple[GroupSummary, ...]
    confusions: tuple[ConfusionSummary, ...]
    overall: GroupSummary
    alignment: AlignmentReport
    concept_validity: tuple[ConceptValidity, ...]
    class_validity: ClassValidity
    thumbnails: Mapping[int, bytes] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)
    run: Mapping[str, Any] = field(default_factory=dict)
