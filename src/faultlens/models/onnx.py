"""Classifiers stored as ONNX files, run by ONNX Runtime."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import onnx
import onnx.inliner
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import external_data_helper

from faultlens.arrays import Array, FloatArray
from faultlens.errors import InputError
from faultlens.models.adapter import CannotRunError, Facts, SplitClassifier
from faultlens.models.chain import Cut
from faultlens.models.checks import check_split, probe
from faultlens.models.description import ModelDescription, resolve
from faultlens.models.graph import graph_facts
from faultlens.models.onnx_graph import OnnxGraph
from faultlens.models.stages import block_ends
from faultlens.onnx_session import first_line, open_session

_PREFIX = "faultlens."
_EMBEDDING, _LOGITS, _STAGE = "faultlens.embedding", "faultlens.logits", "faultlens.stage."


class OnnxClassifier(SplitClassifier):
    """A classifier in an ONNX file; see `load`."""

    def __init__(self, facts: Facts, path: Path, model: onnx.ModelProto, threads: int | None):
        super().__init__(facts)
        graph = OnnxGraph(model)
        self._input_name, self._input_type = graph.input_name, graph.input_type
        self._facts, self._path, self._threads = facts, path, threads
        self._outputs = [_EMBEDDING, _LOGITS]
        self._session = _session(model, facts, (), threads)

    def _run(self, batch: FloatArray) -> Sequence[Array]:
        feeds = {self._input_name: batch.astype(self._input_type, copy=False)}
        try:
            found: list[Array] = self._session.run(self._outputs, feeds)
        except Exception as error:  # ONNX Runtime's errors share no narrower class.
            raise CannotRunError(
                f"batch must be one that {self.name} can take, got shape {batch.shape} "
                f"({first_line(error)}); check layout, resize and crop of the preprocessing"
            ) from error
        return found

    def candidates(self) -> tuple[str, ...]:
        """Return the ends of the encoder's blocks, as tensors, in the order of the graph."""
        graph = OnnxGraph(self.read_again())
        return block_ends(graph.ops(), graph.input_name, self.split)

    def _stage_names(self) -> set[str]:
        model = self.read_again()
        return (OnnxGraph(model).names() | {node.name for node in model.graph.node}) - {""}

    def with_stages(self, names: Sequence[str]) -> Self:
        """Return the same classifier, watched at tensors or nodes; see `SplitClassifier`."""
        watched = super().with_stages(names)
        model = self.read_again()
        graph = OnnxGraph(model)
        tensors = [graph.tensor_of(name) or name for name in names]
        watched._outputs = [_EMBEDDING, _LOGITS, *(f"{_STAGE}{i}" for i in range(len(tensors)))]
        watched._session = _session(model, self._facts, tensors, self._threads)
        return watched

    @property
    def cut(self) -> Cut:
        """Where the graph is cut into encoder and head."""
        return self._facts.cut

    def read_again(self) -> onnx.ModelProto:
        """Return the graph with its weights, from the file.

        Raises:
            InputError: The file was moved or changed since it was loaded.
        """
        # Keeping the graph would keep all weights twice.
        model, digest = _read(self._path)
        if digest != self._facts.digest:
            raise InputError(
                f"model must stay as it was loaded, got a changed '{self._path}'; load it again"
            )
        return model


def load(
    path: str | os.PathLike[str],
    *,
    description: ModelDescription | None = None,
    split_at: str | None = None,
    weights: str | os.PathLike[str] | None = None,
    allow_pickle: bool = False,
    threads: int | None = None,
) -> OnnxClassifier:
    """Load an ONNX file and cut it into encoder and head.

    The cut is at the input of the last linear layer (Gemm, MatMul + Add, or a 1 × 1 Conv on a
    1 × 1 map); reshapes and a softmax after that layer are seen through.

    Args:
        path: The file; external data lie beside it.
        description: Class names and preprocessing. The file may carry them itself, in the
            metadata `faultlens.classes` and `faultlens.preprocessing` (JSON).
        split_at: Name of the tensor that is the embedding, instead of the last layer's input.
        weights: Not for ONNX, whose files hold their weights.
        allow_pickle: Nothing to allow here; every loader takes it.
        threads: ONNX Runtime's threads within an operator; None lets it choose.

    Raises:
        InputError: The file cannot be read or run, has no usable head, holds NaN, or does not
            agree with its description.

    Example:
        >>> import tempfile
        >>> model = onnx.parser.parse_model('''
        ...     <ir_version: 8, opset_import: ["" : 17]>
        ...     net (float[N,3,H,W] x) => (float[N,2] y)
        ...     <float[2,3] w = {1, 0, 0, 0, 1, 0}, float[2] b = {0, 1}>
        ...     { p = GlobalAveragePool(x)  z = Flatten(p)  y = Gemm<transB=1>(z, w, b) }''')
        >>> file = Path(tempfile.mkdtemp()) / "net.onnx"
        >>> onnx.save(model, file)
        >>> plain = {"resize": 8, "crop": 8, "mean": (0, 0, 0), "std": (1, 1, 1)}
        >>> classifier = load(file, description=ModelDescription(
        ...     classes=("dark", "bright"), preprocessing=plain))
        >>> classifier.split, classifier.dimension, classifier.head.n_classes
        ('z', 3, 2)
    """
    path = Path(path)
    name = f"onnx:{path.name}"
    if weights is not None:
        raise InputError(
            f"weights must not be given for {name}, got '{weights}'; an ONNX file holds its own"
        )
    model, digest = _read(path)
    description = resolve(description, model=name, found=_embedded(model, name), split_at=split_at)
    facts = graph_facts(OnnxGraph(model), description, name=name, digest=digest)
    classifier = OnnxClassifier(facts, path, model, threads)
    batch, _ = probe(classifier.preprocessing, classifier.input_shape, classifier.encode)
    check_split(classifier, batch)
    return classifier


def _read(path: Path) -> tuple[onnx.ModelProto, str]:
    """Return the model with all its weights, and a hash of its bytes on disk."""
    if not path.is_file():
        raise InputError(f"model must be an existing file, got '{path}'; check the path")
    data = path.read_bytes()
    try:
        model = onnx.load_model_from_string(data)
    except DecodeError as error:
        raise InputError(
            f"model must be an ONNX file, got something else or a damaged file in '{path}'; "
            "export or download it again"
        ) from error
    if not model.graph.node:
        raise InputError(f"model must be an ONNX file, got no operators in '{path}'")
    outside = [t for t in model.graph.initializer if external_data_helper.uses_external_data(t)]
    try:
        external_data_helper.load_external_data_for_model(model, str(path.parent))
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise InputError(
            f"model must have its external data beside it, got '{path}' without "
            f"({first_line(error)}); copy the data file into the same folder"
        ) from error
    digest = hashlib.sha256(data)
    for tensor in outside:
        digest.update(tensor.raw_data)
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    return model, digest.hexdigest()


def _embedded(model: onnx.ModelProto, name: str) -> ModelDescription | None:
    """Return the description that the file carries in its metadata, if any."""
    values = {}
    for entry in model.metadata_props:
        if entry.key.startswith(_PREFIX):
            try:
                values[entry.key.removeprefix(_PREFIX)] = json.loads(entry.value)
            except json.JSONDecodeError as error:
                raise InputError(
                    f"metadata '{entry.key}' of {name} must be JSON, got {entry.value!r} ({error})"
                ) from error
    return ModelDescription.from_mapping(values, source=f"metadata of {name}") if values else None


def _session(
    model: onnx.ModelProto, facts: Facts, stages: Sequence[str], threads: int | None
) -> Any:
    """Give the model embedding, logits and stages as outputs, and return a quiet session of it."""
    del model.graph.output[:]
    outputs = {_EMBEDDING: facts.cut.embedding, _LOGITS: facts.cut.logits}
    outputs |= {f"{_STAGE}{i}": tensor for i, tensor in enumerate(stages)}
    for output, source in outputs.items():
        model.graph.node.append(onnx.helper.make_node("Identity", [source], [output]))
        model.graph.output.append(onnx.ValueInfoProto(name=output))
    try:
        return open_session(model.SerializeToString(), threads=threads)
    except Exception as error:  # ONNX Runtime's errors share no narrower class.
        raise InputError(
            f"model must be one that ONNX Runtime can run, got {facts.name} ({first_line(error)})"
        ) from error
