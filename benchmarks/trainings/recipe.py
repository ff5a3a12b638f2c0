"""A `Recipe` holds everything a training needs, so that a fault operator can change any of it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import nn


@dataclass(frozen=True)
class Variant:
    """How a healthy program may differ and stay healthy."""

    seed: int = 0
    width: float = 1.0
    lr: float = 1.0
    batch: float = 1.0
    activation: str | None = None

    @property
    def name(self) -> str:
        extras = {"w": self.width, "lr": self.lr, "b": self.batch}
        parts = [f"s{self.seed}", *(f"{k}{v:g}" for k, v in extras.items() if v != 1)]
        return "-".join([*parts, *([self.activation] if self.activation else [])])


@dataclass
class Recipe:
    """A training to be: data, model, loss, optimizer, and the habits of its loop."""

    name: str
    task: str
    x: torch.Tensor
    y: torch.Tensor
    model: nn.Module
    loss_fn: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    lr: float
    optimizer: str = "Adam"
    momentum: float = 0.9
    weight_decay: float = 0.0
    batch: int = 32
    steps: int = 300
    sign: float = 1.0
    does_zero_grad: bool = True
    does_step: bool = True
    mode: str = "train"
    parameters: list[nn.Parameter] | None = None
    clean: tuple[torch.Tensor, torch.Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.clean = self.x, self.y

    def make_optimizer(self) -> torch.optim.Optimizer:
        chosen = list(self.model.parameters()) if self.parameters is None else self.parameters
        options: dict[str, Any] = {"lr": self.lr, "weight_decay": self.weight_decay}
        if self.optimizer == "SGD":
            return torch.optim.SGD(chosen, momentum=self.momentum, **options)
        return torch.optim.Adam(chosen, betas=(self.momentum, 0.999), **options)


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU, "leaky_relu": nn.LeakyReLU, "elu": nn.ELU,
    "silu": nn.SiLU,
}  # fmt: skip


def wide(v: Variant, n: int) -> int:
    return max(2, round(n * v.width))


def act(v: Variant, usual: str = "relu") -> nn.Module:
    return ACTIVATIONS[v.activation or usual]()


def mlp(v: Variant, widths: list[int], usual: str = "relu") -> nn.Sequential:
    layers: list[nn.Module] = []
    sizes = [widths[0], *(wide(v, n) for n in widths[1:-1]), widths[-1]]
    for n, m in pairwise(sizes):
        layers += [nn.Linear(n, m), act(v, usual)]
    return nn.Sequential(*layers[:-1])


def floats(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(x, np.float32))
