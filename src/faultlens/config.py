"""The configuration of a run: one YAML file, or the same words on the command line."""

import re
from pathlib import Path
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from faultlens.concepts import describe_validation, read_yaml
from faultlens.data.kinds import anchored
from faultlens.errors import InputError
from faultlens.packs import placed
from faultlens.remote import is_url
from faultlens.vlm import options

_PATHS = ("weights", "preprocess", "features", "head", "out")
# A path makes one slash of the two; one letter before the colon is a drive.
_LIKE_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+:/")
_OWN_WORDS = re.compile(r"^'(\w+)' is wrong: Value error, ")


class RunConfig(BaseModel):
    """What to debug, with what, and where the results go.

    Attributes:
        model: SPEC of the classifier, such as `onnx:net.onnx`.
        weights: Weights of a `torch:` factory.
        split_at: Where the head begins; None finds it.
        stages: What to watch inside the encoder, in its order: modules, tensors or nodes; or
            `auto`. Finds out which of them is broken.
        preprocess: YAML with class names and preprocessing.
        allow_pickle: Open weights that can run code.
        images: Folder, CSV file, KIND:PATH or URL; see `faultlens.data.kinds`.
        split: Which split to analyse.
        reference_split: Which split to fit on; None cross-fits within the analysed images.
        limit: At most so many images, every class keeping its share.
        features: Safetensors file that replaces model and images.
        head: Head of the features' classifier.
        classes: Class names, where the features do not name them.
        vlm: SPEC of the vision-language model.
        concepts: YAML with the concepts, a pack, or several joined by `+`.
        out: The session's folder.
        batch_size: Images at once through a network.
        max_failures: Share of files that may fail to decode.
        max_pixels: Largest picture accepted.

    Example:
        >>> RunConfig(model="onnx:net.onnx", images="photos", vlm="offline",
        ...           concepts="concepts.yaml", out="out").batch_size
        16
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str | None = None
    weights: Path | None = None
    split_at: str | None = None
    stages: tuple[str, ...] | None = None
    preprocess: Path | None = None
    allow_pickle: bool = False
    images: str | None = None
    split: str | None = None
    reference_split: str | None = None
    limit: int | None = Field(default=None, ge=1)
    features: Path | None = None
    head: Path | None = None
    classes: tuple[str, ...] | None = None
    vlm: str
    concepts: Path
    out: Path
    batch_size: int = Field(default=16, ge=1)
    max_failures: float = Field(default=0.01, ge=0, le=1)
    max_pixels: int = Field(default=178_956_970, ge=1)

    @field_validator("stages", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return [name.strip() for name in value.split(",")] if isinstance(value, str) else value

    @field_validator("images", mode="before")
    @classmethod
    def _as_path(cls, value: Any) -> Any:
        """Write a path as its system does, and leave a URL as it is."""
        return value if value is None or is_url(value) else str(Path(value))

    @field_validator(*_PATHS, "concepts", mode="before")
    @classmethod
    def _here(cls, value: Any) -> Any:
        if _LIKE_URL.match(str(value)):
            raise ValueError(
                f"must be a path on this machine, got the URL '{value}'; only images may lie "
                "behind a URL"
            )
        return value

    @model_validator(mode="after")
    def _one_input(self) -> "RunConfig":
        if self.features is not None:
            if self.model is not None or self.images is not None:
                raise ValueError("features replace model and images; give one or the other")
        elif self.model is None or self.images is None:
            raise ValueError("model and images are both needed (or features instead of them)")
        elif self.head is not None or self.classes is not None:
            raise ValueError("head and classes belong to features; a model brings its own")
        if self.features is not None and self.stages is not None:
            raise ValueError("stages belong to a model; features bring arrays 'stage:NAME'")
        if self.features is not None and (self.split or self.reference_split):
            raise ValueError("features have no splits; leave split and reference_split out")
        if self.split is not None and self.split == self.reference_split:
            raise ValueError("split and reference_split must differ: they never share an image")
        return self

    @classmethod
    def parse(cls, values: dict[str, Any], source: str) -> "RunConfig":
        """Check values; InputError with the place and the nearest known key."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            kinds = [e["type"] for e in error.errors()]
            if "missing" in kinds and "extra_forbidden" not in kinds:
                name = str(error.errors()[kinds.index("missing")]["loc"][0])
                raise InputError(f"{source}: {name} must be given; add {_hint(name)}") from error
            message = describe_validation(error, cls).replace("'file' is wrong: Value error, ", "")
            message = _OWN_WORDS.sub(r"\1 ", message)
            raise InputError(f"{source}: {message}") from error

    @classmethod
    def read(cls, path: Path, **overrides: Any) -> "RunConfig":
        """Read a YAML file; its paths count from its own folder, those of `overrides` do not.

        Args:
            path: The file.
            overrides: Values that win over the file's; None is ignored.
        """
        data = read_yaml(path)
        if not isinstance(data, dict):
            raise InputError(f"{path} must be a mapping of settings, got {type(data).__name__}")
        for key in _PATHS:
            if isinstance(data.get(key), str) and not is_url(data[key]):
                data[key] = path.parent / data[key]
        if isinstance(data.get("concepts"), str) and not is_url(data["concepts"]):
            data["concepts"] = placed(data["concepts"], path.parent)
        if isinstance(data.get("images"), str):
            data["images"] = anchored(data["images"], path.parent)
        kind, colon, target = str(data.get("model", "")).partition(":")
        if colon and (path.parent / target).exists():
            data["model"] = f"{kind}:{path.parent / target}"
        if isinstance(data.get("vlm"), str):
            data["vlm"] = options.anchored(data["vlm"], path.parent)
        given = {k: v for k, v in overrides.items() if v is not None}
        return cls.parse(data | given, str(path))


def _hint(name: str) -> str:
    return f"--{name.replace('_', '-')} or '{name}:' in the configuration file"
