"""Classifiers of timm: an architecture with a weights file, or a folder of a timm checkpoint."""

import json
import math
import os
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

from faultlens.data.preprocess import Preprocessing
from faultlens.errors import InputError, MissingDependencyError, nearest
from faultlens.models.description import ModelDescription, Record, resolve
from faultlens.models.pytorch import TorchClassifier, from_module
from faultlens.models.pytorch_weights import load_weights, need_weights

_CONFIG, _SAFE, _PICKLE = "config.json", "model.safetensors", "pytorch_model.bin"


def load(
    target: str,
    *,
    description: ModelDescription | None = None,
    split_at: str | None = None,
    weights: str | os.PathLike[str] | None = None,
    allow_pickle: bool = False,
) -> TorchClassifier:
    """Make a model of timm, put weights into it, and cut it into encoder and head.

    Nothing is downloaded.

    Args:
        target: The name of an architecture, such as `resnet50`, whose number of classes is that
            of the description, or with a tag, such as `resnet50.a1_in1k`; or a folder with timm's
            `config.json` and `model.safetensors`, which states architecture, class names and
            preprocessing.
        description: Class names and preprocessing; needed with a name, wins over a folder's.
        split_at: Name of the first module of the head, instead of the last linear layer.
        weights: A `.safetensors` file whose names match exactly; needed with a name.
        allow_pickle: Also take weights of `torch.save`, which can run code when opened.

    Raises:
        InputError: The architecture is unknown, weights or description are missing or do not fit,
            or see `faultlens.models.pytorch.from_module`.
        MissingDependencyError: timm is not installed.
    """
    name, timm = f"timm:{target}", _library()
    folder = Path(target).expanduser()
    if not folder.is_dir():
        description = resolve(description, model=name)
        module = _made(timm, target, name, num_classes=len(description.classes))
        load_weights(module, need_weights(weights, name), allow_pickle=allow_pickle)
        return from_module(module, description, split_at, name=name)
    config = _read(folder / _CONFIG)
    if description is None:
        description = ModelDescription(
            classes=_classes(config, folder),
            preprocessing=_preprocessing(timm, config["pretrained_cfg"], str(folder / _CONFIG)),
        )
    stored = _SAFE if (folder / _SAFE).is_file() or not allow_pickle else _PICKLE
    arguments = {"num_classes": len(description.classes), **config.get("model_args", {})}
    module = _made(timm, str(config.get("architecture")), name, **arguments)
    load_weights(module, weights or folder / stored, allow_pickle=allow_pickle)
    return from_module(module, description, split_at, name=name)


def recorded(
    target: str, missing: Set[str], *, weights: str | os.PathLike[str] | None = None
) -> Record:
    """Return what timm, or the folder of a checkpoint, knows of named weights.

    Args:
        target: As for `load`. A name says by its tag which weights it means; one without a tag
            says nothing of how a file of weights was trained.
        missing: What the user left out: `classes`, which only a folder names, `preprocessing`.
        weights: Not looked at.

    Raises:
        InputError: The architecture or its tag is unknown, or the record is not of squares and
            centre crops.
        MissingDependencyError: timm is not installed.
    """
    timm, folder = _library(), Path(target).expanduser()
    if folder.is_dir():
        config = _read(folder / _CONFIG)
        classes = _classes(config, folder) if "classes" in missing else None
        if "preprocessing" not in missing:
            return Record(classes=classes)
        cfg = config["pretrained_cfg"]
        return Record(_preprocessing(timm, cfg, str(folder / _CONFIG)), classes)
    architecture, _, tag = target.partition(".")
    _check_known(timm, architecture, f"timm:{target}")
    tags = [name.partition(".")[2] for name in timm.list_pretrained(f"{architecture}.*")]
    if not tag:
        shown = ", ".join(f"timm:{architecture}.{known}" for known in tags[:3])
        return Record(hint=(
            f"timm:{architecture} does not say which weights the file was trained from; name them "
            f"({shown or 'timm has none of these'}) to take timm's preprocessing, or state it"
        ))  # fmt: skip
    if tag not in tags:
        raise InputError(f"model must have a tag of timm's, got '{target}'; {nearest(tag, tags)}")
    cfg = timm.models.get_pretrained_cfg(target).to_dict()
    return Record(_preprocessing(timm, cfg, f"timm's record of {target}"))


def _library() -> Any:
    try:
        import timm  # noqa: PLC0415
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision of another torch
        raise MissingDependencyError("timm (with a torchvision that fits torch)", "timm") from error
    return timm


def _check_known(timm: Any, architecture: str, name: str) -> None:
    if not timm.is_model(architecture):
        raise InputError(
            f"model must be an architecture of timm {timm.__version__} or a folder, got "
            f"'{architecture}' in {name}; {nearest(architecture, timm.list_models())}"
        )


def _made(timm: Any, architecture: str, name: str, **arguments: Any) -> Any:
    _check_known(timm, architecture, name)
    try:
        return timm.create_model(architecture, pretrained=False, **arguments)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{name} must be a classifier that timm makes with {arguments}, got an error ({error})"
        ) from error


def _read(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"folder of a timm model must hold a readable {_CONFIG}, got '{path}' ({error}); "
            "give an architecture, or the folder that timm.models.save_for_hf wrote"
        ) from error
    if not isinstance(config, dict) or not isinstance(config.get("pretrained_cfg"), dict):
        raise InputError(f"{path} must be timm's, with a 'pretrained_cfg', got something else")
    return config


def _classes(config: Mapping[str, Any], folder: Path) -> tuple[str, ...]:
    cfg = config["pretrained_cfg"]
    names = config.get("label_names") or cfg.get("label_names")
    if not isinstance(names, list) or len(names) != config.get("num_classes", len(names)):
        raise InputError(
            f"{folder / _CONFIG} must name its {config.get('num_classes', '')} classes in "
            "'label_names', got another number or none; name them with --preprocess"
        )
    return tuple(map(str, names))


def _preprocessing(timm: Any, cfg: Mapping[str, Any], source: str) -> Preprocessing:
    """Return what timm's own evaluation does: resize, centre crop, normalise."""
    missing = [key for key in ("input_size", "mean", "std", "interpolation") if key not in cfg]
    if missing or cfg.get("crop_mode", "center") != "center" or cfg["input_size"][0] != 3:
        raise InputError(
            f"{source} must state {', '.join(missing) or 'a centre crop of 3 channels'} "
            "in 'pretrained_cfg', got something else; state the preprocessing with --preprocess"
        )
    data = timm.data.resolve_data_config(pretrained_cfg=cfg)
    _, height, width = data["input_size"]
    scaled = [math.floor(side / data["crop_pct"]) for side in (height, width)]
    if height != width:
        raise InputError(
            f"pictures of {source} must be square, got {height} × {width}; state the "
            "preprocessing with --preprocess"
        )
    return Preprocessing(
        resize=scaled[0],
        crop=height,
        interpolation=data["interpolation"],
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
    ).taken_from(source)
