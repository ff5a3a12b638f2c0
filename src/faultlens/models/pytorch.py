"""Classifiers in PyTorch: made by a factory, exported by `torch.export`, or a live module."""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence

from faultlens.arrays import Array, FloatArray, tensor_hashes
from faultlens.errors import InputError, MissingDependencyError

try:
    import torch
except ImportError as error:
    raise MissingDependencyError("torch", "torch") from error

from torch import nn

from faultlens.models.adapter import Facts, SplitClassifier
from faultlens.models.checks import check_classes, check_split, check_weights, probe
from faultlens.models.description import ModelDescription, resolve
from faultlens.models.drift import ChannelScales, NormDrift
from faultlens.models.pytorch_blocks import find_blocks
from faultlens.models.pytorch_channels import channel_scales
from faultlens.models.pytorch_export import load_export
from faultlens.models.pytorch_norms import norm_drift
from faultlens.models.pytorch_split import (
    ModuleSplit,
    cannot_run,
    find_split,
    placement,
    run_split,
    to_numpy,
)
from faultlens.models.pytorch_weights import load_weights, make_module

__all__ = ["TorchClassifier", "from_module", "load_export", "load_factory"]


class TorchClassifier(SplitClassifier):
    """A live module; see `from_module`.

    Attributes:
        module: The module itself.
        cut_at: Where it is cut into encoder and head.
        example: A batch that it can take.
    """

    def __init__(
        self, facts: Facts, module: nn.Module, split: ModuleSplit, batch: FloatArray
    ) -> None:
        super().__init__(facts)
        self.module, self.cut_at, self.example = module, split, batch

    def _run(self, batch: FloatArray) -> Sequence[Array]:
        with cannot_run(self.name, batch.shape):
            found = run_split(self.module, self.cut_at, batch, self.stages)
        return [to_numpy(tensor) for tensor in found]

    def candidates(self) -> tuple[str, ...]:
        """Return the blocks of the encoder, as modules, in the order in which they run."""
        return find_blocks(self.module, self.example, self.cut_at.layers)

    def _stage_names(self) -> set[str]:
        return {name for name, _ in self.module.named_modules() if name}

    def norm_drift(self, batches: Iterable[FloatArray]) -> list[NormDrift]:
        """Return what each batch-normalisation layer is fed, against what it remembers."""
        return norm_drift(self.module, batches)

    def channel_scales(self, batches: Iterable[FloatArray], layer: str) -> ChannelScales | None:
        """Return at what sizes channels arrive at a batch-normalisation layer."""
        return channel_scales(self.module, batches, layer)


def from_module(
    module: nn.Module,
    description: ModelDescription,
    split_at: str | None = None,
    device: str = "cpu",
    *,
    name: str | None = None,
) -> TorchClassifier:
    """Cut a live module into encoder and head.

    The cut is at the input of the last linear layer whose output is the logits. The module is
    not changed; head and hash are those of its weights now, so call this again after training.

    Args:
        module: Any classifier that takes a batch of pictures and gives logits, a tuple with
            them, or an object with `.logits`.
        description: Class names and preprocessing.
        split_at: Name of the first module of the head, instead of the last layer.
        device: Where the module's weights are.
        name: Shown in reports; the class of the module unless given.

    Raises:
        InputError: No usable head, weights that are NaN or elsewhere, or a module that does not
            agree with its description.

    Example:
        >>> net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
        >>> plain = {"resize": 8, "crop": 8, "mean": (0, 0, 0), "std": (1, 1, 1)}
        >>> about = ModelDescription(classes=("dark", "bright"), preprocessing=plain)
        >>> model = from_module(net, about)
        >>> model.split, model.dimension
        ('2', 3)
    """
    name = name or f"torch:{type(module).__name__}"
    description = resolve(description, model=name, split_at=split_at)
    weights = dict(_weights(module))
    check_weights(weights.items(), name=name)
    _check_device(module, torch.device(device), name)

    def find(batch: FloatArray) -> ModuleSplit:
        with cannot_run(name, batch.shape):
            return find_split(
                module, batch, split_at=description.split_at, n_classes=len(description.classes)
            )

    batch, split = probe(description.preprocessing, (None,) * 4, find)
    check_classes(description, split.cut.head, name=name)
    facts = Facts(
        name=name,
        digest=_fingerprint(module, name),
        description=description,
        cut=split.cut,
        encoder_hashes=tensor_hashes(
            w for key, w in weights.items() if key.rpartition(".")[0] not in split.layers
        ),
        is_half=placement(module)[1] in (torch.float16, torch.bfloat16),
    )
    classifier = TorchClassifier(facts, module, split, batch)
    check_split(classifier, batch)
    return classifier


def load_factory(
    target: str,
    *,
    description: ModelDescription | None = None,
    split_at: str | None = None,
    weights: str | os.PathLike[str] | None = None,
    allow_pickle: bool = False,
) -> TorchClassifier:
    """Load `MODULE.PATH:FACTORY`: import the factory, call it, and put weights into the result.

    Args:
        target: Importable from installed packages or the current folder; see `make_module`.
        description: Class names and preprocessing; needed, since a module carries none.
        split_at: Name of the first module of the head, instead of the last linear layer.
        weights: A `.safetensors` file whose names match exactly; without it the factory's own.
        allow_pickle: Also take weights of `torch.save`, which can run code when opened.

    Raises:
        InputError: See `make_module`, `load_weights` and `from_module`.

    Example:
        >>> import sys, types
        >>> sys.modules["nets"] = types.ModuleType("nets")
        >>> sys.modules["nets"].make = lambda: nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
        >>> plain = {"resize": 2, "crop": 2, "mean": (0, 0, 0), "std": (1, 1, 1)}
        >>> about = ModelDescription(classes=("dark", "bright"), preprocessing=plain)
        >>> load_factory("nets:make", description=about).name
        'torch:nets:make'
        >>> _ = sys.modules.pop("nets")
    """
    name = f"torch:{target}"
    description = resolve(description, model=name)
    module = make_module(target)
    if weights is not None:
        load_weights(module, weights, allow_pickle=allow_pickle)
    return from_module(module, description, split_at, name=name)


def _weights(module: nn.Module) -> Iterator[tuple[str, Array]]:
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.is_floating_point():
            yield name, to_numpy(tensor)


def _check_device(module: nn.Module, device: torch.device, name: str) -> None:
    found, _ = placement(module)
    if found.type != device.type:
        raise InputError(
            f"device must be where the weights of {name} are, '{found}', got '{device}'; "
            f"pass device='{found}'"
        )


def _fingerprint(module: nn.Module, name: str) -> str:
    """Hash the structure and the whole state of a module."""
    structure = re.sub(r" at 0x[0-9a-fA-F]+", "", repr(module))
    digest = hashlib.sha256(f"{name}\n{structure}".encode())
    for key, tensor in module.state_dict().items():
        if isinstance(tensor, torch.Tensor):
            array = tensor.detach().cpu()
            digest.update(f"{key} {array.dtype} {tuple(array.shape)}".encode())
            digest.update(array.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
