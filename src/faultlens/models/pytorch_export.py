"""Classifiers saved by `torch.export.save`."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import fx

from faultlens.arrays import Array, FloatArray
from faultlens.errors import InputError
from faultlens.models.adapter import Facts, SplitClassifier
from faultlens.models.checks import check_split, probe
from faultlens.models.description import ModelDescription, resolve
from faultlens.models.graph import graph_facts
from faultlens.models.pytorch_archive import check_archive
from faultlens.models.pytorch_graph import ProgramGraph, Recorder
from faultlens.models.pytorch_split import cannot_run, to_numpy, to_tensor
from faultlens.models.stages import block_ends


class ExportedClassifier(SplitClassifier):
    """A program of `torch.export`; see `load_export`."""

    def __init__(self, facts: Facts, graph: ProgramGraph) -> None:
        super().__init__(facts)
        self.input_type = graph.input_type
        self._graph = graph
        self.module = graph.expose(facts.cut.embedding, facts.cut.logits)

    def _run(self, batch: FloatArray) -> Sequence[Array]:
        x = to_tensor(batch).to(self.input_type)
        with cannot_run(self.name, batch.shape), torch.no_grad():
            if not self.stages:
                found = self.module(x)
            else:
                run = Recorder(self.module, self.stages)
                found = [*run.run(x), *(run.seen[stage] for stage in self.stages)]
        return [to_numpy(tensor) for tensor in found]

    def candidates(self) -> tuple[str, ...]:
        """Return the ends of the encoder's blocks, as nodes, in the order of the graph."""
        return block_ends(self._graph.ops(), self._graph.input, self.split)

    def _stage_names(self) -> set[str]:
        return self._graph.names()


def load_export(
    path: str | os.PathLike[str],
    *,
    description: ModelDescription | None = None,
    split_at: str | None = None,
    weights: str | os.PathLike[str] | None = None,
    allow_pickle: bool = False,
) -> ExportedClassifier:
    """Load a program of `torch.export.save` and cut it into encoder and head.

    Args:
        path: A `.pt2` file; export it in evaluation mode, with a dynamic batch for speed.
        description: Class names and preprocessing; needed, since a program carries none.
        split_at: Name of the graph node that is the embedding, instead of the last layer's input.
        weights: Not for programs, which hold their weights.
        allow_pickle: Also open programs that can run code when opened.

    Raises:
        InputError: The file is something else, has no usable head, holds NaN, or does not agree
            with its description.

    Example:
        >>> import tempfile
        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2)).eval()
        >>> file = Path(tempfile.mkdtemp()) / "net.pt2"
        >>> torch.export.save(torch.export.export(net, (torch.ones(1, 3, 2, 2),)), file)
        >>> plain = {"resize": 2, "crop": 2, "mean": (0, 0, 0), "std": (1, 1, 1)}
        >>> about = ModelDescription(classes=("dark", "bright"), preprocessing=plain)
        >>> load_export(file, description=about).split
        'flatten'
    """
    path = Path(path)
    name = f"torch-export:{path.name}"
    if weights is not None:
        raise InputError(
            f"weights must not be given for {name}, got '{weights}'; a program holds its own"
        )
    description = resolve(description, model=name, split_at=split_at)
    graph = ProgramGraph(_read(path, allow_pickle=allow_pickle))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    facts = graph_facts(graph, description, name=name, digest=digest)
    classifier = ExportedClassifier(facts, graph)
    batch, _ = probe(classifier.preprocessing, classifier.input_shape, classifier.encode)
    check_split(classifier, batch)
    return classifier


def _read(path: Path, *, allow_pickle: bool) -> fx.GraphModule:
    """Return the program in a `.pt2` file as a graph module on the CPU.

    Args:
        path: What `torch.export.save` wrote.
        allow_pickle: Also open files that could run code.

    Raises:
        InputError: The file is something else, or torch cannot read it.
    """
    check_archive(path, allow_pickle=allow_pickle)
    try:
        with path.open("rb") as file:
            program = torch.export.load(file)
        module = program.module()
    except Exception as error:  # What torch raises here depends on its version and the damage.
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"model must be a program that torch {torch.__version__} can read, got '{path}' "
            f"({reason}); export it again with this version"
        ) from error
    if not isinstance(module, fx.GraphModule):
        raise InputError(f"model must be a program with a graph, got '{path}'; export it again")
    return module
