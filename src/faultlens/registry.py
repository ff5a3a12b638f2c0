"""Registry: a name becomes an object only when it is asked for.

Adding a thing means one file and one line in its table below. Other packages register theirs
through entry points of the group `faultlens.<family>`, of the same form.
"""

import importlib
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from faultlens.errors import InputError, nearest


class Registry(Mapping[str, str]):
    """A table `name -> "module:attribute"`, loaded lazily.

    Example:
        >>> shapes = Registry("shape", {"path": "pathlib:Path"})
        >>> shapes.load("path").__name__
        'Path'
        >>> shapes.load("pth")
        Traceback (most recent call last):
        faultlens.errors.InputError: shape must be a known name, got 'pth'; did you mean 'path'?
    """

    def __init__(self, family: str, table: Mapping[str, str]) -> None:
        self.family = family
        self._table = dict(table)

    def _all(self) -> dict[str, str]:
        group = f"faultlens.{self.family.replace(' ', '_')}"
        return _registered(group) | self._table

    def __getitem__(self, name: str) -> str:
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def load(self, name: str) -> Any:
        """Import and return what `name` stands for; unknown names raise InputError."""
        table = self._all()
        if name not in table:
            raise InputError(
                f"{self.family} must be a known name, got '{name}'; {nearest(name, table)}"
            )
        module, _, attribute = table[name].partition(":")
        return getattr(importlib.import_module(module), attribute)


@cache
def _registered(group: str) -> dict[str, str]:
    """Return what other packages registered; reading all their metadata takes 40 ms."""
    return {e.name: e.value for e in entry_points(group=group)}


MODELS = Registry(
    "model",
    {
        "hf": "faultlens.models.huggingface:load",
        "onnx": "faultlens.models.onnx:load",
        "timm": "faultlens.models.timm:load",
        "torch": "faultlens.models.pytorch:load_factory",
        "torch-export": "faultlens.models.pytorch:load_export",
        "torchvision": "faultlens.models.torchvision:load",
    },
)

#: What libraries know of weights that a user names: preprocessing, classes.
RECORDS = Registry(
    "record",
    {
        "timm": "faultlens.models.timm:recorded",
        "torchvision": "faultlens.models.torchvision:recorded",
    },
)

IMAGES = Registry(
    "images",
    {
        "cifar10": "faultlens.data.cifar10:open_cifar10",
        "hf": "faultlens.data.huggingface:open_huggingface",
        "remote": "faultlens.data.remote:open_remote",
        "rival10": "faultlens.data.rival10:open_rival10",
        "webdataset": "faultlens.data.webdataset:open_webdataset",
    },
)

LOGGERS = Registry(
    "logger",
    {
        "mlflow": "faultlens.loggers.mlflow:log",
        "tensorboard": "faultlens.loggers.tensorboard:log",
        "wandb": "faultlens.loggers.wandb:log",
    },
)

VLMS = Registry(
    "vlm",
    {
        "demo": "faultlens.vlm.demo:load",
        "offline": "faultlens.vlm.offline:load",
        "bridge": "faultlens.vlm.labels:load",
        "clip": "faultlens.vlm.clip:load",
        "onnx-clip": "faultlens.vlm.onnx_clip:load",
        "open_clip": "faultlens.vlm.open_clip:load",
    },
)
