"""Seven further programs that really learn: other architectures and other data than the first."""

import numpy as np
import torch
from torch import nn

from trainings.healthy import digits
from trainings.recipe import Recipe, Variant, act, floats, wide


def separable(n: int, m: int, v: Variant) -> nn.Sequential:
    """A depthwise convolution, then one over channels, each with its norm."""
    return nn.Sequential(
        nn.Conv2d(n, n, 3, padding=1, groups=n, bias=False), nn.BatchNorm2d(n), act(v),
        nn.Conv2d(n, m, 1, bias=False), nn.BatchNorm2d(m), act(v),
    )  # fmt: skip


def depthwise_digits(v: Variant) -> Recipe:
    x, y = digits()
    a, b = wide(v, 12), wide(v, 24)
    model = nn.Sequential(
        nn.Conv2d(1, a, 3, padding=1), act(v), separable(a, b, v), nn.MaxPool2d(2),
        separable(b, b, v), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * b, 10),
    )  # fmt: skip
    return Recipe(
        "depthwise_digits", "classes", x[:, None] - 0.3, y, model, nn.CrossEntropyLoss(), 0.05,
        "SGD", weight_decay=1e-4, batch=48, steps=250,
    )  # fmt: skip


class Gated(nn.Module):
    """A residual block whose one half opens and closes the other, after a layer norm."""

    def __init__(self, n: int, v: Variant) -> None:
        super().__init__()
        self.norm, self.value = nn.LayerNorm(n), nn.Linear(n, 2 * n)
        self.gate, self.opening = nn.Linear(n, 2 * n), act(v, "silu")
        self.back = nn.Linear(2 * n, n)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.norm(x)
        return x + self.back(self.value(z) * self.opening(self.gate(z)))


class GatedTable(nn.Module):
    """Two gated blocks over the projected columns of a table."""

    def __init__(self, v: Variant) -> None:
        super().__init__()
        n = wide(v, 16)
        self.first = nn.Linear(13, n)
        self.blocks = nn.Sequential(Gated(n, v), Gated(n, v))
        self.head = nn.Linear(n, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(self.first(x)))


def gated_wine(v: Variant) -> Recipe:
    from sklearn.datasets import load_wine

    x, y = load_wine(return_X_y=True)
    x = (x - x.mean(0)) / x.std(0)
    return Recipe(
        "gated_wine", "classes", floats(x), torch.from_numpy(y.astype(np.int64)), GatedTable(v),
        nn.CrossEntropyLoss(), 2e-3, batch=24, steps=300,
    )  # fmt: skip


class Reader(nn.Module):
    """A GRU over embedded words; log-probabilities of its last state."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.words, self.gru = nn.Embedding(12, n), nn.GRU(n, n, batch_first=True)
        self.head = nn.Linear(n, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.gru(self.words(x))[1][-1])


def gru_last(v: Variant) -> Recipe:
    """Class: which of three marked words came last."""
    r = np.random.default_rng(21)
    x = r.integers(3, 12, (1200, 10))
    x[:, :3] = r.permuted(np.tile([0, 1, 2], (1200, 1)), axis=1)
    x = r.permuted(x, axis=1)
    y = np.array([row[row < 3][-1] for row in x])
    return Recipe(
        "gru_last", "classes", torch.from_numpy(x), torch.from_numpy(y), Reader(wide(v, 20)),
        nn.CrossEntropyLoss(), 0.01, steps=350,
    )  # fmt: skip


def conv_decay(v: Variant) -> Recipe:
    """How quickly a noisy swing dies away, and how quickly it swings."""
    r = np.random.default_rng(22)
    rate, speed = r.uniform(0.5, 5, 1000), r.uniform(2, 6, 1000)
    t = np.linspace(0, 1, 40)[None]
    x = np.exp(-rate[:, None] * t) * np.cos(2 * np.pi * speed[:, None] * t)
    x += 0.05 * r.normal(size=x.shape)
    y = np.stack([rate, speed], 1)
    y = (y - y.mean(0)) / y.std(0)
    a, b = wide(v, 12), wide(v, 16)
    model = nn.Sequential(
        nn.Conv1d(1, a, 5, padding=2), act(v, "silu"), nn.Conv1d(a, b, 5, 2, 2), act(v, "silu"),
        nn.Conv1d(b, b, 5, 2, 2), act(v, "silu"), nn.Flatten(), nn.Linear(10 * b, 2),
    )  # fmt: skip
    return Recipe(
        "conv_decay", "values", floats(x[:, None]), floats(y), model, nn.MSELoss(), 3e-3, steps=350
    )


class SmallUNet(nn.Module):
    """Down once, up once, and the fine picture beside the coarse."""

    def __init__(self, v: Variant) -> None:
        super().__init__()
        n, m = wide(v, 8), wide(v, 16)
        self.fine = nn.Sequential(nn.Conv2d(1, n, 3, padding=1), nn.GroupNorm(1, n), act(v))
        self.down = nn.MaxPool2d(2)
        self.coarse = nn.Sequential(nn.Conv2d(n, m, 3, padding=1), nn.GroupNorm(1, m), act(v))
        self.up = nn.ConvTranspose2d(m, n, 2, 2)
        self.mix = nn.Sequential(nn.Conv2d(2 * n, n, 3, padding=1), act(v))
        self.head = nn.Conv2d(n, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        fine = self.fine(x)
        wide_view = self.up(self.coarse(self.down(fine)))
        return self.head(self.mix(torch.cat([fine, wide_view], 1)))


def unet_rings(v: Variant) -> Recipe:
    """Rings on a sloping ground: the inside of a ring is to be marked, not the ring."""
    r = np.random.default_rng(23)
    n, side = 600, 16
    centre, radius = r.uniform(5, 11, (n, 2, 1, 1)), r.uniform(3, 6, (n, 1, 1))
    grid = np.mgrid[:side, :side][None]
    far = np.sqrt(((grid - centre) ** 2).sum(1))
    inside = far < radius
    slope = (grid * r.normal(size=(n, 2, 1, 1))).sum(1) / side
    x = 1.5 * (np.abs(far - radius) < 0.8) + 0.4 * slope + 0.1 * r.normal(size=inside.shape)
    return Recipe(
        "unet_rings", "logit", floats(x[:, None]), floats(inside[:, None]), SmallUNet(v),
        nn.BCEWithLogitsLoss(), 5e-3, batch=16, steps=250,
    )  # fmt: skip


def words_topics(v: Variant) -> Recipe:
    """Bags of 60 words; each of five topics may or may not be spoken of."""
    r = np.random.default_rng(24)
    y = r.integers(0, 2, (1200, 5))
    words = 0.3 + y @ (1.2 * (r.random((5, 60)) < 0.15))
    x = np.log1p(r.poisson(words))
    n, m = wide(v, 64), wide(v, 32)
    model = nn.Sequential(
        nn.Linear(60, n), act(v), nn.Dropout(0.3), nn.Linear(n, m), act(v), nn.Dropout(0.2),
        nn.Linear(m, 5),
    )  # fmt: skip
    return Recipe(
        "words_topics", "logit", floats(x), floats(y), model, nn.BCEWithLogitsLoss(), 0.1, "SGD",
        steps=350,
    )  # fmt: skip


class Block(nn.Module):
    """Attention, then an MLP, each after a norm and around a shortcut."""

    def __init__(self, n: int, v: Variant) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(n), nn.LayerNorm(n)
        self.attention = nn.MultiheadAttention(n, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(n, 2 * n), act(v, "gelu"), nn.Linear(2 * n, n))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.before(x)
        x = x + self.attention(z, z, z, need_weights=False)[0]
        return x + self.mlp(self.between(x))


class SmallViT(nn.Module):
    """Patches of 2 by 2, two blocks, the mean."""

    def __init__(self, v: Variant) -> None:
        super().__init__()
        n = 2 * wide(v, 12)
        self.patches = nn.Conv2d(1, n, 2, 2)
        self.places = nn.Parameter(0.02 * torch.randn(16, n))
        self.blocks = nn.Sequential(Block(n, v), Block(n, v))
        self.norm, self.head = nn.LayerNorm(n), nn.Linear(n, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2) + self.places
        return self.head(self.norm(self.blocks(x)).mean(1))


def vit_digits(v: Variant) -> Recipe:
    x, y = digits()
    return Recipe(
        "vit_digits", "classes", 2 * x[:, None] - 1, y, SmallViT(v), nn.CrossEntropyLoss(), 3e-3,
        batch=48, steps=300,
    )  # fmt: skip
