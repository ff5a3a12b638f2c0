"""The corrected preprocessing: a fix that changes no weight, measured when the fault was found."""

from collections.abc import Sequence

import yaml

from faultlens.data.preprocess import Preprocessing
from faultlens.finding import Finding
from faultlens.fixes.trial import Effect
from faultlens.models.description import ModelDescription


def is_answer(finding: Finding) -> bool:
    """Return whether another preprocessing answers a finding."""
    return finding.severity == "fault" and "preprocessing" in finding.evidence


def told(finding: Finding) -> str:
    """Return what the fix does, in a sentence."""
    return f"Feed the model with {finding.evidence['change']}; its weights stay as shipped."


def effect(finding: Finding) -> Effect:
    """Return what the run measured, on images that did not choose the preprocessing.

    Args:
        finding: Of the kind `localization.input`, about the preprocessing.
    """
    e = finding.evidence
    return Effect(
        repaired=e["gained"],
        broken=e["lost"],
        n=finding.n,
        gain=finding.statistic,
        interval=finding.interval,
        p_value=e["p_value"],
    )


def description(finding: Finding, classes: Sequence[str], split_at: str | None = None) -> str:
    """Return the model's description with the corrected preprocessing, for `--preprocess`.

    Args:
        finding: Of the kind `localization.input`, about the preprocessing.
        classes: K names, in the order of the logits.
        split_at: Where the head begins, if it was given.

    Returns:
        YAML that `ModelDescription.read` reads.

    Example:
        >>> better = Preprocessing(resize=(8, 8), scale=1, mean=(0, 0, 0), std=(1, 1, 1))
        >>> found = Finding("input", "localization.input", "fault", "preprocessing", "…", 0.5,
        ...                 (0.4, 0.6), 100, 1.0, evidence={"preprocessing": better.model_dump()})
        >>> print(description(found, ["cat", "dog"]))
        classes: [cat, dog]
        preprocessing:
          resize: [8, 8]
          crop: null
          interpolation: bilinear
          scale: 1.0
          mean: [0.0, 0.0, 0.0]
          std: [1.0, 1.0, 1.0]
          channel_order: rgb
          layout: nchw
        <BLANKLINE>
    """
    about = ModelDescription(
        classes=tuple(classes),
        preprocessing=Preprocessing(**finding.evidence["preprocessing"]),
        split_at=split_at,
    )
    values = about.model_dump(mode="json")
    if split_at is None:
        del values["split_at"]
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, default_flow_style=None)
