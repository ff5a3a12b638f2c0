"""What the page's script draws from: compact arrays, as JSON that is safe inside a script element.

Heatmaps travel as integer counts; shares and their intervals are worked out by the page.
"""

import base64
import json
from collections.abc import Iterable
from typing import Any

import numpy as np

from faultlens.arrays import Array, FloatArray
from faultlens.files import json_value
from faultlens.heatmaps import MIN_IMAGES, ClassCounts, DifferentialHeatmap, HeatmapCounts
from faultlens.report.content import ReportContent
from faultlens.report.wording import SOURCES

#: Differences are stored in this many steps a unit: finer than any number shown.
STEPS = 10_000

_PARTS = ("correct", "false_negative", "false_positive")


def pack(values: Array) -> dict[str, str]:
    """Return an array as base64 with the name of its type; counts in the fewest bytes.

    Example:
        >>> pack(np.array([1, 2, 255]))
        {'type': 'u1', 'data': 'AQL/'}
    """
    a = np.ascontiguousarray(values)
    if a.dtype.kind in "iu" and (a.size == 0 or a.min() >= 0):
        a = a.astype(np.min_scalar_type(a.max() if a.size else 0))
    little = a.astype(a.dtype.newbyteorder("<"))
    name = f"{a.dtype.kind}{a.dtype.itemsize}"
    return {"type": name, "data": base64.b64encode(little.tobytes()).decode()}


def embed(value: Any) -> str:
    """Return JSON that can stand inside a script element: no text in it can end the element.

    Example:
        >>> embed({"name": "</script>", "share": float("nan")})
        '{"name":"\\\\u003c/script\\\\u003e","share":null}'
    """
    text = json.dumps(json_value(value), allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _steps(values: FloatArray) -> dict[str, str]:
    return pack(np.rint(values * STEPS).astype("<i2"))


def _upper(q_values: FloatArray) -> dict[str, str]:
    """Pack the upper triangle: each pair of concepts is tested once."""
    upper = np.triu_indices(len(q_values), 1)
    return pack(q_values[upper].astype(np.float32))


def _part(counts: HeatmapCounts) -> dict[str, Any]:
    return {"n": counts.n, "wins": [pack(w) for w in counts.wins]}


def _counts(counts: ClassCounts) -> dict[str, Any]:
    q: list[dict[str, str] | None] = []
    for k in range(len(counts.classes)):
        is_enough = min(counts.correct.n[k], counts.false_negative.n[k]) >= MIN_IMAGES
        q.append(_upper(counts.differential(k).q_values) if is_enough else None)
    return {part: _part(getattr(counts, part)) for part in _PARTS} | {"q": q}


def _delta(delta: DifferentialHeatmap) -> dict[str, Any]:
    sizes = {"nFirst": delta.n_first, "nSecond": delta.n_second}
    if not delta.is_enough:
        return sizes
    return sizes | {
        "values": _steps(delta.values),
        "low": _steps(delta.low),
        "high": _steps(delta.high),
        "q": _upper(delta.q_values),
    }


def payload(content: ReportContent, shown: Iterable[int]) -> dict[str, Any]:
    """Collect the page's data.

    Args:
        content: Of the report.
        shown: Indices of the images in its galleries, whose facts the page can show.

    Returns:
        A JSON object (NaN and arrays are dealt with by `embed`).
    """
    trusted = {v.concept: v.is_valid for v in content.concept_validity}
    facts = ("name", "label", "prediction", "confidence", "vlm", "module", "subclass")
    return {
        "classes": content.classes,
        "concepts": content.concepts,
        "valid": [trusted.get(c, True) for c in content.concepts],
        "minImages": MIN_IMAGES,
        "steps": STEPS,
        "sources": {s: SOURCES[s] for s in content.counts},
        "counts": {s: _counts(c) for s, c in content.counts.items()},
        "confusions": [
            {
                "label": c.label,
                "predicted": c.predicted,
                "model": _delta(c.delta_model),
                "vlm": _delta(c.delta_vlm),
            }
            for c in content.confusions
        ],
        "images": {str(i): [getattr(content.images[i], f) for f in facts] for i in sorted(shown)},
    }
