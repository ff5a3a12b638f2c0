"""Concepts: what the user wrote, as directions in the vision-language space, and their strengths.

A concept's direction `q_c` is the mean of the unit text embeddings of its prompts in a template
ensemble, normalised again; its strength in `v` is `cos(v, q_c)`, centred by its mean over
reference images.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from jaxtyping import Bool, Float
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from faultlens.alignment import normalize
from faultlens.arrays import FloatArray, IntArray, Strengths, read_only
from faultlens.errors import InputError, nearest

TEMPLATES = (
    "{}",
    "a photo of something with {}",
    "a picture showing {}",
    "something with {}",
    "{} in a photo",
)
CLASS_TEMPLATES = (
    "{}",
    "a photo of a {}",
    "a picture of the {}",
    "a photo containing a {}",
    "a cropped photo of a {}",
)
#: Prompt subsets whose agreement the validity gate measures.
N_SUBSETS = 4

TextEncoder = Callable[[Sequence[str]], FloatArray]


class ConceptEntry(BaseModel):
    """One concept of the file: its prompts, and templates of its own if it needs them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompts: tuple[str, ...] = Field(min_length=1)
    templates: tuple[str, ...] | None = Field(default=None, min_length=1)

    @field_validator("templates")
    @classmethod
    def _has_slot(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return None if value is None else _with_slot(value)


class ClassEntry(BaseModel):
    """One class of the file: how people call it, and the concepts it should have."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    names: tuple[str, ...] = Field(default=(), description="synonyms or subclasses")
    relevant: tuple[str, ...] = ()


class ConceptFile(BaseModel):
    """The concepts file.

    Example:
        >>> f = ConceptFile.parse({"concepts": ["wheels", {"fur": ["fur", "hair"]}],
        ...                        "classes": {"car": {"relevant": ["wheels"]}}})
        >>> sorted(f.concepts), f.classes["car"].relevant
        (['fur', 'wheels'], ('wheels',))
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    pack: str | None = Field(default=None, description="name of a pack that comes with FaultLens")
    version: Literal[1] = Field(default=1, description="of this form of file")
    about: str | None = Field(default=None, description="one line for the reader")
    templates: tuple[str, ...] = Field(default=TEMPLATES, min_length=1)
    class_templates: tuple[str, ...] = Field(default=CLASS_TEMPLATES, min_length=1)
    concepts: dict[str, ConceptEntry]
    classes: dict[str, ClassEntry] = {}

    @field_validator("concepts", mode="before")
    @classmethod
    def _short_forms(cls, value: Any) -> Any:
        """Accept a bare name, and a list of prompts instead of a mapping."""
        if isinstance(value, list):
            for item in value:
                if not isinstance(item, str) and not (isinstance(item, dict) and len(item) == 1):
                    raise ValueError(f"must be names, or one 'name: prompts' an item, got {item!r}")
            value = dict(
                next(iter(item.items())) if isinstance(item, dict) else (item, None)
                for item in value
            )
        if not isinstance(value, dict):
            raise ValueError("must be a list of names or a mapping from name to prompts")
        return {str(name): _entry(str(name), entry) for name, entry in value.items()}

    @field_validator("classes", mode="before")
    @classmethod
    def _short_classes(cls, value: Any) -> Any:
        """Accept a list of names instead of a mapping."""
        if not isinstance(value, dict):
            return value
        return {
            str(k): {"names": v} if isinstance(v, list) else (v or {}) for k, v in value.items()
        }

    @field_validator("templates", "class_templates")
    @classmethod
    def _has_slot(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return _with_slot(value)

    @classmethod
    def parse(cls, data: Any, source: str = "concepts", at_least: int = 2) -> "ConceptFile":
        """Check a parsed document; InputError with the place and the nearest known key."""
        if not isinstance(data, dict):
            raise InputError(
                f"{source} must be a mapping with the key 'concepts', got "
                f"{type(data).__name__}; write 'concepts:' and a list of names below it"
            )
        try:
            parsed = cls.model_validate(data)
        except ValidationError as error:
            raise InputError(f"{source}: {describe_validation(error, cls)}") from error
        if len(parsed.concepts) < at_least:
            raise InputError(
                f"{source} must have at least {at_least} concepts, got {len(parsed.concepts)}"
            )
        for name, entry in parsed.classes.items():
            for concept in entry.relevant:
                if concept not in parsed.concepts:
                    raise InputError(
                        f"{source}: class '{name}' names an unknown concept '{concept}'; "
                        f"{nearest(concept, parsed.concepts)}"
                    )
        return parsed

    def check_classes(self, classes: Sequence[str]) -> None:
        """Refuse a file that speaks of a class the model does not have."""
        for name in self.classes:
            if name not in classes:
                raise InputError(
                    f"concepts file names an unknown class '{name}'; {nearest(name, classes)}"
                )

    def entry_of(self, name: str) -> ClassEntry:
        """Return what the file says of a class of the model; an empty entry where nothing."""
        return self.classes.get(name, ClassEntry())

    @classmethod
    def read(cls, path: str | Path) -> "ConceptFile":
        """Read a YAML file; InputError where it is missing, not YAML or not of this form."""
        return cls.parse(read_yaml(path), str(path))


def _with_slot(templates: tuple[str, ...]) -> tuple[str, ...]:
    for template in templates:
        if template.count("{}") != 1 or template.count("{") != 1 or template.count("}") != 1:
            raise ValueError(f"template must contain {{}} once, got '{template}'")
    return templates


def _entry(name: str, value: Any) -> Any:
    if value is None:
        return {"prompts": [name]}
    if isinstance(value, str):
        return {"prompts": [value]}
    if isinstance(value, dict) and "prompts" not in value:
        return {"prompts": [name]} | value
    return {"prompts": value} if isinstance(value, list) else value


def read_yaml(path: str | Path) -> Any:
    """Read a YAML file; InputError with the line where it is not YAML."""
    try:
        return yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path} must be a file, but there is none; check the path") from error
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise InputError(f"{path} must be a YAML file: {error}") from error


def describe_validation(error: ValidationError, model: type[BaseModel]) -> str:
    """Turn pydantic's complaint into one sentence with the nearest known key."""
    # A mistyped key also leaves the right one missing; the typo is what to tell.
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    place = ".".join(str(p) for p in first["loc"]) or "file"
    if first["type"] == "extra_forbidden":
        known: set[str] = set(model.model_fields)
        for nested in (ConceptEntry, ClassEntry):
            if len(first["loc"]) > 1 and model is ConceptFile:
                known |= set(nested.model_fields)
        return f"unknown key '{place}'; {nearest(str(first['loc'][-1]), known)}"
    return f"'{place}' is wrong: {first['msg']}"


@dataclass(frozen=True, slots=True, eq=False)
class Vocabulary:
    """Concepts and classes as directions in the VLM's space.

    Attributes:
        concepts: C names.
        classes: K names, in the order of the logits.
        directions: (C, E) unit.
        subset_directions: (R, C, E) unit, the same from disjoint subsets of the prompts.
        class_directions: (K, E) unit.
        relevant: (K, C) which concepts a class should have, from the user's file.
    """

    concepts: tuple[str, ...]
    classes: tuple[str, ...]
    directions: Float[np.ndarray, "C E"]
    subset_directions: Float[np.ndarray, "R C E"]
    class_directions: Float[np.ndarray, "K E"]
    relevant: Bool[np.ndarray, "K C"]

    @classmethod
    def build(
        cls, file: ConceptFile, classes: Sequence[str], encode_text: TextEncoder
    ) -> "Vocabulary":
        """Encode every prompt once and average.

        Args:
            file: The user's concepts.
            classes: K class names of the model.
            encode_text: The VLM's text tower, texts -> (P, E).

        Raises:
            InputError: The file speaks of a class that the model does not have.
        """
        file.check_classes(classes)
        prompts = {c: prompts_of(e, file.templates) for c, e in file.concepts.items()}
        entries = {k: file.entry_of(k) for k in classes}
        names = {k: entry.names or (k,) for k, entry in entries.items()}
        class_prompts = {
            k: [t.format(_words(n)) for n in names[k] for t in file.class_templates]
            for k in classes
        }
        texts = list(
            dict.fromkeys(t for ts in (*prompts.values(), *class_prompts.values()) for t in ts)
        )
        vectors = normalize(np.asarray(encode_text(texts), np.float32))
        row = {text: i for i, text in enumerate(texts)}

        def mean(chosen: Sequence[str]) -> FloatArray:
            return normalize(vectors[[row[t] for t in chosen]].mean(axis=0))

        n_subsets = min(N_SUBSETS, *(len(ps) for ps in prompts.values()))
        subsets = [[mean(ps[r::n_subsets]) for ps in prompts.values()] for r in range(n_subsets)]
        relevant = [[c in entry.relevant for c in prompts] for entry in entries.values()]
        return cls(
            concepts=tuple(prompts),
            classes=tuple(classes),
            directions=read_only(np.stack([mean(ps) for ps in prompts.values()])),
            subset_directions=read_only(np.asarray(subsets, np.float32)),
            class_directions=read_only(np.stack([mean(ps) for ps in class_prompts.values()])),
            relevant=read_only(np.asarray(relevant, bool)),
        )


def _words(name: str) -> str:
    """Class names of folders are words joined by underscores; a text tower wants words."""
    return name.replace("_", " ")


def prompts_of(entry: ConceptEntry, templates: Sequence[str]) -> list[str]:
    """Return the full sentences of one concept: every prompt in every template."""
    return [t.format(p) for p in entry.prompts for t in (entry.templates or templates)]


def strengths(
    vectors: FloatArray, directions: FloatArray, centre: FloatArray | None = None
) -> Strengths:
    """Return concept strengths: cosines, centred by their mean over reference images.

    Args:
        vectors: (N, E) image embeddings of the VLM, or mapped embeddings of the classifier.
        directions: (C, E) unit concept directions.
        centre: (C,) mean strength over reference images; None leaves raw cosines.

    Returns:
        (N, C) float32; raw cosines lie in [-1, 1].

    Example:
        >>> strengths(np.array([[3.0, 4.0]]), np.eye(2)).round(1).tolist()
        [[0.6000000238418579, 0.800000011920929]]
    """
    cosines = normalize(vectors) @ directions.T
    return np.asarray(cosines if centre is None else cosines - centre, np.float32)


def zero_shot(vectors: FloatArray, class_directions: FloatArray) -> IntArray:
    """Return (N,) int64: the class whose direction is nearest to each image."""
    return np.asarray(np.argmax(vectors @ class_directions.T, axis=1))
