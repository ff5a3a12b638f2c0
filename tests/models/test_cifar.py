"""A network that others trained, loaded from its weights alone."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from faultlens.models.head import Head, predict
from faultlens.models.load import load_model

CIFAR = Path(__file__).parents[3] / "shared" / "cifar10"
pytestmark = [
    pytest.mark.shared,
    pytest.mark.torch,
    pytest.mark.skipif(not CIFAR.is_dir(), reason="the shared CIFAR-10 folder is not there"),
]

RESNET20 = """
import torch
from torch import nn
from torch.nn import functional as F

class Block(nn.Module):
    def __init__(self, before, width):
        super().__init__()
        self.stride = width // before
        self.conv1 = nn.Conv2d(before, width, 3, self.stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.stride > 1:
            extra = (y.shape[1] - x.shape[1]) // 2
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, extra, extra))
        return F.relu(x + y)

class ResNet20(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        for stage, (before, width) in enumerate([(16, 16), (16, 32), (32, 64)], 1):
            blocks = [Block(before, width), Block(width, width), Block(width, width)]
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))
"""


@pytest.fixture
def resnet20(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cifar_resnet20.py").write_text(RESNET20)
    (tmp_path / "net.yaml").write_text(
        "classes: [airplane, automobile, bird, cat, deer, dog, frog, horse, ship, truck]\n"
        "preprocessing:\n"
        "  resize: null\n"
        "  mean: [0.485, 0.456, 0.406]\n"
        "  std: [0.229, 0.224, 0.225]\n"
    )
    return load_model(
        "torch:cifar_resnet20:ResNet20",
        weights=CIFAR / "resnet20.safetensors",
        preprocess="net.yaml",
    )


def test_head_and_accuracy_are_the_published_ones(resnet20):
    head = Head.load(CIFAR / "head.safetensors")
    np.testing.assert_array_equal(resnet20.head.weight, head.weight)
    np.testing.assert_array_equal(resnet20.head.bias, head.bias)
    with zipfile.ZipFile(CIFAR / "images.zip") as archive:
        names = [n for n in sorted(archive.namelist()) if n.endswith(".jpg")][::10]
        pictures = [Image.open(io.BytesIO(archive.read(n))).convert("RGB") for n in names]
    logits = resnet20.encode(np.stack([resnet20.prepare(p) for p in pictures]))["logits"]
    labels = [resnet20.class_names.index(Path(n).parent.name) for n in names]
    assert 0.82 < np.mean(predict(logits)[0] == labels) < 0.91


def test_stored_features_agree_with_the_head():
    features = safetensors.numpy.load_file(CIFAR / "features.safetensors")
    logits = Head.load(CIFAR / "head.safetensors")(features["embedding"])
    np.testing.assert_allclose(logits, features["logits"], atol=0.05)
