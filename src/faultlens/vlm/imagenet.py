"""Texts for the 1,000 labels of ImageNet-1k: names, kinds and looks, in index order."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import yaml


@dataclass(frozen=True, slots=True)
class Label:
    """One label and what is true of the things it names.

    Attributes:
        names: How people call it; the first is unique among the labels.
        kinds: What it is, from the nearest kind to the widest, such as `cat`, `mammal`, `animal`.
        looks: What one sees in its pictures, such as `whiskers` or `pointed ears`.
    """

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    looks: tuple[str, ...]

    @property
    def texts(self) -> list[str]:
        """Names, kinds and looks in one list, each once."""
        return list(dict.fromkeys((*self.names, *self.kinds, *self.looks)))


@cache
def read_labels() -> tuple[Label, ...]:
    """Return the labels in the order of the logits of ImageNet classifiers.

    Example:
        >>> labels = read_labels()
        >>> labels[288].names, labels[288].kinds[:2], labels[288].looks[0]
        (('leopard',), ('big cat', 'cat'), 'black spots')
    """
    text = files("faultlens.vlm").joinpath("imagenet_labels.yaml").read_text(encoding="utf-8")
    # The loader in C reads the file in a tenth of the time.
    data = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    groups = data["groups"]
    return tuple(
        _label(item, group, groups)
        for run in data["labels"]
        for group, items in run.items()
        for item in items
    )


def label_texts() -> dict[str, list[str]]:
    """Return the texts of every label under its first name, in index order.

    Example:
        >>> texts = label_texts()
        >>> len(texts), texts["zebra"][:4]
        (1000, ['zebra', 'equine', 'hoofed animal', 'mammal'])
    """
    return {label.names[0]: label.texts for label in read_labels()}


def _label(item: str | dict[str, list[str]], group: str, groups: Mapping[str, Any]) -> Label:
    names, own = (item, []) if isinstance(item, str) else next(iter(item.items()))
    kinds = tuple(_line(group, groups))
    shared = [look for kind in kinds for look in groups[kind].get("looks", [])]
    return Label(tuple(names.split(" / ")), kinds, (*own, *shared))


def _line(group: str | None, groups: Mapping[str, Any]) -> Iterator[str]:
    """Yield a group and its parents."""
    while group is not None:
        yield group
        group = groups[group].get("is")
