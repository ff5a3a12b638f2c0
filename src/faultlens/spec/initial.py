"""A first file of specifications, written from what a session knows."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from faultlens.arrays import BoolArray, FloatArray, IntArray
from faultlens.heatmaps import MIN_IMAGES, HeatmapCounts
from faultlens.spec.syntax import RESERVED
from faultlens.stats import clopper_pearson

#: Regularities a class, and the lower bound of their rate.
N_REGULARITIES, MIN_RATE = 4, 0.9
#: Pairs of one class whose rates are written out.
_MAX_RATES = 60
_PLAIN = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_HEAD = """\
# What this model must obey, in concepts. A first proposal, from {source};
# strike what should not be asked, add what should.
#
# The comments say what was observed: on which share of the images it holds, with the
# {confidence:.0%} Clopper-Pearson interval. A specification on R(class) is checked on the images
# labelled as the class, and verified over the region that R fits to its correctly classified
# embeddings.

region R = slabs(coverage=0.9);
"""


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """What a session knows.

    Attributes:
        classes: K names.
        concepts: C names.
        valid: (C,) which concepts can be trusted.
        relevant: (K, C) which concepts a class should have.
        strengths: (N, C) of the classifier.
        labels: (N,).
        predictions: (N,).
    """

    classes: tuple[str, ...]
    concepts: tuple[str, ...]
    valid: BoolArray
    relevant: BoolArray
    strengths: FloatArray
    labels: IntArray
    predictions: IntArray


def quoted(name: str) -> str:
    """Return a class or concept as a specification names it.

    Example:
        >>> quoted("wheels"), quoted("long snout")
        ('wheels', '"long snout"')
    """
    if _PLAIN.fullmatch(name) and name not in RESERVED:
        return name
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def initial(known: Known, source: str, confidence: float = 0.95) -> str:
    """Write a first file of specifications.

    Args:
        known: From the session.
        source: Named in the file's head.
        confidence: Of the intervals in the comments.

    Returns:
        The text of a `.con` file: for every class its relevant concepts against the irrelevant
        ones, and what its correct images have most in common that the others have not.
        Concepts that cannot be trusted are left out.
    """
    parts = [_HEAD.format(source=" ".join(source.split()), confidence=confidence)]
    n_specs = 0
    for k in range(len(known.classes)):
        found = [*_relevant(known, k, confidence), *_regular(known, k, confidence)]
        n_specs += len(found)
        parts += found
    if not n_specs:
        parts.append("# Nothing to propose: too few images, or no concept that can be trusted.\n")
    return "\n".join(parts)


def _relevant(known: Known, k: int, confidence: float) -> Iterator[str]:
    """Yield one specification for all pairs of a relevant and an irrelevant concept."""
    yes = np.flatnonzero(known.relevant[k] & known.valid)
    # What no class should have (colours, light) is no counterpart to what this one has.
    of_others = known.relevant.any(axis=0) & known.valid
    no = np.flatnonzero(~known.relevant[k] & of_others)
    s = known.strengths[known.labels == k]
    if not len(yes) or not len(no) or not len(s):
        return
    name = known.classes[k]
    lines = [f"# {_comment(name)}: what it has against what it has not, on {len(s)} images."]
    pairs = [(int(a), int(b)) for a in yes for b in no]
    for a, b in pairs[:_MAX_RATES]:
        wins = int((s[:, a] > s[:, b]).sum())
        lines.append(f"#   {_pair(known, a, b)}: {_rate(wins, len(s), confidence)}")
    if len(pairs) > _MAX_RATES:
        lines.append(f"#   and {len(pairs) - _MAX_RATES} pairs more")
    sets = ["{" + ", ".join(quoted(known.concepts[c]) for c in group) + "}" for group in (yes, no)]
    lines.append(
        f"spec {quoted(f'{name} has')} on R({quoted(name)}): "
        f"forall a in {sets[0]}, b in {sets[1]}: str(a) > str(b);"
    )
    yield "\n".join(lines) + "\n"


def _regular(known: Known, k: int, confidence: float) -> Iterator[str]:
    """Yield what nearly all correct images of a class share, the most telling first."""
    right = known.labels == known.predictions
    own, others = right & (known.labels == k), right & (known.labels != k)
    n = int(own.sum())
    if n < MIN_IMAGES:
        return
    counts = HeatmapCounts.of(
        known.strengths.astype(np.float32), np.where(own, 0, np.where(others, 1, -1)), 2
    )
    low, _ = clopper_pearson(counts.wins[0], n, confidence)
    # What holds of every class says little about this one.
    lead = low - counts.wins[1] / max(int(others.sum()), 1)
    said = known.relevant[k][:, None] & ~known.relevant[k][None, :]
    usable = known.valid[:, None] & known.valid[None, :] & ~said & (low >= MIN_RATE)
    order = np.argsort(-np.where(usable, lead, -np.inf), axis=None, kind="stable")
    cells = np.stack(np.unravel_index(order, usable.shape), axis=1)
    name = known.classes[k]
    for a, b in [(int(a), int(b)) for a, b in cells if usable[a, b]][:N_REGULARITIES]:
        wins = int(counts.wins[0, a, b])
        title = f"{name}: {known.concepts[a]} over {known.concepts[b]}"
        yield (
            f"# {_pair(known, a, b)}, on correct images of {_comment(name)}: "
            f"{_rate(wins, n, confidence)}\n"
            f"spec {quoted(title)} on R({quoted(name)}) given predict({quoted(name)}): "
            f"str({quoted(known.concepts[a])}) > str({quoted(known.concepts[b])});\n"
        )


def _pair(known: Known, a: int, b: int) -> str:
    return _comment(f"{known.concepts[a]} > {known.concepts[b]}")


def _comment(text: str) -> str:
    return " ".join(text.split())


def _rate(k: int, n: int, confidence: float) -> str:
    low, high = (float(v) for v in clopper_pearson(k, n, confidence))
    return f"{k}/{n} = {k / n:.3f} [{low:.3f}, {high:.3f}]"
