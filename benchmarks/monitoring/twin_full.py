"""The monitor in full mode (stages, changed pictures) in differentiable torch."""

from collections.abc import Mapping

import numpy as np
import torch
from torch.nn import functional

from faultlens.models.squeeze import zoom_out
from faultlens.monitor.features import STAGE
from faultlens.monitor.fused import FusedFull
from faultlens.monitor.layered import Layers
from faultlens.monitor.squeezed import SqueezedJoint, SqueezedMargin
from monitoring.cifar_net import PixelNet


class _Gaussians:
    """Cube root of the distance to the predicted class, standardised."""

    def __init__(self, fitted: Mapping[str, np.ndarray], name: str = "") -> None:
        self.axes, self.means, self.scale = (
            torch.from_numpy(np.array(fitted[part + name])) for part in ("axes", "means", "scale")
        )

    def __call__(self, points: torch.Tensor, predictions: torch.Tensor) -> torch.Tensor:
        u = points.double() @ self.axes
        squares = (u - self.means[predictions]).square().sum(1)
        return (squares.clamp_min(1e-9).pow(1 / 3) - self.scale[0]) / self.scale[1]


class FullTwin:
    """Decides as the monitor in full mode does, by a score with useful gradients.

    p-values are steps; between benign scores the twin draws straight lines, and beyond them all it
    goes on with the slope between the upper tenth and the last. It rejects above 0.

    Args:
        net: Takes images in [0, 1].
        monitor: Fitted.
        threshold: It rejects what scores above.
    """

    def __init__(self, net: PixelNet, monitor: FusedFull, threshold: float) -> None:
        self.net, self.threshold = net, threshold
        self.shrink = _shrinking(32)
        parts = monitor.members()
        kinds = tuple(type(part) for part in parts)
        if kinds != (SqueezedMargin, SqueezedJoint, Layers):
            raise TypeError(f"the twin knows three parts, got {kinds}; write it anew")
        self.joint = _Gaussians(parts[1].fitted())
        layers = parts[2].fitted()
        names = [key.removeprefix("axes:") for key in layers if key.startswith("axes:")]
        self.stages = {n.removeprefix(STAGE): _Gaussians(layers, ":" + n) for n in names}
        self.tables = [_line(monitor.fitted()[f"benign.{j}"]) for j in range(3)]

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Return scores (N,) of images in [0, 1]; rejected above 0."""
        stages, logits = self._run(images)
        own, predictions = logits.double(), logits.argmax(1)
        # Pictures are changed after normalising; both changes keep constants, so the order is free.
        changed = [
            self._run(x)[1].double() for x in (images.flip(3), self.shrink @ images @ self.shrink.T)
        ]
        behind = torch.stack([_behind(x, predictions) for x in changed]).mean(0)
        centred = own - own.mean(1, keepdim=True)
        shifts = [x - x.mean(1, keepdim=True) - centred for x in changed]
        joint = self.joint(torch.cat([centred, *shifts], dim=1), predictions)
        inner = torch.stack([g(stages[n], predictions) for n, g in self.stages.items()]).mean(0)
        scores = (behind, joint, inner)
        surprise = [_along(s, *table) for s, table in zip(scores, self.tables, strict=True)]
        return 2 * torch.stack(surprise).sum(0) - self.threshold

    def rejects(self, images: torch.Tensor) -> np.ndarray:
        """Return (N,): whether each image is rejected."""
        with torch.inference_mode():
            return (self(images) > 0).numpy()

    def _run(self, images: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Return pooled stages and the logits."""
        net = self.net.net
        first = net.bn1(net.conv1((images - self.net.mean) / self.net.std))
        places = {"bn1": first, "layer1": net.layer1(functional.relu(first))}
        places["layer2"] = net.layer2(places["layer1"])
        places["layer3"] = net.layer3(places["layer2"])
        pooled = {name: x.mean((2, 3)) for name, x in places.items()}
        return pooled, net.linear(pooled["layer3"])


def _shrinking(n: int) -> torch.Tensor:
    """Return R, with which `zoom_out` makes `R X R.T` of a picture.

    R's rows sum to 1, so a picture of equal columns x becomes one of columns R x.
    """
    rows = np.repeat(np.eye(n, dtype=np.float32)[:, None, :, None], n, axis=3)
    return torch.from_numpy(zoom_out(rows)[:, 0, :, 0].T.copy())


def _behind(logits: torch.Tensor, predictions: torch.Tensor) -> torch.Tensor:
    own = logits.gather(1, predictions[:, None])
    others = logits.scatter(1, predictions[:, None], -torch.inf)
    return others.amax(1) - own[:, 0]


def _line(benign: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Return scores, ascending and distinct, and -log p at each."""
    n = len(benign)
    values, first = np.unique(benign, return_index=True)
    return torch.from_numpy(values), torch.from_numpy(-np.log((n - first + 1) / (n + 1)))


def _along(scores: torch.Tensor, grid: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Interpolate linearly; beyond the grid go on with the slope of its upper tenth."""
    last = len(grid) - 1
    low = torch.searchsorted(grid, scores.detach().contiguous()).clamp(1, last) - 1
    high = low + 1
    beyond = scores.detach() > grid[-1]
    low, high = (torch.where(beyond, torch.tensor(at), i) for at, i in
                 ((int(0.9 * last), low), (last, high)))  # fmt: skip
    slope = (values[high] - values[low]) / (grid[high] - grid[low])
    return values[high] + slope * (scores - grid[high])
