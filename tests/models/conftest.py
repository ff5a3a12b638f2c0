"""Tiny models for the adapter tests: ONNX graphs made by hand, and torch modules."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from faultlens.data.preprocess import Preprocessing
from faultlens.models.description import ModelDescription

CLASSES = ("cat", "dog", "ship")


@pytest.fixture
def about() -> Callable[..., ModelDescription]:
    """Make a description of three classes and 8 × 8 pictures."""

    def make(classes: tuple[str, ...] = CLASSES, **preprocessing: Any) -> ModelDescription:
        values = {"resize": 8, "crop": 8, "mean": (0.5,) * 3, "std": (0.25,) * 3} | preprocessing
        return ModelDescription(classes=classes, preprocessing=Preprocessing(**values))

    return make


@pytest.fixture
def weights() -> dict[str, np.ndarray]:
    """Weights of a small convolution net: 3 channels -> 6 features -> 3 classes."""
    rng = np.random.default_rng(7)
    shapes = {"conv": (6, 3, 3, 3), "conv_bias": (6,), "fc": (3, 6), "fc_bias": (3,)}
    return {name: rng.normal(size=s).astype(np.float32) for name, s in shapes.items()}


ENCODER = [
    helper.make_node("Conv", ["x", "conv", "conv_bias"], ["c"], pads=[1, 1, 1, 1]),
    helper.make_node("Relu", ["c"], ["r"]),
    helper.make_node("GlobalAveragePool", ["r"], ["pooled"]),
    helper.make_node("Flatten", ["pooled"], ["z"]),
]
GEMM = [helper.make_node("Gemm", ["z", "fc", "fc_bias"], ["logits"], transB=1)]


@pytest.fixture
def onnx_file(tmp_path: Path, weights: dict[str, np.ndarray]) -> Callable[..., Path]:
    """Write an ONNX file: the shared encoder, then the given nodes up to `output`."""

    def make(
        tail: list[onnx.NodeProto] = GEMM,
        *,
        encoder: list[onnx.NodeProto] = ENCODER,
        stored: dict[str, np.ndarray] | None = None,
        shape: tuple[Any, ...] = ("N", 3, 8, 8),
        outputs: tuple[str, ...] = ("logits",),
        metadata: dict[str, str] | None = None,
        kind: int = TensorProto.FLOAT,
        name: str = "net.onnx",
    ) -> Path:
        used = {i for node in [*encoder, *tail] for i in node.input}
        tensors = {k: v for k, v in (weights | (stored or {})).items() if k in used}
        graph = helper.make_graph(
            [*encoder, *tail],
            "net",
            [helper.make_tensor_value_info("x", kind, shape)],
            [onnx.ValueInfoProto(name=output) for output in outputs],
            [numpy_helper.from_array(v, k) for k, v in tensors.items()],
        )
        model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
        helper.set_model_props(model, metadata or {})
        path = tmp_path / name
        onnx.save(model, path)
        return path

    return make


@pytest.fixture
def pictures() -> Callable[..., np.ndarray]:
    """Make a prepared batch."""

    def make(n: int = 5, shape: tuple[int, ...] = (3, 8, 8), seed: int = 3) -> np.ndarray:
        return np.random.default_rng(seed).normal(size=(n, *shape)).astype(np.float32)

    return make


@pytest.fixture(scope="session")
def nets() -> Any:
    """Torch modules; skips where torch is not installed."""
    torch = pytest.importorskip("torch")
    nn = torch.nn

    class Block(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
            self.norm = nn.BatchNorm2d(width)

        def forward(self, x: Any) -> Any:
            return torch.relu(x + self.norm(self.conv(x)))

    class ResNet(nn.Module):
        def __init__(self, n_classes: int = 3, width: int = 8) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, width, 3, padding=1)
            self.blocks = nn.Sequential(Block(width), Block(width))
            self.pool = nn.AdaptiveAvgPool2d(1)
            self.drop = nn.Dropout(0.5)
            self.fc = nn.Linear(width, n_classes)

        def forward(self, x: Any) -> Any:
            return self.fc(self.drop(self.pool(self.blocks(self.stem(x))).flatten(1)))

    class ViT(nn.Module):
        def __init__(self, width: int = 16, size: int = 8) -> None:
            super().__init__()
            self.patch = nn.Conv2d(3, width, 4, stride=4)
            self.token = nn.Parameter(torch.randn(1, 1, width))
            self.position = nn.Parameter(torch.randn(1, (size // 4) ** 2 + 1, width))
            layer = nn.TransformerEncoderLayer(width, 2, 32, 0.1, batch_first=True)
            self.body = nn.TransformerEncoder(layer, 2)
            self.norm = nn.LayerNorm(width)
            self.head = nn.Linear(width, 3)

        def forward(self, x: Any) -> Any:
            tokens = self.patch(x).flatten(2).transpose(1, 2)
            tokens = torch.cat([self.token.expand(len(x), -1, -1), tokens], 1) + self.position
            return self.head(self.norm(self.body(tokens))[:, 0])

    class Mlp(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pool = nn.AdaptiveAvgPool2d(2)
            self.classifier = nn.Sequential(
                nn.Dropout(), nn.Linear(12, 7), nn.ReLU(), nn.Dropout(), nn.Linear(7, 3)
            )

        def forward(self, x: Any) -> Any:
            return self.classifier(self.pool(x).flatten(1))

    class Nets:
        resnet, vit, mlp = ResNet, ViT, Mlp

        @staticmethod
        def trained(kind: Any, seed: int = 0) -> Any:
            """A module with random weights and batch statistics, in evaluation mode."""
            torch.manual_seed(seed)
            net = kind()
            with torch.no_grad():
                net(torch.randn(16, 3, 8, 8))
            return net.eval()

    return Nets
