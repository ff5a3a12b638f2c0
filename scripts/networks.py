"""The small networks of the demo, and how they are trained and saved. Needs the torch extra."""

import io
import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path

# Threads that wait without spinning: many times quicker on a machine that does other work too.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from faultlens.data.world.dataset import Drawings
from faultlens.files import write_atomic

MEAN, STD = 0.5, 0.25


class Block(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut (He et al., CVPR 2016, arXiv:1512.03385)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs),
        )  # fmt: skip
        self.shortcut = (
            nn.Identity()
            if inputs == outputs and stride == 1
            else nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's map."""
        return torch.relu(self.main(x) + self.shortcut(x))


class ResNet(nn.Module):
    """A small residual network for 64 x 64 pictures.

    Args:
        width: Channels of the first stage; the last has six times as many.
        outputs: Values of the last layer.
    """

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.stage1 = Block(width, width, 1)
        self.stage2 = Block(width, 2 * width, 2)
        self.stage3 = Block(2 * width, 4 * width, 2)
        self.stage4 = Block(4 * width, 6 * width, 2)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(6 * width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, outputs) for pictures (N, 3, 64, 64)."""
        x = self.stem(x)
        for stage in (self.stage1, self.stage2, self.stage3, self.stage4):
            x = stage(x)
        return self.head(self.pool(x))


class Scaled(nn.Module):
    """A network that takes pictures in [0, 1] and normalises them itself."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """Return the network's output."""
        return self.net((x - MEAN) / STD)


class Schedule:
    """AdamW with a linear warm-up and a cosine decay, and the time that is left.

    Args:
        parameters: What to train.
        steps: Of the whole training.
        rate: Highest learning rate.
    """

    def __init__(self, parameters: list[nn.Parameter], steps: int, rate: float) -> None:
        self.steps, self.rate = steps, rate
        decayed = [p for p in parameters if p.ndim > 1]
        others = [p for p in parameters if p.ndim <= 1]
        self._optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": 0.02}, {"params": others, "weight_decay": 0.0}],
            lr=rate,
        )
        self._step, self._start = 0, time.monotonic()

    def step(self, loss: Tensor) -> None:
        """Descend once; prints ten times in a training."""
        warm = min(1.0, (self._step + 1) / max(1, self.steps // 20))
        rate = self.rate * warm * 0.5 * (1 + math.cos(math.pi * self._step / self.steps))
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        self._step += 1
        if self._step % max(1, self.steps // 10) == 0:
            elapsed = time.monotonic() - self._start
            left = elapsed / self._step * (self.steps - self._step)
            print(
                f"  step {self._step}/{self.steps}  loss {loss.item():.4f}  "
                f"{elapsed:.0f} s, {left:.0f} s left",
                flush=True,
            )


def batches(n: int, size: int, epochs: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield rows of shuffled batches; the last short batch of an epoch is left out."""
    size = min(size, n)
    for _ in range(epochs):
        order = rng.permutation(n)
        for i in range(0, n - size + 1, size):
            yield order[i : i + size]


def inputs(pixels: np.ndarray, rng: np.random.Generator | None = None) -> Tensor:
    """Return (N, 3, 64, 64) normalised pictures; with `rng` each is moved by up to 3 pixels."""
    if rng is not None:
        padded = np.pad(pixels, ((0, 0), (3, 3), (3, 3), (0, 0)), mode="edge")
        shifts = rng.integers(0, 7, (len(pixels), 2))
        pixels = np.stack(
            [p[y : y + 64, x : x + 64] for p, (y, x) in zip(padded, shifts, strict=True)]
        )
    # A permuted view is channels-last already.
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
    return (x / 255 - MEAN) / STD


def autocast() -> torch.autocast:
    """Return bfloat16 arithmetic where it is safe: twice as quick on recent CPUs."""
    return torch.autocast("cpu", torch.bfloat16)


def save_onnx(
    net: nn.Module, path: Path, example: Tensor, names: tuple[str, str], facts: dict[str, object]
) -> None:
    """Write a network as one ONNX file of any batch size, with facts in its metadata.

    Args:
        net: In evaluation mode.
        path: The file.
        example: One input.
        names: Of the input and the output.
        facts: Written as JSON, each under `faultlens.<key>`.
    """
    buffer = io.BytesIO()
    torch.onnx.export(
        net.to(memory_format=torch.contiguous_format), (example,), buffer,
        input_names=[names[0]], output_names=[names[1]],
        dynamic_axes={names[0]: {0: "n"}, names[1]: {0: "n"}}, opset_version=17, dynamo=False,
    )  # fmt: skip
    proto = onnx.load_from_string(buffer.getvalue())
    onnx.helper.set_model_props(
        proto, {f"faultlens.{key}": json.dumps(value) for key, value in facts.items()}
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, proto.SerializeToString())


def said(done: int, total: int) -> None:
    """Print how far rendering is, ten times."""
    if done == total or done % (max(1, total // 640) * 64) == 0:
        print(f"  rendered {done}/{total}", flush=True)


def summary(drawings: Drawings) -> str:
    """Return one line about a set of pictures."""
    return (
        f"{len(drawings.labels):,} pictures, {drawings.attributes.mean():.0%} of attributes shown"
    )


def n_workers() -> int:
    """Return how many cores there are."""
    return os.cpu_count() or 1
