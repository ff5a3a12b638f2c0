"""The blocks of a live torch module, found by watching which modules run."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from faultlens.arrays import FloatArray
from faultlens.models.pytorch_split import evaluating, placement, to_tensor

#: With fewer blocks the largest container is opened.
MIN_BLOCKS = 3


def find_blocks(module: nn.Module, batch: FloatArray, head: frozenset[str]) -> tuple[str, ...]:
    """Return the blocks of an encoder, in the order in which they run.

    The children of the module, the largest ones opened until there are enough. A layer without
    children stands for those that follow it up to the next one with weights, under the name of
    the last: what a convolution gives is read behind its norm and activation.

    Args:
        module: Any classifier; it is run in evaluation mode and left as it was.
        batch: A few prepared pictures.
        head: Names of the layers of the head.

    Example:
        >>> import numpy as np
        >>> layers = [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU()]
        >>> net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
        >>> find_blocks(net, np.ones((2, 3, 8, 8), np.float32), frozenset({"6"}))
        ('1', '3')
    """
    ran = _ran(module, batch)
    found = list(_called(module, "", ran))
    while len(_blocks(found, head)) < MIN_BLOCKS:
        opened = [name for name, m in found if _is_container(name, m, ran)]
        if not opened:
            break
        largest = max(opened, key=lambda name: _n_weights(module.get_submodule(name)))
        i = next(i for i, (name, _) in enumerate(found) if name == largest)
        found[i : i + 1] = _called(module.get_submodule(largest), f"{largest}.", ran)
    return tuple(_blocks(found, head))


def _ran(module: nn.Module, batch: FloatArray) -> dict[str, int]:
    """Return when each module that gives one row a picture was last done, counted from 0."""
    order: dict[str, int] = {}

    def done(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def note(_: nn.Module, __: Any, output: Any) -> None:
            value = output[0] if isinstance(output, tuple) and output else output
            if isinstance(value, torch.Tensor) and 2 <= value.ndim <= 4 and len(value) == n:
                order.pop(name, None)
                order[name] = len(order)

        return note

    n = len(batch)
    with ExitStack() as hooks:
        for name, layer in module.named_modules():
            if name:
                hooks.callback(layer.register_forward_hook(done(name)).remove)
        with evaluating(module):
            module(to_tensor(batch).to(*placement(module)))
    return {name: i for i, name in enumerate(order)}


def _called(module: nn.Module, prefix: str, ran: dict[str, int]) -> list[tuple[str, nn.Module]]:
    """Return the nearest descendants that ran, in their order."""
    found: list[tuple[str, nn.Module]] = []
    for name, child in module.named_children():
        full = f"{prefix}{name}"
        found += [(full, child)] if full in ran else _called(child, f"{full}.", ran)
    return sorted(found, key=lambda pair: ran[pair[0]])


def _blocks(found: list[tuple[str, nn.Module]], head: frozenset[str]) -> list[str]:
    """Return one name a block, of modules in the order in which they ran."""
    blocks: list[str] = []
    is_leaf = False
    for name, module in found:
        if any(layer == name or layer.startswith(f"{name}.") for layer in head):
            break
        if _has_weights(module):
            blocks.append(name)
            is_leaf = not any(True for _ in module.children())
        elif is_leaf and not isinstance(module, _RESHAPED):
            blocks[-1] = name
    return blocks


_RESHAPED = (
    nn.Flatten, nn.Dropout, nn.Identity, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d,
)  # fmt: skip


def _has_weights(module: nn.Module) -> bool:
    return any(p.ndim > 1 for p in module.parameters())


def _n_weights(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _is_container(name: str, module: nn.Module, ran: dict[str, int]) -> bool:
    return _has_weights(module) and any(True for _ in _inside(name, ran))


def _inside(name: str, ran: dict[str, int]) -> Iterator[str]:
    return (other for other in ran if other.startswith(f"{name}."))
