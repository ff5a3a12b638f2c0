"""A new head for an ONNX file: its last linear layer gets other numbers."""

import os
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnx.inliner
from onnx import NodeProto, TensorProto, helper, numpy_helper

from faultlens.arrays import Array, FloatArray
from faultlens.errors import InputError
from faultlens.files import write_atomic
from faultlens.models.description import ModelDescription
from faultlens.models.head import Head
from faultlens.models.onnx import OnnxClassifier, load

_NAME = "faultlens.head"
_LINEAR = ("Gemm", "MatMul", "Conv")
_TYPES = {np.dtype(t): t for t in (np.float16, np.float32, np.float64)}


def patch_head(
    source: str | os.PathLike[str],
    classifier: OnnxClassifier,
    head: Head,
    out: str | os.PathLike[str],
) -> None:
    """Write a copy of an ONNX file with another linear head.

    The last linear layer takes the new weight and bias, and what is added after it becomes zero;
    nothing else changes. The copy is run before it is written: its logits must be those of `head`.

    Args:
        source: The file.
        classifier: As loaded from it.
        head: Of the same embedding and classes.
        out: The file to write.

    Raises:
        InputError: The head is not one linear layer, or the copy does not give its logits.
    """
    if not (classifier.head.is_linear and head.is_linear):
        raise InputError("head must be linear to be put into an ONNX file, got a chain of layers")
    model = onnx.load(os.fspath(source))
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    nodes = _path(model, classifier.split, head)
    _put(model, nodes, head)
    data = model.SerializeToString()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "patched.onnx"
        copy.write_bytes(data)
        about = ModelDescription(
            classes=classifier.class_names, preprocessing=classifier.preprocessing
        )
        # Loading runs the copy and checks its logits against the head read from its graph.
        found = load(copy, description=about, split_at=classifier.split).head
    if not _agree(found, head, classifier.tolerance):
        raise InputError(
            f"model must take a new head in its last layer, got another result from "
            f"'{source}'; put the head's weights in by hand"
        )
    write_atomic(Path(out), data)


def _agree(found: Head, head: Head, tolerance: float) -> bool:
    pairs = ((found.weight, head.weight), (found.bias, head.bias))
    return all(np.abs(a - b).max() <= tolerance * max(np.abs(b).max(), 1e-30) for a, b in pairs)


def _path(model: onnx.ModelProto, embedding: str, head: Head) -> list[NodeProto]:
    """Return the nodes from the embedding to an output, first the one that reads the embedding."""
    readers: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    nodes: list[NodeProto] = []
    tensor = embedding
    while following := readers.get(tensor, []):
        # Other readers, such as an output of the embedding itself, lead to no linear layer.
        linear = [node for node in following if node.op_type in _LINEAR] or following
        if len(linear) > 1:
            break
        nodes += linear
        tensor = linear[0].output[0]
    if sum(node.op_type in _LINEAR for node in nodes) != 1:
        raise InputError(
            f"model must have one linear layer after '{embedding}' to put a head of "
            f"{head.n_classes} classes into, got another form; put the weights in by hand"
        )
    return nodes


def _put(model: onnx.ModelProto, nodes: list[NodeProto], head: Head) -> None:
    at = next(i for i, node in enumerate(nodes) if node.op_type in _LINEAR)
    stored = {t.name: t for t in model.graph.initializer}
    layer = nodes[at]
    kind = _kind(stored, layer)
    weight, bias = head.weight.astype(kind), head.bias.astype(kind)
    computed = {name for node in nodes for name in node.output}
    for node in nodes[at + 1 :]:
        if node.op_type == "Add":
            _zero(model, node, computed, kind)
    if layer.op_type == "MatMul":
        _put_matmul(model, layer, weight.T, bias)
    else:
        _put_layer(model, layer, weight, bias)
    used = {name for node in model.graph.node for name in node.input}
    for tensor in list(model.graph.initializer):
        if tensor.name in stored and tensor.name not in used:
            model.graph.initializer.remove(tensor)


def _kind(stored: dict[str, TensorProto], layer: NodeProto) -> np.dtype[np.generic]:
    """Return the precision of the layer: that of its stored numbers, else single."""
    for name in layer.input[1:]:
        if name in stored:
            dtype = np.dtype(numpy_helper.to_array(stored[name]).dtype)
            if dtype in _TYPES:
                return dtype
    return np.dtype(np.float32)


def _put_layer(model: onnx.ModelProto, layer: NodeProto, weight: Array, bias: Array) -> None:
    if layer.op_type == "Conv":
        weight = weight[:, :, None, None]
    else:
        kept = [a for a in layer.attribute if a.name not in ("alpha", "beta", "transB")]
        del layer.attribute[:]
        layer.attribute.extend([*kept, helper.make_attribute("transB", 1)])
    source = layer.input[0]
    del layer.input[:]
    layer.input.extend([source, _store(model, "weight", weight), _store(model, "bias", bias)])


def _put_matmul(model: onnx.ModelProto, layer: NodeProto, weight: Array, bias: Array) -> None:
    """MatMul has no bias of its own: an Add follows it."""
    result, product = layer.output[0], f"{_NAME}.product"
    layer.input[1] = _store(model, "weight", np.ascontiguousarray(weight))
    layer.output[0] = product
    place = next(i for i, node in enumerate(model.graph.node) if product in node.output)
    add = helper.make_node("Add", [product, _store(model, "bias", bias)], [result])
    model.graph.node.insert(place + 1, add)


def _zero(
    model: onnx.ModelProto, node: NodeProto, computed: set[str], kind: np.dtype[np.generic]
) -> None:
    for i, name in enumerate(node.input):
        if name not in computed:
            node.input[i] = _store(model, f"zero.{node.output[0]}", np.zeros(1, kind))


def _store(model: onnx.ModelProto, name: str, values: FloatArray) -> str:
    full = f"{_NAME}.{name}"
    model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(values), full))
    return full
