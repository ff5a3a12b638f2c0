"""Image classifiers of Hugging Face transformers, from a folder or from the hub."""

import json
import os
from pathlib import Path
from typing import Any

from faultlens.errors import InputError, MissingDependencyError
from faultlens.models.description import ModelDescription
from faultlens.models.huggingface_inputs import preprocessing_of
from faultlens.models.pytorch import TorchClassifier, from_module
from faultlens.quiet import quiet

_CONFIG, _PROCESSOR = "config.json", "preprocessor_config.json"
_SAFE, _PICKLE = "model.safetensors", "pytorch_model.bin"


def load(
    target: str,
    *,
    description: ModelDescription | None = None,
    split_at: str | None = None,
    weights: str | os.PathLike[str] | None = None,
    allow_pickle: bool = False,
) -> TorchClassifier:
    """Load a checkpoint of `AutoModelForImageClassification` and cut it into encoder and head.

    Weights are computed with in float32. Class names are the checkpoint's `id2label`, and the
    preprocessing is that of its `preprocessor_config.json`, put into FaultLens's own terms and
    checked against the library on a few pictures.

    Args:
        target: A folder that `save_pretrained` wrote, or an id on the Hugging Face hub.
        description: Class names and preprocessing instead of the checkpoint's.
        split_at: Name of the first module of the head, instead of the last linear layer.
        weights: Not for checkpoints, which hold their weights.
        allow_pickle: Also take weights that are no safetensors file and can run code.

    Raises:
        InputError: No such checkpoint, a file of it is missing, weights are missing in it, its
            preprocessing cannot be stated, or see `faultlens.models.pytorch.from_module`.

    Example:
        >>> load("./no/such/folder")
        Traceback (most recent call last):
        faultlens.errors.InputError: model must be a folder, got './no/such/folder', which does \
not exist; check the path
    """
    name = f"hf:{target}"
    if weights is not None:
        raise InputError(
            f"weights must not be given for {name}, got '{weights}'; a checkpoint holds its own"
        )
    folder = _find(target, allow_pickle)
    _check_files(folder, name, allow_pickle, needs_processor=description is None)
    transformers = _library()
    with quiet(transformers.logging):
        module = _module(transformers, folder, name, allow_pickle)
        about = description or ModelDescription(
            classes=_classes(module.config, name),
            preprocessing=_preprocessing(transformers, folder, name),
        )
    return from_module(module, about, split_at, name=name)


def _library() -> Any:
    try:
        import transformers  # noqa: PLC0415 (it takes seconds)
    except ImportError as error:
        raise MissingDependencyError("transformers", "hf") from error
    return transformers


def _find(target: str, allow_pickle: bool) -> Path:
    path = Path(target).expanduser()
    if path.is_dir():
        return path
    if path.exists() or target.startswith((".", "~", "/")) or target.count("/") > 1:
        got = "a file" if path.exists() else "which does not exist"
        raise InputError(f"model must be a folder, got '{target}', {got}; check the path")
    wanted = [_CONFIG, _PROCESSOR, "model*.safetensors", f"{_SAFE}.index.json"]
    wanted += ["pytorch_model*.bin", f"{_PICKLE}.index.json"] if allow_pickle else []
    try:
        from huggingface_hub import snapshot_download  # noqa: PLC0415

        return Path(snapshot_download(target, allow_patterns=wanted))
    except Exception as error:  # errors of hub, network and disk have no class in common
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"model must be a folder, or an id that the Hugging Face hub delivers, got '{target}' "
            f"({reason}); pass a folder with the checkpoint"
        ) from error


def _check_files(folder: Path, name: str, allow_pickle: bool, *, needs_processor: bool) -> None:
    if not (folder / _CONFIG).is_file():
        raise InputError(
            f"folder of {name} must hold {_CONFIG}, got none; give the folder that "
            "save_pretrained wrote"
        )
    if needs_processor and not (folder / _PROCESSOR).is_file():
        raise InputError(
            f"folder of {name} must hold {_PROCESSOR}, got none; save the image processor there "
            "as well, or state the preprocessing with --preprocess"
        )
    kinds = (_SAFE, _PICKLE) if allow_pickle else (_SAFE,)
    if any((folder / f).is_file() for kind in kinds for f in (kind, f"{kind}.index.json")):
        return
    hint = (
        f"; {_PICKLE} is a pickle, which can run any code when opened: save the model again with "
        "save_pretrained, or pass allow_pickle if you trust where it comes from"
        if (folder / _PICKLE).is_file() or (folder / f"{_PICKLE}.index.json").is_file()
        else "; copy the whole checkpoint"
    )
    raise InputError(f"folder of {name} must hold {_SAFE}, got none{hint}")


def _module(transformers: Any, folder: Path, name: str, allow_pickle: bool) -> Any:
    try:
        module, report = transformers.AutoModelForImageClassification.from_pretrained(
            folder,
            use_safetensors=None if allow_pickle else True,
            dtype="float32",
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except Exception as error:  # a damaged checkpoint fails in any way
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise InputError(
            f"{name} must be a checkpoint that AutoModelForImageClassification of transformers "
            f"{transformers.__version__} reads, got an error ({reason})"
        ) from error
    absent = sorted(report["missing_keys"])
    if absent:
        more = f" … ({len(absent)} in all)" if len(absent) > 3 else ""
        raise InputError(
            f"{name} must hold all weights of a classifier, got none for "
            f"{', '.join(map(repr, absent[:3]))}{more}; give a checkpoint that was trained to "
            "classify, not an encoder alone"
        )
    return module


def _classes(config: Any, name: str) -> tuple[str, ...]:
    labels = {int(k): str(v) for k, v in config.id2label.items()}
    found = tuple(labels[k] for k in sorted(labels))
    if len(set(found)) < len(found):
        raise InputError(
            f"class names of {name} must all differ, got {len(found) - len(set(found))} twice in "
            f"the id2label of its {_CONFIG}; give other names with --preprocess"
        )
    return found


def _preprocessing(transformers: Any, folder: Path, name: str) -> Any:
    try:
        processor = transformers.AutoImageProcessor.from_pretrained(
            folder, backend="pil", local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # whatever is wrong with the file
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise InputError(
            f"{_PROCESSOR} of {name} must be that of an image processor of transformers, got an "
            f"error ({reason}); save the image processor again"
        ) from error
    stated = json.loads((folder / _PROCESSOR).read_text(encoding="utf-8"))
    return preprocessing_of(processor, stated, name)
