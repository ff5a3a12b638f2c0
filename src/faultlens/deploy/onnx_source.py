"""The graph of a classifier, whatever it was loaded from."""

import sys
from dataclasses import dataclass

import onnx
import onnx.compose
import onnx.version_converter

from faultlens.deploy.onnx_nodes import LEAST_OPSET
from faultlens.errors import InputError
from faultlens.models.classifier import Classifier
from faultlens.models.onnx import OnnxClassifier
from faultlens.onnx_session import first_line

#: Tensors of the classifier get this in front, so that `score` and `accept` are free.
_PREFIX = "classifier/"


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """A graph with its embedding and logits.

    Attributes:
        model: With weights; at least of the version that the monitor's operators need.
        embedding: Name of what the head reads.
        logits: Name of what it writes.
    """

    model: onnx.ModelProto
    embedding: str
    logits: str

    @property
    def opset(self) -> int:
        """Version of the standard operators."""
        return _opset(self.model)


def classifier_graph(model: Classifier) -> Source:
    """Return the ONNX graph of a classifier.

    Args:
        model: Loaded from an ONNX file, or a PyTorch module, which is traced.

    Raises:
        InputError: It is of another kind, or its graph cannot be had.
    """
    if isinstance(model, OnnxClassifier):
        source = Source(model.read_again(), model.cut.embedding, model.cut.logits)
    else:
        source = _traced(model)
    current = _converted(source.model, model.name)
    renamed = onnx.compose.add_prefix(current, _PREFIX, rename_inputs=False)
    inputs = {i.name for i in renamed.graph.input}

    def name(tensor: str) -> str:
        return tensor if tensor in inputs else f"{_PREFIX}{tensor}"

    return Source(renamed, name(source.embedding), name(source.logits))


def _traced(model: Classifier) -> Source:
    if "torch" in sys.modules:
        from faultlens.deploy.pytorch_graph import traced  # noqa: PLC0415  needs torch

        found = traced(model)
        if found is not None:
            return Source(*found)
    raise InputError(
        f"model must be an ONNX file or a PyTorch module to be exported, got {model.name}; export "
        "the network to ONNX and give onnx:FILE"
    )


def _opset(model: onnx.ModelProto) -> int:
    return next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)


def _converted(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """Return the model, of a newer operator version where its own is too old."""
    found = _opset(model)
    if found >= LEAST_OPSET:
        return model
    try:
        return onnx.version_converter.convert_version(model, LEAST_OPSET)
    except Exception as error:  # The converter's errors share no narrower class.
        raise InputError(
            f"model must be of operator version {LEAST_OPSET} or newer, got {name} of {found}, "
            f"which cannot be converted ({first_line(error)}); export the network again"
        ) from error
