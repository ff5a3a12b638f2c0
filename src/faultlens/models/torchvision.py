"""Classifiers of torchvision: the name of an architecture and a weights file."""

import os
from typing import Any

from faultlens.errors import InputError, MissingDependencyError, nearest
from faultlens.models.description import ModelDescription, resolve
from faultlens.models.pytorch import TorchClassifier, from_module
from faultlens.models.pytorch_weights import load_weights, need_weights


def load(
    target: str,
    *,
    description: ModelDescription | None = None,
    split_at: str | None = None,
    weights: str | os.PathLike[str] | None = None,
    allow_pickle: bool = False,
) -> TorchClassifier:
    """Make a model of torchvision, put weights into it, and cut it into encoder and head.

    Nothing is downloaded.

    Args:
        target: Name of a classifier in `torchvision.models`, such as `resnet18`. Its number of
            classes is that of the description.
        description: Class names and preprocessing; needed, since weights carry none.
        split_at: Name of the first module of the head, instead of the last linear layer.
        weights: A `.safetensors` file whose names match exactly; needed.
        allow_pickle: Also take weights of `torch.save`, such as torchvision's own `.pth` files,
            which can run code when opened.

    Raises:
        InputError: The architecture is unknown, weights or description are missing or do not fit,
            or see `faultlens.models.pytorch.from_module`.
        MissingDependencyError: torchvision is not installed, or not one that fits torch.
    """
    name, models = f"torchvision:{target}", _library()
    known = models.list_models(module=models)
    if target not in known:
        raise InputError(
            f"model must be a classifier of torchvision, got '{target}'; {nearest(target, known)}"
        )
    description = resolve(description, model=name)
    file = need_weights(weights, name)
    module = models.get_model(target, weights=None, num_classes=len(description.classes))
    load_weights(module, file, allow_pickle=allow_pickle)
    return from_module(module, description, split_at, name=name)


def _library() -> Any:
    try:
        from torchvision import models  # noqa: PLC0415
    except (ImportError, RuntimeError) as error:  # RuntimeError: made for another torch
        raise MissingDependencyError("torchvision (one that fits torch)", "torchvision") from error
    return models
