"""A Hugging Face checkpoint on disk: which of its files are used, and that none is missing."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faultlens.errors import InputError, MissingDependencyError, StoreError
from faultlens.files import read_json, sha256_file

CONFIG, WEIGHTS, PICKLE = "config.json", "model.safetensors", "pytorch_model.bin"
PREPROCESSING, PROCESSOR = "preprocessor_config.json", "processor_config.json"
_INDEX = ".index.json"
_VOCABULARIES = (
    "tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "tokenizer.model",
    "sentencepiece.bpe.model",
)  # fmt: skip
_SMALL = (
    CONFIG, PREPROCESSING, PROCESSOR, *_VOCABULARIES, "merges.txt", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ClipFolder:
    """A folder with a complete checkpoint.

    Attributes:
        path: The folder.
        name: What the user wrote for it.
        weights: Files with weights.
        preprocessing: What the checkpoint says of its pictures.
        preprocessing_file: Where it says so.
    """

    path: Path
    name: str
    weights: tuple[Path, ...]
    preprocessing: dict[str, Any]
    preprocessing_file: Path

    @classmethod
    def open(cls, target: str, *, allow_pickle: bool = False) -> "ClipFolder":
        """Find a checkpoint and check that its files are there.

        Args:
            target: A folder, or an id on the Hugging Face hub.
            allow_pickle: Also accept weights that are no safetensors file.

        Raises:
            InputError: There is no such folder, the hub does not deliver, or a file is missing;
                the message names it.
            MissingDependencyError: An id was given and the extra `clip` is not installed.

        Example:
            >>> ClipFolder.open("./absent")
            Traceback (most recent call last):
            faultlens.errors.InputError: clip must be a folder, but './absent' is none; check the \
path
        """
        path = _find(target, allow_pickle)
        if not (path / CONFIG).is_file():
            raise _missing(path, CONFIG, "give the folder that save_pretrained wrote")
        if not any((path / name).is_file() for name in _VOCABULARIES):
            raise _missing(path, _VOCABULARIES[0], "copy the tokenizer's files into it")
        weights = _weights(path, allow_pickle)
        file, preprocessing = _preprocessing(path)
        return cls(path, target, weights, preprocessing, file)

    @property
    def content_hash(self) -> str:
        """SHA-256 of every file that is used, one a line."""
        small = [self.path / name for name in _SMALL if (self.path / name).is_file()]
        return "\n".join(f"{f.name} {sha256_file(f)}" for f in (*small, *self.weights))


def _find(target: str, allow_pickle: bool) -> Path:
    path = Path(target).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise InputError(f"clip must be a folder, but '{target}' is a file; give its folder")
    if target.startswith((".", "~", "/")) or target.endswith("/") or target.count("/") != 1:
        raise InputError(f"clip must be a folder, but '{target}' is none; check the path")
    return _download(target, allow_pickle)


def _download(name: str, allow_pickle: bool) -> Path:
    """Fetch a checkpoint from the hub, or take it from the hub's cache."""
    try:
        from huggingface_hub import snapshot_download  # noqa: PLC0415
    except ImportError as error:
        raise MissingDependencyError("huggingface_hub", "clip") from error
    wanted = [*_SMALL, "model*.safetensors", WEIGHTS + _INDEX]
    wanted += ["pytorch_model*.bin", PICKLE + _INDEX] if allow_pickle else []
    try:
        return Path(snapshot_download(name, allow_patterns=wanted))
    except Exception as error:  # The hub's, the network's and the disk's errors share no class.
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"clip must be a folder, or an id that the Hugging Face hub delivers, got '{name}' "
            f"({reason}); pass a folder with the checkpoint"
        ) from error


def _weights(path: Path, allow_pickle: bool) -> tuple[Path, ...]:
    for name in (WEIGHTS, PICKLE) if allow_pickle else (WEIGHTS,):
        if (path / name).is_file():
            return (path / name,)
        if (path / (name + _INDEX)).is_file():
            named = _mapping(path / (name + _INDEX)).get("weight_map", {})
            files = tuple(path / part for part in sorted(set(named.values())))
            for file in files:
                if not file.is_file():
                    raise _missing(path, file.name, "copy the whole checkpoint again")
            return files
    raise InputError(
        f"folder of clip must hold '{WEIGHTS}', got none in '{path}'; a file '{PICKLE}' can run "
        "code when opened: save the model again with save_pretrained, or add "
        "',allow_pickle=true' if you trust where it comes from"
    )


def _preprocessing(path: Path) -> tuple[Path, dict[str, Any]]:
    """Return the file that transformers reads too, and what it says."""
    if (path / PROCESSOR).is_file():
        nested = _mapping(path / PROCESSOR).get("image_processor")
        if isinstance(nested, dict):
            return path / PROCESSOR, nested
    if (path / PREPROCESSING).is_file():
        return path / PREPROCESSING, _mapping(path / PREPROCESSING)
    raise _missing(
        path, PREPROCESSING, "copy it from where the checkpoint comes from: nothing is guessed"
    )


def _mapping(path: Path) -> dict[str, Any]:
    try:
        value = read_json(path)
    except StoreError as error:
        raise InputError(f"{path} must be a JSON file, got: {error}; copy it again") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} must hold a JSON object, got a {type(value).__name__}")
    return value


def _missing(path: Path, file: str, advice: str) -> InputError:
    return InputError(f"folder of clip must hold '{file}', got none in '{path}'; {advice}")
