"""The ONNX graph of a PyTorch classifier, by tracing."""

import tempfile
import warnings
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn

from faultlens.deploy.onnx_nodes import LEAST_OPSET
from faultlens.errors import InputError
from faultlens.models.checks import probe
from faultlens.models.classifier import Classifier
from faultlens.models.pytorch import TorchClassifier
from faultlens.models.pytorch_export import ExportedClassifier
from faultlens.models.pytorch_split import ModuleSplit, evaluating, placement, to_tensor

_OPSET = max(LEAST_OPSET, 17)
_NAMES = ("embedding", "logits")


class _Split(nn.Module):
    """A module that gives what its head reads and what it writes."""

    def __init__(self, module: nn.Module, split: ModuleSplit) -> None:
        super().__init__()
        self.module = module
        first, last = (
            module.get_submodule(name) for name in (split.cut.embedding, split.cut.logits)
        )
        self._seen: dict[str, torch.Tensor] = {}
        self._hooks = (
            first.register_forward_pre_hook(self._reads, with_kwargs=True),
            last.register_forward_hook(self._writes),
        )

    def _reads(self, _: nn.Module, args: Any, kwargs: Any) -> None:
        self._seen["embedding"] = (*args, *kwargs.values())[0]

    def _writes(self, _: nn.Module, __: Any, output: torch.Tensor) -> None:
        self._seen["logits"] = output

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.module(x)
        return self._seen.pop("embedding"), self._seen.pop("logits")

    def release(self) -> None:
        for hook in self._hooks:
            hook.remove()


class _Program(nn.Module):
    """An exported program as a module; it has no modes, so it may not be found as a child."""

    def __init__(self, program: nn.Module) -> None:
        super().__init__()
        self._program = (program,)
        # The tracer knows weights by identity, whatever they are called.
        for i, weight in enumerate(program.parameters()):
            self.register_parameter(f"weight_{i}", weight)
        for i, buffer in enumerate(program.buffers()):
            self.register_buffer(f"buffer_{i}", buffer)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        embedding, logits = self._program[0](x)
        return embedding, logits


def traced(model: Classifier) -> tuple[onnx.ModelProto, str, str] | None:
    """Return the graph of a PyTorch classifier and the names of its embedding and logits.

    Returns:
        None for a classifier of another kind.

    Raises:
        InputError: The tracer does not know an operator of the network.
    """
    if isinstance(model, TorchClassifier):
        split = _Split(model.module, model.cut_at)
        device, dtype = placement(model.module)
        try:
            return _graph(model, split, torch.from_numpy(model.example).to(device, dtype))
        finally:
            split.release()
    if isinstance(model, ExportedClassifier):
        batch, _ = probe(model.preprocessing, model.input_shape, model.encode)
        size = model.input_shape[0] or len(batch)
        x = to_tensor(batch).to(model.input_type)
        return _graph(model, _Program(model.module), x[:size])
    return None


def _graph(
    model: Classifier, module: nn.Module, x: torch.Tensor
) -> tuple[onnx.ModelProto, str, str]:
    names = {name: {0: "N"} for name in ("input", *_NAMES)}
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            warnings.catch_warnings(),
            evaluating(module),
        ):
            file = Path(folder) / "network.onnx"
            warnings.simplefilter("ignore")  # on the tracer's age, and on shapes it takes as fixed
            torch.onnx.export(
                module, (x,), file, input_names=["input"], output_names=list(_NAMES),
                dynamic_axes=names, opset_version=_OPSET, dynamo=False,
            )  # fmt: skip
            return onnx.load(str(file)), *_NAMES
    except Exception as error:  # What torch raises here depends on its version.
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"model must be one that torch.onnx can trace, got {model.name} ({reason}); export "
            "the network to ONNX yourself and give onnx:FILE"
        ) from error
