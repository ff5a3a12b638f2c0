"""What a monitor costs: inside a network's graph, and on cached features.

`python benchmarks/monitoring/speed.py` prints both tables; OMP_NUM_THREADS bounds the threads.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import onnx.parser

from faultlens.deploy.onnx_monitor import export_monitor
from faultlens.deploy.onnx_verdict import verdict_model
from faultlens.models.description import ModelDescription
from faultlens.models.load import load_model
from faultlens.monitor.detector import load_detector
from faultlens.monitor.features import Features
from faultlens.monitor.runtime import RuntimeMonitor, Settings
from faultlens.monitor.verdict import ConceptMap
from faultlens.onnx_session import open_session

CLASSES, CONCEPTS, WIDTH, SIDE = 10, 100, 512, 224
IN_GRAPH = (
    "msp", "refit", "refit-strengths", "heatmap-bayes", "heatmap-few", "fused-benign", "fused",
)  # fmt: skip
CACHED = (
    "msp", "refit", "refit-strengths", "heatmap", "heatmap-bayes", "heatmap-few", "mahalanobis",
    "mahalanobis-strengths", "fused-benign", "fused",
)  # fmt: skip
#: Required and aimed at, of the graph's overhead and of the throughput.
MOST_SHARE, MOST_US, AIM_US, LEAST_RATE = 0.01, 100.0, 30.0, 500_000.0
_NAMES = tuple(f"class {k}" for k in range(CLASSES))
_PLAIN = {"resize": SIDE, "crop": SIDE, "mean": (0.5,) * 3, "std": (0.25,) * 3}


def resnet18(n_classes: int):
    """Return the architecture of He et al. (2016), table 1, 18 layers, with random weights."""
    import torch
    from torch import nn

    def conv(a, b, size, stride):
        return [nn.Conv2d(a, b, size, stride, size // 2, bias=False), nn.BatchNorm2d(b)]

    class Block(nn.Module):
        def __init__(self, a, b, stride):
            super().__init__()
            self.body = nn.Sequential(*conv(a, b, 3, stride), nn.ReLU(), *conv(b, b, 3, 1))
            self.skip = nn.Identity() if a == b else nn.Sequential(*conv(a, b, 1, stride))

        def forward(self, x):
            return torch.relu(self.body(x) + self.skip(x))

    torch.manual_seed(0)
    widths = (64, 64, 128, 256, 512)
    stages = [
        nn.Sequential(Block(a, b, 1 if a == b else 2), Block(b, b, 1)) for a, b in pairwise(widths)
    ]
    stem = [*conv(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    end = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, n_classes)]
    return nn.Sequential(*stem, *stages, *end).eval()


def features(n: int, seed: int) -> tuple[Features, np.ndarray]:
    """Draw embeddings of overlapping classes with logits and concept strengths."""
    fixed, rng = np.random.default_rng(7), np.random.default_rng(seed)
    means = fixed.standard_normal((CLASSES, WIDTH), np.float32)
    labels = rng.integers(CLASSES, size=n)
    z = means[labels] + 9 * rng.standard_normal((n, WIDTH), np.float32)
    directions = fixed.standard_normal((WIDTH, CONCEPTS), np.float32) / 20
    return Features(z, z @ means.T / 80, z @ directions), labels


def monitor(detector: str) -> RuntimeMonitor:
    """Fit a monitor with one detector."""
    directions = np.random.default_rng(8).standard_normal((CONCEPTS, WIDTH), np.float32) / 20
    mapped = ConceptMap(
        directions, np.zeros(CONCEPTS, np.float32), tuple(map(str, range(CONCEPTS)))
    )
    drawn, labels = features(3000, 1)
    return RuntimeMonitor.fit_features(
        Features(drawn.embeddings, drawn.logits), labels,
        settings=Settings(detector=detector), classes=_NAMES, concept_map=mapped,
    )  # fmt: skip


def in_graph(n_rounds: int) -> list[dict]:
    """Time a ResNet-18 with and without a monitor, batch 1, in turns; medians."""
    import torch

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        bare = Path(folder) / "bare.onnx"
        torch.onnx.export(
            resnet18(CLASSES), (torch.zeros(1, 3, SIDE, SIDE),), bare, dynamo=False,
            input_names=["image"], output_names=["logits"], dynamic_axes={"image": {0: "N"}},
        )  # fmt: skip
        about = ModelDescription(classes=_NAMES, preprocessing=_PLAIN)
        model = load_model(f"onnx:{bare}", preprocess=about)
        x = np.random.default_rng(0).standard_normal((1, 3, SIDE, SIDE), np.float32)
        for name in IN_GRAPH:
            both = Path(folder) / "both.onnx"
            found = export_monitor(monitor(name), model, both)
            sessions = [open_session(path.read_bytes()) for path in (bare, both)]
            runs = [lambda s=s: s.run(None, {"image": x}) for s in sessions]
            alone, paired = _in_turns(*runs, n_rounds)
            rows.append({
                "detector": name, "operators": found.n_operators,
                "classifier_us": 1e6 * alone, "overhead_us": 1e6 * paired,
                "share": paired / alone,
                "tail_us": 1e6 * _tail(monitor(name), n_rounds),
            })  # fmt: skip
    return rows


def _in_turns(first: Callable, second: Callable, n_rounds: int) -> tuple[float, float]:
    """Return the median seconds of the first, and the median of second less first."""
    base, more = [], []
    for i in range(n_rounds + 5):
        a, b = (first, second) if i % 2 else (second, first)
        start = time.perf_counter()
        a()
        middle = time.perf_counter()
        b()
        end = time.perf_counter()
        times = (middle - start, end - middle) if i % 2 else (end - middle, middle - start)
        if i >= 5:  # the first ones warm the caches
            base.append(times[0])
            more.append(times[1] - times[0])
    return statistics.median(base), statistics.median(more)


def _tail(fitted: RuntimeMonitor, n_rounds: int) -> float:
    """Return the median seconds of the monitor's operators alone, without a call's own cost."""
    rng = np.random.default_rng(0)
    feeds = {
        "embedding": rng.standard_normal((1, WIDTH), np.float32),
        "given": rng.standard_normal((1, CLASSES), np.float32),
    }
    nothing = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        nothing (float[N,D] embedding, float[N,K] given) => (float[N,K] logits)
        { logits = Identity(given) }""")
    models = (nothing, verdict_model(fitted, WIDTH, 17))
    sessions = [open_session(model.SerializeToString(), threads=1) for model in models]
    runs = [lambda s=s: s.run(None, feeds) for s in sessions]
    return _in_turns(*runs, 20 * n_rounds)[1]


def cached(n: int) -> list[dict]:
    """Time `score` of each detector on cached features; the best of five runs."""
    drawn, labels = features(3000, 1)
    fresh, _ = features(n, 2)
    rows = []
    for name in CACHED:
        detector = load_detector(name).fit(drawn, labels)
        wall, used = [], []
        for _ in range(5):
            start, begun = time.perf_counter(), time.process_time()
            detector.score(fresh)
            wall.append(time.perf_counter() - start)
            used.append(time.process_time() - begun)
        rows.append({
            "detector": name, "images_per_s": n / min(wall), "cpu_us": 1e6 * min(used) / n,
        })  # fmt: skip
    return rows


def run(quick: bool) -> dict:
    """Measure both.

    Args:
        quick: A few rounds and images only.

    Returns:
        `in_graph`: rows with `detector`, `operators`, `classifier_us` (median of the network
        alone), `overhead_us` (median of the paired differences), `share` (of the network's time)
        and `tail_us` (the operators in a graph of their own); `cached`: rows with `detector`,
        `images_per_s` and `cpu_us` (processor time an image); and what is required.
    """
    return {
        "in_graph": in_graph(20 if quick else 300),
        "cached": cached(20_000 if quick else 200_000),
        "required": {"share": MOST_SHARE, "overhead_us": MOST_US, "images_per_s": LEAST_RATE},
        "aim": {"overhead_us": AIM_US},
    }


def show(found: dict) -> None:
    """Print both tables."""
    print("batch 1, ResNet-18 at 224 x 224, ONNX Runtime")
    print(f"{'detector':24}{'operators':>10}{'network us':>12}{'overhead us':>13}{'share':>9}"
          f"{'alone us':>10}")  # fmt: skip
    for row in found["in_graph"]:
        print(f"{row['detector']:24}{row['operators']:10}{row['classifier_us']:12.0f}"
              f"{row['overhead_us']:13.1f}{row['share']:9.2%}{row['tail_us']:10.1f}")  # fmt: skip
    print(f"\nscore on cached features, C = {CONCEPTS}, K = {CLASSES}, D = {WIDTH}")
    print(f"{'detector':24}{'images/s':>12}{'cpu us/image':>14}")
    for row in found["cached"]:
        print(f"{row['detector']:24}{row['images_per_s']:12.0f}{row['cpu_us']:14.2f}")


if __name__ == "__main__":
    show(run(quick="--quick" in sys.argv))
