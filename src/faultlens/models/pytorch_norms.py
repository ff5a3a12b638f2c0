"""Batch normalisation as a witness: its running statistics are what training fed it."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from faultlens.arrays import FloatArray
from faultlens.models.drift import NormDrift

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class _Sums:
    """Sums over images and places of what one layer was fed, channel by channel."""

    def __init__(self, mean: Tensor, variance: Tensor, eps: float) -> None:
        self.mean, self.known = mean.double(), variance.double() + eps
        self.eps, self.n = eps, 0
        self.first, self.second = torch.zeros_like(self.mean), torch.zeros_like(self.mean)

    def add(self, x: Tensor) -> None:
        axes = [a for a in range(x.ndim) if a != 1]
        # Centred on what is remembered, so that the squares lose no digits.
        x = x.detach().double() - self.mean.view(1, -1, *[1] * (x.ndim - 2))
        self.n += x.numel() // x.shape[1]
        self.first += x.sum(axes)
        self.second += (x * x).sum(axes)

    def drift(self, name: str, n_images: int) -> NormDrift:
        mean = self.first / self.n
        variance = (self.second / self.n - mean**2).clamp_min(0) + self.eps
        shift = (mean**2 / self.known).mean().sqrt()
        stretch = (0.5 * torch.log(variance / self.known)).abs().mean()
        return NormDrift(name, float(shift), float(stretch), n_images)


def norm_drift(
    module: nn.Module, batches: Iterable[FloatArray], device: str = "cpu"
) -> list[NormDrift]:
    """Compare what each batch-normalisation layer is fed with what it remembers of training.

    Args:
        module: A network in evaluation mode; it is not changed.
        batches: Prepared pictures, a few hundred together for steady numbers.
        device: Where the network is.

    Returns:
        One a layer that was used, in the order of computation; none for networks without.

    Example:
        >>> import numpy as np
        >>> net = nn.Sequential(nn.BatchNorm2d(1)).eval()
        >>> x = np.random.default_rng(0).normal(3, 1, (64, 1, 8, 8)).astype(np.float32)
        >>> round(norm_drift(net, [x])[0].shift)
        3

    References:
        Running statistics are those of Ioffe and Szegedy, arXiv:1502.03167. Sun et al.,
        arXiv:1603.04779, read a change of domain off them.
    """
    found: dict[str, _Sums] = {}
    n_images = 0
    with _listening(module, found), torch.inference_mode():
        for batch in batches:
            module(torch.from_numpy(batch).to(device))
            n_images += len(batch)
    return [sums.drift(name, n_images) for name, sums in found.items()]


@contextmanager
def _listening(module: nn.Module, found: dict[str, _Sums]) -> Iterator[None]:
    hooks = [
        layer.register_forward_pre_hook(_reader(name, found))
        for name, layer in module.named_modules()
        if isinstance(layer, _NORMS) and layer.running_mean is not None
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _reader(name: str, found: dict[str, _Sums]) -> Callable[[Any, tuple[Tensor, ...]], None]:
    def read(layer: Any, inputs: tuple[Tensor, ...]) -> None:
        if name not in found:
            found[name] = _Sums(layer.running_mean, layer.running_var, layer.eps)
        found[name].add(inputs[0])

    return read
