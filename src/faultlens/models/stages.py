"""Stages of an encoder: what is watched inside it, and how an activation becomes one row.

A stage is a module (torch), a tensor or node (ONNX) or a graph node (torch-export) inside the
encoder. Its activations are averaged over space or tokens, so that every picture has one row of
numbers a stage, whatever its map's size.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, runtime_checkable

import numpy as np

from faultlens.arrays import Array, FloatArray
from faultlens.errors import InputError
from faultlens.models.classifier import Classifier

#: Stands for blocks that are chosen by themselves.
AUTO = "auto"
N_AUTO = 6


@runtime_checkable
class Watchable(Classifier, Protocol):
    """A classifier that can be watched inside its encoder.

    Attributes:
        stages: Names of what is watched; `encode` gives `stage:<name>` for each.
    """

    stages: tuple[str, ...]

    def candidates(self) -> tuple[str, ...]:
        """Return the ends of the encoder's blocks, in the order in which they are computed."""
        ...

    def with_stages(self, names: Sequence[str]) -> "Watchable":
        """Return the same classifier, watched at these names."""
        ...


def watch(model: Classifier, stages: Sequence[str]) -> Watchable:
    """Return the same classifier, watched at stages.

    Args:
        model: A loaded classifier.
        stages: Names, in the order of the encoder; `("auto",)` takes up to six of its blocks.

    Raises:
        InputError: A name is unknown, the model cannot be watched, or `auto` finds no blocks.
    """
    if not isinstance(model, Watchable):
        raise InputError(
            f"stages must be asked of a model that FaultLens loads, got {model.name}; load it by "
            "its SPEC, or leave stages out"
        )
    if tuple(stages) != (AUTO,):
        return model.with_stages(stages)
    chosen = evenly(model.candidates())
    if len(chosen) < 2:
        raise InputError(
            f"stages must be named for {model.name}, got 'auto', which finds no blocks in it; "
            "name at least 2"
        )
    return model.with_stages(chosen)


def evenly(names: Sequence[str], n: int = N_AUTO) -> tuple[str, ...]:
    """Return at most n names, evenly spread, the first and the last among them.

    Example:
        >>> evenly("abcdefgh", 3)
        ('a', 'e', 'h')
    """
    if len(names) <= n:
        return tuple(names)
    places = np.linspace(0, len(names) - 1, n).round().astype(int)
    return tuple(names[i] for i in places)


def pooled(activation: Array, n: int, name: str) -> FloatArray:
    """Average an activation over space or tokens.

    Args:
        activation: (N, C, H, W) or (N, H, W, C) with square maps, (N, T, D), or (N, D).
        n: N, the pictures of the batch.
        name: The stage's name, for the message.

    Returns:
        (N, D) float32.

    Raises:
        InputError: Another shape.

    Example:
        >>> pooled(np.arange(8.0).reshape(1, 2, 2, 2), 1, "conv").tolist()
        [[1.5, 5.5]]
    """
    a = np.asarray(activation)
    if a.ndim not in (2, 3, 4) or len(a) != n:
        raise InputError(
            f"stages must be maps or tokens of {n} pictures, got shape {a.shape} at '{name}'; "
            "choose another stage"
        )
    is_last = a.ndim == 4 and a.shape[1] == a.shape[2] != a.shape[3]
    axes = {2: (), 3: (1,), 4: (1, 2) if is_last else (2, 3)}[a.ndim]
    return np.asarray(a.mean(axis=axes, dtype=np.float32), np.float32)


@dataclass(frozen=True, slots=True)
class Op:
    """One operator of a stored graph.

    Attributes:
        name: Of what it gives.
        kind: `linear` has weights of its own; `join` adds what two branches computed.
        sources: Names of what it reads.
    """

    name: str
    kind: Literal["linear", "join", "activation", "other"]
    sources: tuple[str, ...]


def block_ends(ops: Iterable[Op], first: str, last: str) -> tuple[str, ...]:
    """Return where the blocks of a graph end, in order.

    Everything that is computed later passes through the end of a block, and between two of them
    lies at least one linear operator: a residual block is one block, a chain of layers is many.

    Args:
        ops: In an order in which they can be computed; those that do not depend on `first` or
            that `last` does not depend on are passed over.
        first: Name of the graph's input.
        last: Name of the embedding.

    Example:
        >>> ops = [Op("a", "linear", ("x",)), Op("b", "activation", ("a",)),
        ...        Op("c", "linear", ("b",)), Op("d", "join", ("b", "c")), Op("z", "other", ("d",))]
        >>> block_ends(ops, "x", "z")
        ('b', 'd')
    """
    path = _path(list(ops), first, last)
    last_use = {source: i for i, op in enumerate(path) for source in op.sources}
    alive = {first}
    run: list[Op] = []
    ends: list[str] = []
    for i, op in enumerate(path):
        if op.kind == "linear" and run:
            ends.append(_end(run))
            run = []
        alive = {name for name in (*alive, op.name) if last_use.get(name, -1) > i}
        if alive <= {op.name}:
            run.append(op)
    return tuple([*ends, _end(run)] if run else ends)


def _path(ops: list[Op], first: str, last: str) -> list[Op]:
    """Return the operators between two values, without what they read from elsewhere."""
    known = {first}
    after = []
    for op in ops:
        if sources := tuple(s for s in op.sources if s in known):
            known.add(op.name)
            after.append(replace(op, sources=sources))
    needed, path = {last}, []
    for op in reversed(after):
        if op.name in needed:
            needed.update(op.sources)
            path.append(op)
    return path[::-1]


def _end(run: list[Op]) -> str:
    """Return the last sum or activation of a run, for a pooled or reshaped map says no more."""
    told = [op for op in run if op.kind in ("join", "activation")]
    return (told or run)[-1].name
