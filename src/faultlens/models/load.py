"""From what a user writes, such as `onnx:net.onnx`, to a classifier."""

import os
from pathlib import Path
from typing import cast

from faultlens.errors import InputError
from faultlens.models.classifier import Classifier
from faultlens.models.description import ModelDescription
from faultlens.registry import MODELS, RECORDS

PathLike = str | os.PathLike[str]


def load_model(
    spec: str,
    *,
    weights: PathLike | None = None,
    preprocess: PathLike | ModelDescription | None = None,
    split_at: str | None = None,
    allow_pickle: bool = False,
) -> Classifier:
    """Load a classifier and cut it into encoder and head.

    Args:
        spec: `onnx:FILE`, `torch:MODULE.PATH:FACTORY` or `torch-export:FILE`; a path that ends in
            `.onnx` alone is an ONNX file too.
        weights: A `.safetensors` file for a `torch:` factory.
        preprocess: A YAML file with class names and preprocessing, or a `ModelDescription`; not
            needed where the model carries them. What the file leaves out is taken from the record
            of timm or torchvision, where the weights are named.
        split_at: Where the head begins: a tensor (ONNX), a module (torch) or a graph node
            (torch-export); None finds the last linear layer.
        allow_pickle: Also open files that can run code when opened.

    Raises:
        InputError: The kind is unknown, or the model or its description is wrong.
        MissingDependencyError: The kind needs an extra that is not installed.

    Example:
        >>> load_model("onx:net.onnx")
        Traceback (most recent call last):
        faultlens.errors.InputError: model must be a known name, got 'onx'; did you mean 'onnx'?
    """
    kind, target = _parse(spec)
    loader = MODELS.load(kind)
    description = _described(kind, target, preprocess, weights)
    classifier = loader(
        target,
        description=description,
        split_at=split_at,
        weights=weights,
        allow_pickle=allow_pickle,
    )
    return cast(Classifier, classifier)


def _described(
    kind: str,
    target: str,
    preprocess: PathLike | ModelDescription | None,
    weights: PathLike | None,
) -> ModelDescription | None:
    if isinstance(preprocess, ModelDescription):
        return preprocess
    if kind in RECORDS:
        return ModelDescription.completed(
            preprocess, lambda missing: RECORDS.load(kind)(target, missing, weights=weights)
        )
    return None if preprocess is None else ModelDescription.read(preprocess)


def _parse(spec: str) -> tuple[str, str]:
    kind, colon, target = spec.partition(":")
    if spec.endswith(".onnx") and (not colon or Path(spec).exists()):
        return "onnx", spec
    if not colon or not target:
        kinds = ", ".join(f"{kind}:…" for kind in sorted(MODELS))
        raise InputError(f"model must be written KIND:TARGET, got '{spec}'; kinds are {kinds}")
    return kind, target
