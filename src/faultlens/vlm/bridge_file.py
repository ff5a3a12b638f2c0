"""The file of a label bridge (`bridge:FILE.yaml`): which classifier, which texts."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic_core import ErrorDetails

from faultlens.errors import InputError, nearest
from faultlens.registry import Registry
from faultlens.vlm.sentences import CachedTextEncoder, SentenceEncoder, TextEncoder

EXAMPLE_YAML = """\
classifier: onnx:net.onnx          # a model, as --model takes it
preprocess: net.yaml               # its class names and preprocessing, if it does not carry them
labels:                            # what is true of each label; or a file with such a mapping
  ship: [ship, watercraft, hull, sails, on the water]
  truck: [truck, vehicle, wheels, large cab, road]
text: offline                      # the sentence encoder
top: 10                            # labels that count for an image
temperature: 1.0                   # above 1 evens out their probabilities
"""
"""A complete bridge file."""

PathLike = str | os.PathLike[str]
_Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
# By name: this package and the models are siblings, blind to each other.
_LOADERS = Registry("loader", {"model": "faultlens.models.load:load_model"})


class BridgeFile(BaseModel):
    """A bridge file; paths in it start from its own folder.

    Attributes:
        classifier: A model as `--model` takes it, such as `onnx:net.onnx`; not needed where the
            logits are stored already (`vlm_logits` of a features file).
        preprocess: YAML file with class names and preprocessing.
        weights: File with weights, for a classifier that needs one.
        text: The sentence encoder.
        labels: Texts of each label, or a YAML file with them; a label without any is embedded by
            its name.
        top: See `bridge_embeddings`; None is its default.
        temperature: See `bridge_embeddings`; None is its default.
        folder: Where relative paths start; not a key of the file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    classifier: _Text | None = None
    preprocess: _Text | None = None
    weights: _Text | None = None
    text: Literal["offline"] = "offline"
    labels: dict[str, tuple[_Text, ...]] | _Text = Field(default={}, union_mode="left_to_right")
    top: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    folder: Path = Field(default=Path(), exclude=True)

    @classmethod
    def read(cls, path: PathLike) -> "BridgeFile":
        """Read and check a bridge file.

        Raises:
            InputError: The file is missing or not YAML, a key is unknown, or a value is wrong.

        Example:
            >>> import tempfile
            >>> file = Path(tempfile.mkdtemp()) / "bridge.yaml"
            >>> _ = file.write_text(EXAMPLE_YAML)
            >>> BridgeFile.read(file).labels["ship"][:2]
            ('ship', 'watercraft')
            >>> _ = file.write_text("clasifier: onnx:net.onnx")
            >>> BridgeFile.read(file)  # doctest: +ELLIPSIS
            Traceback (most recent call last):
            faultlens.errors.InputError: ...bridge.yaml: unknown key 'clasifier'; did you mean \
'classifier'?
        """
        values = _read_mapping(path, "bridge file")
        keys = [key for key in cls.model_fields if key != "folder"]
        for key in values:
            if key not in keys:
                raise InputError(f"{path}: unknown key '{key}'; {nearest(str(key), keys)}")
        try:
            return cls.model_validate(values | {"folder": Path(path).parent})
        except ValidationError as error:
            raise InputError(f"{path}: {_explain(error.errors()[0])}") from error

    @property
    def settings(self) -> dict[str, Any]:
        """`top` and `temperature` where the file gives them."""
        given = {"top": self.top, "temperature": self.temperature}
        return {key: value for key, value in given.items() if value is not None}

    def load_classifier(self) -> Any:
        """Load the image classifier; InputError where the file names none."""
        if self.classifier is None:
            raise InputError(f"'classifier' must be given; a complete example:\n\n{EXAMPLE_YAML}")
        kind, colon, target = self.classifier.partition(":")
        beside = self.folder / target
        spec = f"{kind}{colon}{beside}" if target and beside.exists() else self.classifier
        return _LOADERS.load("model")(
            spec, preprocess=self._path(self.preprocess), weights=self._path(self.weights)
        )

    def load_text(self) -> TextEncoder:
        """Load the sentence encoder."""
        return CachedTextEncoder(SentenceEncoder())

    def label_texts(self) -> dict[str, tuple[str, ...]]:
        """Return the texts of the labels, read from their file if they are in one."""
        if not isinstance(self.labels, str):
            return self.labels
        return read_label_texts(self.folder / self.labels)

    def _path(self, name: str | None) -> Path | None:
        return None if name is None else self.folder / name


def read_label_texts(path: PathLike) -> dict[str, tuple[str, ...]]:
    """Read a YAML file that maps each label to the texts that are true of it.

    Raises:
        InputError: The file is missing, not YAML, or not such a mapping.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "labels.yaml"
        >>> _ = file.write_text("ship: [ship, hull, sails]")
        >>> read_label_texts(file)
        {'ship': ('ship', 'hull', 'sails')}
    """
    values = _read_mapping(path, "label texts")
    for label, texts in values.items():
        is_list = isinstance(texts, list) and bool(texts)
        if not (isinstance(label, str) and is_list and all(isinstance(t, str) for t in texts)):
            raise InputError(
                f"{path}: each label must have a list of texts, got {label!r}: {texts!r}; write "
                "for example 'ship: [ship, hull, sails]', with quotes around yes, no and numbers"
            )
    return {label: tuple(texts) for label, texts in values.items()}


def _read_mapping(path: PathLike, what: str) -> dict[Any, Any]:
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{what} must be a readable YAML file, got '{path}' ({error})") from error
    if not isinstance(values, dict):
        raise InputError(
            f"{what} must be a YAML mapping, got {type(values).__name__} in '{path}'; "
            f"for example:\n\n{EXAMPLE_YAML}"
        )
    return values


def _explain(detail: ErrorDetails) -> str:
    key = str(detail["loc"][0])
    if detail["type"] == "missing":
        return f"'{key}' must be given; a complete example:\n\n{EXAMPLE_YAML}"
    if key == "labels":
        return (
            "'labels' must map each label to a list of texts, or name a file that does, got "
            f"{detail['input']!r}"
        )
    return f"'{key}' is wrong: {detail['msg']}, got {detail['input']!r}"
