"""What a model's file does not say by itself: the names of its classes and its preprocessing."""

import os
from collections import Counter
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError, model_validator
from pydantic_core import ErrorDetails

from faultlens.data.preprocess import Preprocessing
from faultlens.errors import InputError, nearest

EXAMPLE_YAML = """\
classes: [cat, dog, ship]          # in the order of the logits
preprocessing:
  resize: 256                      # shorter side, or [height, width], or null
  crop: 224                        # centre crop, or [height, width], or null
  interpolation: bilinear          # nearest, bilinear, bicubic or lanczos
  scale: 0.00392156862745098       # on pixel values of 0 to 255; this one is 1/255
  mean: [0.485, 0.456, 0.406]      # taken off after scaling
  std: [0.229, 0.224, 0.225]       # divided by after that
  channel_order: rgb               # rgb, bgr or gray
  layout: nchw                     # nchw or nhwc
"""
"""A complete description file, shown whenever one is missing."""


@dataclass(frozen=True, slots=True)
class Record:
    """What a library knows of the weights that a user names.

    Attributes:
        preprocessing: As they were evaluated; None where it cannot be told.
        classes: In the order of the logits; None where it does not name them.
        hint: Where there is no preprocessing: how to name the weights.
    """

    preprocessing: Preprocessing | None = None
    classes: tuple[str, ...] | None = None
    hint: str = ""


class ModelDescription(BaseModel):
    """The class names of a model and how pictures become its input.

    Attributes:
        classes: K different names, in the order of the logits.
        preprocessing: From a picture to the network's input.
        split_at: Where the head begins (a tensor, graph node or module); None finds the last
            linear layer.

    Example:
        >>> plain = Preprocessing(resize=None, mean=(0, 0, 0), std=(1, 1, 1))
        >>> ModelDescription(classes=("cat", "dog"), preprocessing=plain).split_at is None
        True
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    classes: tuple[Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)], ...]
    preprocessing: Preprocessing
    split_at: str | None = None

    @model_validator(mode="after")
    def _check(self) -> "ModelDescription":
        if len(self.classes) < 2:
            raise ValueError(f"classes must hold at least 2 names, got {len(self.classes)}")
        twice = [name for name, n in Counter(self.classes).items() if n > 1]
        if twice:
            raise ValueError(f"classes must all differ, got {', '.join(map(repr, twice))} twice")
        return self

    @classmethod
    def from_mapping(cls, values: Any, *, source: str) -> "ModelDescription":
        """Check plain values, such as those of a YAML file.

        Args:
            values: A mapping with `classes` and `preprocessing`.
            source: Where they come from, for the message.

        Raises:
            InputError: A key is unknown or missing, or a value is wrong.

        Example:
            >>> ModelDescription.from_mapping({"clases": ["cat"]}, source="net.yaml")
            Traceback (most recent call last):
            faultlens.errors.InputError: net.yaml: unknown key 'clases'; did you mean 'classes'?
        """
        if not isinstance(values, Mapping):
            raise InputError(
                f"{source}: a model description must be a mapping with the keys 'classes' and "
                f"'preprocessing', got {type(values).__name__}; for example:\n\n{EXAMPLE_YAML}"
            )
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            # An unknown key first: it is usually also why another one is missing.
            details = sorted(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
            raise InputError(f"{source}: {_explain(details[0])}") from error

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> "ModelDescription":
        """Read a YAML file.

        Args:
            path: A file with the keys `classes` and `preprocessing`, optionally `split_at`.

        Raises:
            InputError: The file is missing, is not YAML, or its content is wrong.

        Example:
            >>> import tempfile
            >>> file = Path(tempfile.mkdtemp()) / "net.yaml"
            >>> _ = file.write_text(EXAMPLE_YAML)
            >>> ModelDescription.read(file).classes
            ('cat', 'dog', 'ship')
        """
        return cls.from_mapping(_read(path), source=str(path))

    @classmethod
    def completed(
        cls, path: str | os.PathLike[str] | None, look_up: Callable[[Set[str]], Record]
    ) -> "ModelDescription | None":
        """Read a YAML file and take what it leaves out from a library's record.

        Args:
            path: As for `read`, but either key may be missing; None states nothing.
            look_up: Gives the record; called with the keys that are missing, where some are.

        Returns:
            None where there is no file and the record does not say everything.

        Raises:
            InputError: As `read`; a file without preprocessing needs a record of it.

        Example:
            >>> plain = Preprocessing(resize=8, mean=(0,) * 3, std=(1,) * 3)
            >>> look_up = lambda missing: Record(plain, ("cat", "dog"))
            >>> ModelDescription.completed(None, look_up).classes
            ('cat', 'dog')
        """
        values = {} if path is None else _read(path)
        if not isinstance(values, Mapping) or set(values) - set(cls.model_fields):
            return cls.from_mapping(values, source=str(path))
        missing = {"classes", "preprocessing"} - set(values)
        record = look_up(missing) if missing else Record()
        found = {"classes": record.classes, "preprocessing": record.preprocessing}
        values = {k: v for k, v in found.items() if v is not None} | dict(values)
        if path is None and not {"classes", "preprocessing"} <= set(values):
            return None
        if "preprocessing" not in values:
            raise InputError(f"{path}: 'preprocessing' must be given; {record.hint}")
        return cls.from_mapping(values, source=str(path or "the model's record"))


def _read(path: str | os.PathLike[str]) -> Any:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"preprocess must be a readable YAML file, got '{path}' ({error})"
        ) from error
    try:
        return yaml.load(text, Loader=_UniqueKeys)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not valid YAML; {_where(error)}") from error


def resolve(
    given: ModelDescription | None,
    *,
    model: str,
    found: ModelDescription | None = None,
    split_at: str | None = None,
) -> ModelDescription:
    """Return the description the user gave, else the one the model carries.

    Args:
        given: From the user; wins.
        model: The model's name, for the message.
        found: From inside the model's file.
        split_at: Replaces the description's own, if given.

    Raises:
        InputError: There is neither; the message shows a complete file to write.
    """
    description = given or found
    if description is None:
        raise InputError(
            f"model must have a description, got none for '{model}'; its class names and "
            "preprocessing cannot be guessed: put them into a YAML file like this one, check "
            "every value, and pass it with --preprocess FILE (preprocess= in Python):\n\n"
            f"{EXAMPLE_YAML}"
        )
    return (
        description if split_at is None else description.model_copy(update={"split_at": split_at})
    )


class _UniqueKeys(yaml.SafeLoader):
    """PyYAML keeps the last of two equal keys without a word; this one refuses them."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key '{key.value}' occurs twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def _where(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    if mark is None:
        return problem
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}"


def _explain(detail: ErrorDetails) -> str:
    *parents, last = [str(part) for part in detail["loc"]] or [""]
    path = ".".join([*parents, last])
    if detail["type"] == "extra_forbidden":
        model = Preprocessing if parents == ["preprocessing"] else ModelDescription
        return f"unknown key '{path}'; {nearest(last, model.model_fields)}"
    if detail["type"] == "missing":
        return f"'{path}' must be given; a complete example:\n\n{EXAMPLE_YAML}"
    if detail["type"] == "value_error":
        return str(detail["ctx"]["error"])
    hint = "; put quotes around it" if path.startswith("classes") else ""
    return f"'{path}' is wrong: {detail['msg']}, got {detail['input']!r}{hint}"
