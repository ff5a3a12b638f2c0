"""The cut between encoder and head: read a model backwards from its output.

An adapter turns the operators that lead to an output into `Step`s, last one first, and stops at
the first one it does not know. `cut` then decides where the head begins. The same rules serve
every adapter.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from faultlens.arrays import FloatArray
from faultlens.errors import InputError, nearest
from faultlens.models.head import Head

SOFTMAX_NOTE = "the model ends in a softmax; its input is used as the logits"


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One operator on the way back from an output.

    Attributes:
        kind: `affine` (`x Wᵀ + b`), `bias` (`x + b`), `relu`, `softmax`, or `skip` for what
            changes no value in evaluation (identity, dropout, a change of shape).
        source: Name of what it reads, as `split_at` would give it.
        weight: (K, D) of an affine step.
        bias: (K,) of an affine or bias step.
    """

    kind: Literal["affine", "bias", "relu", "softmax", "skip"]
    source: str
    weight: FloatArray | None = None
    bias: FloatArray | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """A model cut in two.

    Attributes:
        embedding: Name of what the head reads.
        logits: Name of what the head writes.
        head: The part between them.
        notes: What a reader should know about the cut.
    """

    embedding: str
    logits: str
    head: Head
    notes: tuple[str, ...] = ()


def cut(
    outputs: Mapping[str, Sequence[Step]],
    *,
    split_at: str | None,
    known: Iterable[str],
    n_classes: int,
) -> Cut:
    """Cut a model at the input of its last affine layer, or at `split_at`.

    Args:
        outputs: For each output of the model, the steps that lead to it, last one first.
        split_at: Where the head begins; None means the input of the last affine layer.
        known: Every name that exists in the model, for the message.
        n_classes: K, which tells several outputs apart.

    Raises:
        InputError: `split_at` is unknown, or no chain of affine layers and ReLUs leads from it
            to an output; the message lists the names that would do.

    Example:
        >>> last = Step("affine", "pooled", np.eye(2), np.zeros(2))
        >>> cut({"y": [last]}, split_at=None, known=["pooled", "y"], n_classes=2).embedding
        'pooled'
    """
    names = set(known)
    if split_at is not None and split_at not in names:
        raise InputError(
            f"split_at must be a name of the model, got '{split_at}'; {nearest(split_at, names)}"
        )
    fitting = [o for o in outputs if len(outputs) == 1 or _width(o, outputs[o]) == n_classes]
    if len(fitting) != 1:
        raise InputError(
            f"model must have exactly one output of {n_classes} logits, one for each class, got "
            f"{len(fitting)} among its outputs {sorted(outputs)}; export it with the logits alone"
        )
    return _cut_one(fitting[0], outputs[fitting[0]], split_at)


def _width(output: str, steps: Sequence[Step]) -> int | None:
    """Return the number of logits that an output holds, None if it holds something else."""
    try:
        return _cut_one(output, steps, None).head.n_classes
    except InputError:
        return None


def _cut_one(output: str, steps: Sequence[Step], split_at: str | None) -> Cut:
    logits, i = output, 0
    notes: tuple[str, ...] = ()
    while i < len(steps) and steps[i].kind in ("skip", "softmax"):
        if steps[i].kind == "softmax":
            logits, notes = steps[i].source, (SOFTMAX_NOTE,)
        i += 1
    body = steps[i:]
    end = next(
        (
            j
            for j, step in enumerate(body)
            if (step.kind == "affine" if split_at is None else step.source == split_at)
        ),
        None,
    )
    head = None if end is None else _compose(body[: end + 1][::-1])
    if end is None or head is None:
        stop = output if end is not None or not steps else steps[-1].source
        raise InputError(_no_head(stop, body, split_at))
    return Cut(body[end].source, logits, head, notes)


def _compose(forward: Sequence[Step]) -> Head | None:
    """Return the steps as a head, or None if they are not affine, ReLU, …, affine that fit."""
    layers: list[tuple[FloatArray, FloatArray]] = []
    after_relu = True
    for step in forward:
        if step.kind == "skip":
            continue
        if step.kind == "affine" and step.weight is not None and step.bias is not None:
            if layers and step.weight.shape[1] != len(layers[-1][1]):
                return None
            layers.append((step.weight, step.bias) if after_relu else _joined(layers.pop(), step))
            after_relu = False
        elif step.kind == "softmax" or after_relu:
            return None
        elif step.kind == "relu":
            after_relu = True
        elif step.bias is not None:
            weight, bias = layers[-1]
            if step.bias.size not in (1, len(bias)):
                return None
            layers[-1] = (weight, bias + step.bias)
    if after_relu:
        return None
    return Head(tuple(w for w, _ in layers), tuple(b for _, b in layers))


def _joined(layer: tuple[FloatArray, FloatArray], step: Step) -> tuple[FloatArray, FloatArray]:
    """Return two affine layers, one after the other, as one."""
    weight, bias = layer
    return step.weight @ weight, step.weight @ bias + step.bias  # type: ignore[operator]


def _no_head(stop: str, body: Sequence[Step], split_at: str | None) -> str:
    good = [
        repr(step.source)
        for j, step in enumerate(body)
        if step.kind == "affine" and _compose(body[: j + 1][::-1]) is not None
    ]
    if split_at is None:
        return (
            "model must end in a linear layer (a softmax may follow it), got another operator "
            f"that makes '{stop}'; no split_at can help: export it with the linear layer last"
        )
    return (
        "split_at must be followed by nothing but linear layers with ReLU between them up to the "
        f"logits, got '{split_at}'; "
        + (f"use {' or '.join(good)}" if good else f"none is: see what makes '{stop}'")
    )


def affine(source: str, weight: FloatArray, bias: FloatArray | None = None) -> Step | None:
    """Return an affine step; the bias may be absent, one number, or K of them in any shape.

    Example:
        >>> affine("z", np.eye(2), np.array([[3.0]])).bias.tolist()
        [3.0, 3.0]
        >>> affine("z", np.eye(2), np.ones((5, 2))) is None  # not the same for every row
        True
    """
    k = weight.shape[0]
    values = np.zeros(k, np.float32) if bias is None else np.asarray(bias).reshape(-1)
    if values.size not in (1, k):
        return None
    return Step("affine", source, weight, np.broadcast_to(values, k))
