"""Lists of images: which to collect or weigh up, and which labels to look at."""

from collections.abc import Mapping, Sequence

import numpy as np

from faultlens.arrays import BoolArray
from faultlens.fixes.trial import Material

Row = Mapping[str, object]

COLLECT = (
    "finding",
    "class",
    "concept",
    "presence",
    "n_wanted",
    "n_here",
    "n_errors",
    "weight",
    "image",
    "label",
    "prediction",
)
SUSPECTS = ("image", "label", "suggested", "prediction", "confidence")


def against_cue(
    material: Material, finding: str, k: int, concept: int, has_cue: BoolArray
) -> list[Row]:
    """List the images that speak against a cue: class k without it, other classes with it.

    `n_wanted` makes each group as large as its counterpart among the analysed images, and at
    least as large as its errors; `weight` is what does the same without new images.

    Args:
        material: The images.
        finding: Its id.
        k: The class that the cue is taken for.
        concept: Index of the cue.
        has_cue: (N,) where the cue is seen.

    Returns:
        One row an image, errors first; a group without images has one row without an image.
    """
    n = len(material.images)
    labels, has_cue = material.labels[:n], has_cue[:n]
    rows: list[Row] = []
    for other in [k, *(j for j in np.unique(labels) if j != k)]:
        side = other != k
        group = (labels == other) & (has_cue == side)
        n_here, n_opposite = int(group.sum()), int(((labels == other) & (has_cue != side)).sum())
        errors = group & (material.predictions[:n] != labels)
        about = {
            "finding": finding,
            "class": material.classes[other],
            "concept": material.concepts[concept],
            "presence": "with" if side else "without",
            "n_wanted": max(n_opposite - n_here, int(errors.sum())),
            "n_here": n_here,
            "n_errors": int(errors.sum()),
            "weight": round(max(n_opposite / n_here, 1.0), 2) if n_here else "",
        }
        rows += _examples(
            material, about, [*np.flatnonzero(errors), *np.flatnonzero(group & ~errors)]
        )
    return rows


def of_group(
    material: Material, finding: str, group: BoolArray, name: str, concepts: str
) -> list[Row]:
    """List the errors of a group that lags behind: as many more images of its kind are wanted.

    Args:
        material: The images.
        finding: Its id.
        group: (n,) analysed images.
        name: Of the group.
        concepts: What its errors show, in words; may be empty.
    """
    n = len(material.images)
    errors = group & (material.predictions[:n] != material.labels[:n])
    about = {
        "finding": finding,
        "class": name,
        "concept": concepts,
        "presence": "with" if concepts else "",
        "n_wanted": int(errors.sum()),
        "n_here": int(group.sum()),
        "n_errors": int(errors.sum()),
        "weight": "",
    }
    return _examples(material, about, list(np.flatnonzero(errors)))


def suspects(material: Material) -> list[Row]:
    """List the images whose label two witnesses contradict, surest first."""
    doubtful = [row for row in material.images if row["verdict"] == "data"]
    doubtful.sort(key=lambda row: -float(str(row["verdict_confidence"])))
    return [
        {
            "image": row["name"],
            "label": row["label"],
            "suggested": row["vlm"],
            "prediction": row["prediction"],
            "confidence": round(float(str(row["verdict_confidence"])), 4),
        }
        for row in doubtful
    ]


def _examples(material: Material, about: Row, rows: Sequence[int]) -> list[Row]:
    shown = [material.images[i] for i in rows]
    if not shown:
        return [{**about, "image": "", "label": "", "prediction": ""}] if about["n_wanted"] else []
    return [
        {**about, "image": row["name"], "label": row["label"], "prediction": row["prediction"]}
        for row in shown
    ]
