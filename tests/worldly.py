"""Stand-ins for what the demo ships: a small classifier of drawn pictures, and a VLM that knows."""

import re
from dataclasses import dataclass, field

import numpy as np

from faultlens.data.preprocess import Preprocessing
from faultlens.data.world import captions
from faultlens.data.world.dataset import render_all
from faultlens.data.world.names import CLASSES
from faultlens.data.world.scene import scenes

N, SEED = 160, 5
PLAIN = Preprocessing(resize=None, mean=(0.0,) * 3, std=(1.0,) * 3)


def _coarse(pixels):
    """(N, 8, 8, 3) means of blocks."""
    return pixels.reshape(-1, 8, 8, 8, 8, 3).mean(axis=(2, 4))


@dataclass
class KnowingVlm:
    """Looks the facts of a picture up; understands the words of captions."""

    name: str = "demo"
    content_hash: str = "knowing-1"
    dimension: int = len(captions.FACTS)
    tensor_hashes: frozenset = frozenset()
    known: dict = field(default_factory=dict)
    coarse: np.ndarray = field(init=False)

    def __post_init__(self):
        drawings = render_all(list(scenes(N, SEED)))
        for pixels, seen, scene in zip(
            drawings.pixels, drawings.attributes, drawings.scenes, strict=True
        ):
            self.known[pixels.tobytes()] = vector(captions.facts_of(scene, seen))
        self.coarse = _coarse(drawings.pixels)

    def prepare(self, image):
        return PLAIN(image)

    def encode(self, batch):
        pictures = np.rint(batch * 255).astype(np.uint8).transpose(0, 2, 3, 1)
        return {"embedding": np.stack([self._looked_up(p) for p in pictures])}

    def _looked_up(self, picture):
        """A picture that was changed a little is taken for the known one nearest to it."""
        if picture.tobytes() in self.known:
            return self.known[picture.tobytes()]
        distance = np.abs(self.coarse - _coarse(picture[None])).sum(axis=(1, 2, 3))
        return list(self.known.values())[int(distance.argmin())]

    def encode_text(self, texts):
        return np.stack([vector(facts_in(text)) for text in texts])


def facts_in(text):
    """What a prompt states: the longest phrases first."""
    found = set()
    phrases = [(w, f) for f, words in captions.WORDS.items() for w in words]
    for phrase, fact in sorted(phrases, key=lambda pair: -len(pair[0])):
        text, n = re.subn(rf"\b{phrase}\b", "", text)
        found |= {fact} if n else set()
    return found


def vector(facts):
    return np.array([f in facts for f in captions.FACTS], np.float32) - 0.1


def load(argument=""):
    """What the registry calls."""
    return KnowingVlm()


def save_assets(folder, names=("healthy", "faulty")):
    """Write a linear classifier of coarse pixels under each name; `faulty` mixes its head."""
    import json

    import onnx
    from onnx import TensorProto, helper, numpy_helper

    drawings = render_all(list(scenes(N, SEED)))
    coarse = drawings.pixels.reshape(N, 16, 4, 16, 4, 3).mean(axis=(2, 4)) / 255
    x = coarse.transpose(0, 3, 1, 2).reshape(N, -1)
    center = x.mean(axis=0)
    mix = np.linalg.svd(x - center, full_matrices=False)[2][:24].T
    design = np.c_[(x - center) @ mix, np.ones(N)]
    w = np.linalg.lstsq(design, np.eye(len(CLASSES))[drawings.labels] * 8, rcond=None)[0].T
    for name in names:
        rows = np.roll(np.arange(len(CLASSES)), 1 if name == "faulty" else 0)
        arrays = {
            "mix": mix, "shift": -center @ mix, "weight": w[rows, :-1], "bias": w[rows, -1],
        }  # fmt: skip
        nodes = [
            helper.make_node(
                "AveragePool", ["image"], ["coarse"], kernel_shape=[4, 4], strides=[4, 4]
            ),
            helper.make_node("Flatten", ["coarse"], ["flat"]),
            helper.make_node("MatMul", ["flat", "mix"], ["mixed"]),
            helper.make_node("Add", ["mixed", "shift"], ["embedding"]),
            helper.make_node("Gemm", ["embedding", "weight", "bias"], ["logits"], transB=1),
        ]
        graph = helper.make_graph(
            nodes,
            name,
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 64, 64])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", len(CLASSES)])],
            [numpy_helper.from_array(a.astype(np.float32), k) for k, a in arrays.items()],
        )
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
        proto.ir_version = 8
        helper.set_model_props(
            proto,
            {
                "faultlens.classes": json.dumps(CLASSES),
                "faultlens.preprocessing": PLAIN.model_dump_json(),
            },
        )
        onnx.save(proto, str(folder / f"{name}.onnx"))
