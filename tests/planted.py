"""A tiny world with exact truth: every picture shows each concept as the grey of one cell.

The classifier and the vision-language model read those cells, so that every fault can be planted
and every answer is known. Nothing here is a network.
"""

import hashlib
from dataclasses import dataclass, field

import numpy as np

from faultlens.data.images import ImageSource
from faultlens.data.preprocess import Preprocessing
from faultlens.models.head import Head

CONCEPTS = ("wheels", "wings", "sails", "fur", "beak", "water", "sky", "road")
CLASSES = ("bird", "car", "cat", "plane", "ship")
RELEVANT = {
    "bird": ("wings", "beak", "sky"),
    "car": ("wheels", "road"),
    "cat": ("fur",),
    "plane": ("wings", "sky", "wheels"),
    "ship": ("sails", "water"),
}
CELL = 4
PLAIN = Preprocessing(resize=None, mean=(0.0,) * 3, std=(1.0,) * 3)


def truth() -> np.ndarray:
    """(K, C) which concepts each class has."""
    return np.array([[c in RELEVANT[k] for c in CONCEPTS] for k in CLASSES], float)


def concepts_yaml() -> dict:
    return {
        "concepts": list(CONCEPTS),
        "classes": {k: {"relevant": list(v)} for k, v in RELEVANT.items()},
    }


def draw(n: int, seed: int = 0, noise: float = 0.12) -> tuple[np.ndarray, np.ndarray]:
    """Return n pictures (n, 4, 32) uint8 and their labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(CLASSES), n)
    level = 0.3 + 0.4 * truth()[labels] + rng.normal(0, noise, (n, len(CONCEPTS)))
    cells = (np.clip(level, 0, 1) * 255).astype(np.uint8)
    return np.repeat(np.repeat(cells, CELL, axis=1)[:, None], CELL, axis=1), labels


def source(n: int = 400, seed: int = 0, **columns) -> ImageSource:
    pixels, labels = draw(n, seed)
    return ImageSource.from_arrays(pixels, labels, CLASSES, **columns)


def cells_of(batch: np.ndarray) -> np.ndarray:
    """(N, C) the grey of each cell, from prepared pictures (N, 3, 4, 32)."""
    return batch[:, 0].mean(axis=1).reshape(len(batch), len(CONCEPTS), CELL).mean(axis=2)


def basis() -> np.ndarray:
    """(C, E) orthonormal directions of the concepts in the VLM's space."""
    q, _ = np.linalg.qr(np.random.default_rng(42).normal(size=(64, len(CONCEPTS))))
    return q.T


@dataclass
class CellVlm:
    """Knows the concepts and classes by name, and sees cells."""

    name: str = "cells"
    content_hash: str = "cells-1"
    dimension: int = 64
    tensor_hashes: frozenset = frozenset()
    blind: bool = False

    def prepare(self, image):
        return PLAIN(image)

    def encode(self, batch):
        x = cells_of(batch) - 0.5
        if self.blind:
            x = np.random.default_rng(0).normal(size=x.shape)
        return {"embedding": (x @ basis()).astype(np.float32)}

    def encode_text(self, texts):
        rows = []
        for text in texts:
            words = text.replace("_", " ").split()
            known = [basis()[CONCEPTS.index(w)] for w in words if w in CONCEPTS]
            kinds = [truth()[CLASSES.index(w)] - 0.4 for w in words if w in CLASSES]
            digest = hashlib.sha256(text.encode()).digest()
            drift = np.random.default_rng(list(digest[:8])).normal(size=64) * 0.01
            rows.append(sum(known, np.zeros(64)) + sum((k @ basis() for k in kinds), drift))
        return np.stack(rows).astype(np.float32)


@dataclass
class CellClassifier:
    """A linear encoder over the cells with a head; faults are planted by changing either.

    Attributes:
        mix: (D, C) encoder matrix.
        head: Over the embedding.
    """

    mix: np.ndarray
    head: Head
    name: str = "cells"
    class_names: tuple = CLASSES
    preprocessing: Preprocessing = PLAIN
    tensor_hashes: frozenset = frozenset({"mix"})
    n_encoded: list = field(default_factory=list)

    @property
    def dimension(self):
        return len(self.mix)

    @property
    def content_hash(self):
        digest = hashlib.sha256(self.mix.tobytes() + self.head.content_hash.encode())
        return digest.hexdigest()

    def prepare(self, image):
        return PLAIN(image)

    def encode(self, batch):
        self.n_encoded.append(len(batch))
        z = ((cells_of(batch) - 0.5) @ self.mix.T).astype(np.float32)
        return {"embedding": z, "logits": self.head(z)}


def healthy(seed: int = 1) -> CellClassifier:
    """A classifier whose head is the least-squares fit on fresh pictures."""
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(12, len(CONCEPTS)))
    pixels, labels = draw(4000, seed=99)
    x = pixels.reshape(len(pixels), CELL, len(CONCEPTS), CELL).mean(axis=(1, 3)) / 255 - 0.5
    z = x @ mix.T
    design = np.c_[z, np.ones(len(z))]
    w = np.linalg.lstsq(design, np.eye(len(CLASSES))[labels] * 8, rcond=None)[0].T
    return CellClassifier(
        mix, Head((w[:, :-1].astype(np.float32),), (w[:, -1].astype(np.float32),))
    )


def swapped_head(a: str = "ship", b: str = "plane") -> CellClassifier:
    """Two rows of the head exchanged."""
    model = healthy()
    rows = np.arange(len(CLASSES))
    i, j = CLASSES.index(a), CLASSES.index(b)
    rows[[i, j]] = rows[[j, i]]
    head = Head((model.head.weight[rows],), (model.head.bias[rows],))
    return CellClassifier(model.mix, head, name="swapped")


def blind_encoder(*lost: str) -> CellClassifier:
    """An encoder that does not see some concepts."""
    model = healthy()
    mix = model.mix.copy()
    mix[:, [CONCEPTS.index(c) for c in lost]] = 0
    return CellClassifier(mix, model.head, name="blind")


def load(argument: str = "") -> CellVlm:
    """What the registry calls in the command-line tests."""
    return CellVlm(blind=argument == "blind")


def save_onnx(model: CellClassifier, path, described: bool = True) -> None:
    """Write the classifier as an ONNX file, by hand."""
    import json

    import onnx
    from onnx import TensorProto, helper, numpy_helper

    fold = np.zeros((len(CONCEPTS) * CELL, len(CONCEPTS)))
    for c in range(len(CONCEPTS)):
        fold[c * CELL : (c + 1) * CELL, c] = 1 / CELL
    mix = (fold @ model.mix.T).astype(np.float32)
    shift = (-0.5 * model.mix.sum(axis=1)).astype(np.float32)
    arrays = {
        "axes": np.array([2], np.int64),
        "channel": np.array(0, np.int64),
        "mix": mix,
        "shift": shift,
        "weight": model.head.weight,
        "bias": model.head.bias,
    }
    nodes = [
        helper.make_node("ReduceMean", ["image", "axes"], ["rows"], keepdims=0),
        helper.make_node("Gather", ["rows", "channel"], ["grey"], axis=1),
        helper.make_node("MatMul", ["grey", "mix"], ["mixed"]),
        helper.make_node("Add", ["mixed", "shift"], ["embedding"]),
        helper.make_node("Gemm", ["embedding", "weight", "bias"], ["logits"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "cells",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 4, 32])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", len(CLASSES)])],
        [numpy_helper.from_array(a, name) for name, a in arrays.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    proto.ir_version = 8
    if described:
        helper.set_model_props(
            proto,
            {
                "faultlens.classes": json.dumps(CLASSES),
                "faultlens.preprocessing": PLAIN.model_dump_json(),
            },
        )
    onnx.save(proto, str(path))


def save_folder(root, n: int = 300, seed: int = 0, split: str = "test") -> None:
    """Write pictures as `root/<split>/<class>/<i>.png`."""
    from PIL import Image

    pixels, labels = draw(n, seed)
    for i, (picture, label) in enumerate(zip(pixels, labels, strict=True)):
        folder = root / split / CLASSES[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / f"{i:04d}.png")
