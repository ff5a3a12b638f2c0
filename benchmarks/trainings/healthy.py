"""Fourteen small programs that really learn, on synthetic or scikit-learn data."""

from functools import lru_cache

import numpy as np
import torch
from torch import nn

from trainings.recipe import Recipe, Variant, act, floats, mlp, wide


@lru_cache
def digits() -> tuple[torch.Tensor, torch.Tensor]:
    from sklearn.datasets import load_digits

    data = load_digits()
    return floats(data.images / 16.0), torch.from_numpy(data.target.astype(np.int64))


def mlp_digits(v: Variant) -> Recipe:
    x, y = digits()
    model = mlp(v, [64, 48, 32, 10])
    return Recipe("mlp_digits", "classes", x.flatten(1), y, model, nn.CrossEntropyLoss(), 3e-3)


def mlp_cancer(v: Variant) -> Recipe:
    from sklearn.datasets import load_breast_cancer

    x, y = load_breast_cancer(return_X_y=True)
    x = (x - x.mean(0)) / x.std(0)
    model = mlp(v, [30, 24, 12, 1])
    loss = nn.BCEWithLogitsLoss()
    return Recipe(
        "mlp_cancer", "logit", floats(x), floats(y[:, None]), model, loss, 0.02, "SGD", batch=16
    )


def mlp_moons(v: Variant) -> Recipe:
    from sklearn.datasets import make_moons

    x, y = make_moons(1000, noise=0.15, random_state=0)
    model = nn.Sequential(*mlp(v, [2, 32, 16, 1], "tanh"), nn.Sigmoid())
    return Recipe(
        "mlp_moons", "probability", floats(x), floats(y[:, None]), model, nn.BCELoss(), 0.01,
        steps=400,
    )  # fmt: skip


def regression(v: Variant) -> Recipe:
    from sklearn.datasets import make_friedman1

    x, y = make_friedman1(1500, noise=0.3, random_state=0)
    y = (y - y.mean()) / y.std()
    x = (x - x.mean(0)) / x.std(0)
    model = mlp(v, [10, 48, 24, 1])
    return Recipe("regression", "values", floats(x), floats(y[:, None]), model, nn.MSELoss(), 3e-3)


def sine_tanh(v: Variant) -> Recipe:
    x = np.linspace(-1, 1, 600)[:, None]
    y = np.sin(5 * x) * (1 + 0.3 * x)
    model = mlp(v, [1, 32, 32, 1], "tanh")
    return Recipe(
        "sine_tanh", "values", floats(x), floats(y), model, nn.SmoothL1Loss(), 0.01, steps=500
    )


def autoencoder(v: Variant) -> Recipe:
    x = digits()[0].flatten(1)
    model = nn.Sequential(*mlp(v, [64, 48, 16, 48, 64]), nn.Sigmoid())
    return Recipe("autoencoder", "values", x, x, model, nn.MSELoss(), 5e-3, steps=500)


def cnn_digits(v: Variant) -> Recipe:
    x, y = digits()
    a, b = wide(v, 8), wide(v, 16)
    model = nn.Sequential(
        nn.Conv2d(1, a, 3, padding=1), act(v), nn.MaxPool2d(2), nn.Conv2d(a, b, 3, padding=1),
        act(v), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * b, 32), act(v), nn.Linear(32, 10),
    )  # fmt: skip
    return Recipe("cnn_digits", "classes", x[:, None], y, model, nn.CrossEntropyLoss(), 5e-3)


@lru_cache
def shapes(n: int = 900, side: int = 14) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Discs, squares and crosses in noise: pictures, classes, masks."""
    r = np.random.default_rng(3)
    y = r.integers(0, 3, n)
    c, size = r.uniform(4, side - 5, (n, 2)), r.uniform(2, 3.5, n)
    g = np.mgrid[:side, :side][None] - c[:, :, None, None]
    s = size[:, None, None]
    disc = (g**2).sum(1) <= s**2
    square = np.abs(g).max(1) <= s * 0.9
    cross = (np.abs(g).min(1) <= 0.7) & (np.abs(g).max(1) <= s)
    mask = np.where(y[:, None, None] == 0, disc, np.where(y[:, None, None] == 1, square, cross))
    x = mask * r.uniform(0.6, 1, (n, 1, 1)) + 0.15 * r.normal(size=mask.shape)
    return floats(x[:, None]), torch.from_numpy(y), floats(mask[:, None])


def cnn_shapes(v: Variant) -> Recipe:
    x, y, _ = shapes()
    a, b = wide(v, 10), wide(v, 20)
    model = nn.Sequential(
        nn.Conv2d(1, a, 3, padding=1), nn.BatchNorm2d(a), act(v), nn.MaxPool2d(2),
        nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), act(v), nn.MaxPool2d(2),
        nn.Flatten(), nn.Dropout(0.2), nn.Linear(9 * b, 3), nn.LogSoftmax(1),
    )  # fmt: skip
    return Recipe("cnn_shapes", "classes", x, y, model, nn.NLLLoss(), 0.02, "SGD")


class Residual(nn.Module):
    """Two convolutions around a shortcut."""

    def __init__(self, n: int, v: Variant) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(n, n, 3, padding=1, bias=False), nn.BatchNorm2d(n), act(v),
            nn.Conv2d(n, n, 3, padding=1, bias=False), nn.BatchNorm2d(n),
        )  # fmt: skip
        self.after = act(v)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.after(x + self.body(x))


def resnet(v: Variant) -> Recipe:
    x, y = digits()
    n = wide(v, 12)
    model = nn.Sequential(
        nn.Conv2d(1, n, 3, padding=1), act(v), Residual(n, v), nn.MaxPool2d(2), Residual(n, v),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * n, 10),
    )  # fmt: skip
    return Recipe(
        "resnet", "classes", x[:, None], y, model, nn.CrossEntropyLoss(), 0.02, "SGD",
        weight_decay=1e-4,
    )  # fmt: skip


@lru_cache
def sentences(n: int = 1200, length: int = 12, words: int = 20) -> tuple[torch.Tensor, ...]:
    """Word indices; class: which of four marked words is the most frequent."""
    r = np.random.default_rng(5)
    x = r.integers(4, words, (n, length))
    y = r.integers(0, 4, n)
    for row, k in zip(x, y, strict=True):
        places = r.permutation(length)[:4]
        row[places[:3]] = k
        row[places[3]] = r.integers(0, 4)
    return torch.from_numpy(x), torch.from_numpy(y)


class Transformer(nn.Module):
    """One encoder layer over embedded words and places, then the mean."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(20, n), nn.Parameter(0.02 * torch.randn(12, n))
        self.encoder = nn.TransformerEncoderLayer(n, 2, 2 * n, 0.1, batch_first=True)
        self.head = nn.Linear(n, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(self.words(x) + self.places).mean(1))


def transformer(v: Variant) -> Recipe:
    x, y = sentences()
    model = Transformer(2 * wide(v, 12))
    return Recipe("transformer", "classes", x, y, model, nn.CrossEntropyLoss(), 5e-3)


class Pooled(nn.Module):
    """Mean of word embeddings, then a small head of log-probabilities."""

    def __init__(self, v: Variant) -> None:
        super().__init__()
        n = wide(v, 16)
        self.words = nn.Embedding(20, n)
        self.head = nn.Sequential(nn.Linear(n, n), act(v), nn.Linear(n, 4), nn.LogSoftmax(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.words(x).mean(1))


def embedding_pool(v: Variant) -> Recipe:
    x, y = sentences()
    return Recipe("embedding_pool", "classes", x, y, Pooled(v), nn.NLLLoss(), 0.01)


class Recurrent(nn.Module):
    """The last state of an LSTM, and a logit of it."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(1, n, batch_first=True)
        self.head = nn.Linear(n, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(x)[0][:, -1])


def lstm_signs(v: Variant) -> Recipe:
    r = np.random.default_rng(8)
    x = r.choice([-1.0, 1.0], (1000, 9, 1))
    y = (x.sum(1) > 0).astype(np.float32)
    model = Recurrent(wide(v, 16))
    return Recipe("lstm_signs", "logit", floats(x), floats(y), model, nn.BCEWithLogitsLoss(), 0.01)


def conv1d(v: Variant) -> Recipe:
    r = np.random.default_rng(9)
    y = r.integers(0, 3, 900)
    t = np.arange(48)[None] / 48
    wave = np.sin(2 * np.pi * ((2 + 2 * y[:, None]) * t + r.random((900, 1))))
    x = wave + 0.3 * r.normal(size=wave.shape)
    a, b = wide(v, 8), wide(v, 16)
    model = nn.Sequential(
        nn.Conv1d(1, a, 7, padding=3), act(v), nn.MaxPool1d(2), nn.Conv1d(a, b, 5, padding=2),
        act(v), nn.AdaptiveMaxPool1d(2), nn.Flatten(), nn.Linear(2 * b, 3),
    )  # fmt: skip
    return Recipe(
        "conv1d", "classes", floats(x[:, None]), torch.from_numpy(y), model,
        nn.CrossEntropyLoss(), 5e-3,
    )  # fmt: skip


def segmentation(v: Variant) -> Recipe:
    x, _, mask = shapes()
    n = wide(v, 10)
    model = nn.Sequential(
        nn.Conv2d(1, n, 3, padding=1), act(v), nn.Conv2d(n, n, 3, padding=1), act(v),
        nn.Conv2d(n, 1, 1),
    )  # fmt: skip
    return Recipe("segmentation", "logit", x, mask, model, nn.BCEWithLogitsLoss(), 0.01, steps=200)
