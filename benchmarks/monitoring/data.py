"""What the monitor is judged on: a ResNet-20's features, photographs, drawn pictures.

Strengths come from a map of a debugging session, as a deployed monitor has them. Everything drawn
or chosen is seeded; what is expensive is kept in `build/monitor`.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np

from faultlens import monitoring
from faultlens.data.images import open_images
from faultlens.data.world.dataset import Drawings, render_all
from faultlens.data.world.scene import scenes
from faultlens.files import load_arrays, save_arrays
from faultlens.models.description import ModelDescription
from faultlens.models.load import load_model
from faultlens.models.pytorch import from_module
from faultlens.monitor.features import Features
from faultlens.session import DebugSession
from faultlens.vlm.load import load_vlm

HERE = Path(__file__).resolve().parents[1]
SHARED = HERE.parents[1] / "shared"
WORK = HERE.parent / "build" / "monitor"
ASSETS = Path(str(files("faultlens") / "assets" / "demo"))
CIFAR_CLASSES = ["airplane", "automobile", "bird", "cat", "deer",
                 "dog", "frog", "horse", "ship", "truck"]  # fmt: skip
#: Cuts the 20,000 images in a half to choose on and a half to judge on.
HALVES = 20
#: Pictures of the session that gives the map: development. Those to judge are of later seeds.
WORLD_MAP, WORLD_FIRST = 1501, 60001


@dataclass(frozen=True, eq=False)
class Split:
    """Images to fit on and images to judge on.

    Attributes:
        fit: Features to fit on.
        fit_labels: (N,) their truth.
        test: Features to judge on.
        test_labels: (M,) their truth.
        images: (M,) which image each judged one is; the same in other splits of its data.
    """

    fit: Features
    fit_labels: np.ndarray
    test: Features
    test_labels: np.ndarray
    images: np.ndarray

    @property
    def wrong(self) -> np.ndarray:
        """(M,) whether the prediction is wrong."""
        return self.test.predictions != self.test_labels


@dataclass(frozen=True, eq=False)
class Pool:
    """Images with known truth."""

    features: Features
    labels: np.ndarray

    def split(self, rng: np.random.Generator, n_fit: int) -> Split:
        """Draw `n_fit` images to fit on; the rest is judged."""
        order = rng.permutation(len(self.labels))
        a, b = np.sort(order[:n_fit]), np.sort(order[n_fit:])
        f, y = self.features, self.labels
        return Split(f.select(a), y[a], f.select(b), y[b], b)

    def splits(self, n: int, seed: int = 0) -> Iterator[Split]:
        """Yield n random halvings."""
        for i in range(n):
            yield self.split(np.random.default_rng([seed, i]), len(self.labels) // 2)


@cache
def cifar_session() -> DebugSession:
    """Return the session over the development half of the shared features."""
    folder = SHARED / "cifar10"
    columns, first, _ = _cifar_columns()
    path = WORK / "cifar" / "features.safetensors"
    save_arrays(path, {k: v[first] for k, v in columns.items()},
                {"class_names": json.dumps(CIFAR_CLASSES)})  # fmt: skip
    return DebugSession.run(
        vlm=f"bridge:{HERE / 'cifar-bridge.yaml'}", concepts=HERE / "cifar.yaml",
        out=path.parent / "session", features=path, head=folder / "head.safetensors",
    )  # fmt: skip


def _cifar_columns() -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Return the shared features, and which rows are of either half."""
    folder = SHARED / "cifar10"
    stored, _ = load_arrays(folder / "features.safetensors")
    order = np.random.default_rng(HALVES).permutation(len(stored["label"]))
    first, second = np.sort(order[: len(order) // 2]), np.sort(order[len(order) // 2 :])
    head, _ = load_arrays(folder / "head.safetensors")
    z = stored["embedding"].astype(np.float32)
    # Logits follow from embeddings as stored: those of the file were taken before rounding.
    logits = z @ head["weight"].T + head["bias"]
    columns = {"embedding": z, "logits": logits, "label": stored["label"],
               "vlm_logits": stored["vlm_logits"]}  # fmt: skip
    return columns, first, second


@cache
def cifar() -> tuple[Pool, Pool] | None:
    """The development half and the scoring half; None without the shared features.

    The session, its map and its choice of valid concepts saw the development half alone.
    """
    if not (SHARED / "cifar10" / "features.safetensors").exists():
        return None
    columns, _, second = _cifar_columns()
    session = cifar_session()
    development, mapped = monitoring.analysed(session), monitoring.concept_map(session)
    z, logits, y = (columns[k][second] for k in ("embedding", "logits", "label"))
    return (
        Pool(development.features, development.labels),
        Pool(Features(z, logits, mapped(z)), y.astype(np.int64)),
    )


@cache
def photos() -> dict[str, Pool]:
    """Photographs of the test split through two classifiers; empty without them.

    One is sound and errs on few, one is a small net trained from scratch. Strengths are
    cross-fitted: each comes from a map that did not see its image.
    """
    if not (SHARED / "photos").exists():
        return {}
    import photos as bench

    source = open_images(bench.PHOTOS / "photos.csv")
    train = source.split("train")
    nets = {
        "lite1": bench.healthy(train),
        "small": (bench.train_small(train, len(train.class_names), 40), bench.SMALL),
    }
    found = {}
    for name, (net, preprocessing) in nets.items():
        about = ModelDescription(classes=source.class_names, preprocessing=preprocessing)
        folder = WORK / "photos" / name
        session = (
            DebugSession.open(folder)
            if (folder / "session.json").exists()
            else DebugSession.run(
                from_module(net, about, name=f"photos: {name}"),
                images=source,
                vlm=load_vlm("offline"),
                concepts=bench.CONCEPTS,
                out=folder,
                split="test",
            )
        )
        judged = monitoring.analysed(session)
        found[name] = Pool(judged.features, judged.labels)
    return found


def world(model: str, n_splits: int, n: int) -> Iterator[Split]:
    """Yield splits of drawn pictures: all of fresh seeds, n to fit on and n to judge on."""
    mapped = _world_map(model)
    for i in range(n_splits):
        a, b = (_drawn(model, WORLD_FIRST + 2 * i + j, n) for j in (0, 1))
        fit, test = (Features(z, o, mapped(z)) for z, o, _ in (a, b))
        yield Split(fit, a[2], test, b[2], i * n + np.arange(n))


@cache
def _world_map(model: str):
    folder = WORK / "world" / model
    if not (folder / "session.json").exists():
        session = DebugSession.run(
            f"onnx:{ASSETS / model}.onnx", images=_drawings(WORLD_MAP, 4000).source(), vlm="demo",
            concepts=ASSETS / "concepts.yaml", out=folder,
        )  # fmt: skip
    else:
        session = DebugSession.open(folder)
    return monitoring.concept_map(session)


def _drawn(model: str, seed: int, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Embeddings, logits and labels of a classifier on pictures of a seed."""
    path = WORK / "world" / f"{model}-{seed}-{n}.safetensors"
    if not path.exists():
        drawings = _drawings(seed, n)
        net, source = load_model(f"onnx:{ASSETS / model}.onnx"), drawings.source()
        parts = [
            net.encode(np.stack([net.prepare(source.load(i)) for i in rows]))
            for rows in np.array_split(np.arange(n), max(1, n // 64))
        ]
        columns = {k: np.concatenate([p[k] for p in parts]) for k in ("embedding", "logits")}
        save_arrays(path, {**columns, "label": drawings.labels})
    stored, _ = load_arrays(path)
    return stored["embedding"], stored["logits"], stored["label"]


@cache
def _drawings(seed: int, n: int) -> Drawings:
    return render_all(list(scenes(n, seed)))
