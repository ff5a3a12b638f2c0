"""Classifiers of torchvision: the name of an architecture and a weights file."""

import os
from collections.abc import Set
from pathlib import Path
from typing import Any

from faultlens.data.preprocess import Preprocessing
from faultlens.errors import InputError, MissingDependencyError, nearest
from faultlens.files import sha256_file
from faultlens.models.description import ModelDescription, Record, resolve
from faultlens.models.pytorch import TorchClassifier, from_module
from faultlens.models.pytorch_weights import load_weights, need_weights

#: Digits of a hash in the names of published files.
_N_HASH = 8


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
        target: Name of a classifier in `torchvision.models`, such as `resnet18`, or with a tag,
            such as `resnet18.IMAGENET1K_V1`. Its number of classes is that of the description.
        description: Class names and preprocessing; needed, see `recorded`.
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
    architecture = _known(models, target)
    description = resolve(description, model=name)
    file = need_weights(weights, name)
    module = models.get_model(architecture, weights=None, num_classes=len(description.classes))
    load_weights(module, file, allow_pickle=allow_pickle)
    return from_module(module, description, split_at, name=name)


def recorded(
    target: str, missing: Set[str], *, weights: str | os.PathLike[str] | None = None
) -> Record:
    """Return what torchvision knows of named weights: preprocessing and class names.

    Args:
        target: As for `load`. A name says by its tag which weights it means.
        missing: What the user left out; not looked at.
        weights: The file; without a tag, one that torchvision published is known by the hash that
            is part of its published name.

    Raises:
        InputError: The architecture or its tag is unknown.
        MissingDependencyError: torchvision is not installed.
    """
    models = _library()
    architecture, tag = _known(models, target), target.partition(".")[2]
    published = dict(models.get_model_weights(architecture).__members__)
    published.pop("DEFAULT", None)  # another name for one of the others
    if tag and tag not in published:
        raise InputError(
            f"model must have a tag of torchvision's, got '{target}'; {nearest(tag, published)}"
        )
    found = published.get(tag) or _by_hash(list(published.values()), weights)
    if found is None:
        shown = ", ".join(f"torchvision:{architecture}.{known}" for known in published)
        return Record(hint=(
            f"torchvision:{architecture} does not say which weights the file was trained from; "
            f"name them ({shown}) to take torchvision's preprocessing, or state it"
        ))  # fmt: skip
    classes = tuple(found.meta["categories"])
    return Record(_preprocessing(found.transforms()).taken_from(f"torchvision's {found}"), classes)


def _known(models: Any, target: str) -> str:
    architecture, known = target.partition(".")[0], models.list_models(module=models)
    if architecture not in known:
        raise InputError(
            "model must be a classifier of torchvision, got "
            f"'{architecture}'; {nearest(architecture, known)}"
        )
    return str(architecture)


def _by_hash(published: list[Any], weights: str | os.PathLike[str] | None) -> Any:
    """Find the published weights that a file holds: names end in the start of their SHA-256."""
    if weights is None or not os.path.isfile(weights):
        return None
    digest = sha256_file(Path(weights))
    for known in published:
        start = known.url.rpartition("-")[2].partition(".")[0]
        if len(start) >= _N_HASH and digest.startswith(start):
            return known
    return None


def _preprocessing(preset: Any) -> Preprocessing:
    """Put torchvision's preset for classification into the terms of a description."""
    (resize,), (crop,) = preset.resize_size, preset.crop_size
    return Preprocessing(
        resize=resize, crop=crop, interpolation=preset.interpolation.value,
        mean=tuple(preset.mean), std=tuple(preset.std),
    )  # fmt: skip


def _library() -> Any:
    try:
        from torchvision import models  # noqa: PLC0415
    except (ImportError, RuntimeError) as error:  # RuntimeError: made for another torch
        raise MissingDependencyError("torchvision (one that fits torch)", "torchvision") from error
    return models
