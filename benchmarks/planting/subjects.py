"""Subjects: a trained network with its fault in place, and what it shows on pictures it never saw.

What is trained into a network is in its weights already; every other fault is planted here: in the
head, in channels, in a stage, in the stated preprocessing, or in the pictures.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from faultlens.alignment import align
from faultlens.concepts import ConceptFile, Vocabulary
from faultlens.data.world.dataset import Drawings, render_all
from faultlens.data.world.names import CLASSES
from faultlens.data.world.scene import scenes
from faultlens.files import load_arrays, save_arrays
from faultlens.models.description import ModelDescription
from faultlens.models.pytorch import TorchClassifier, from_module
from faultlens.vlm.load import load_vlm
from planting import nets
from planting.instances import STAGES, Instance

CONCEPTS = Path(str(files("faultlens") / "assets" / "demo" / "concepts.yaml"))
#: Pictures that a subject is judged on, and their seeds: + index, development and scoring.
N_IMAGES = 2_000
EVALUATION_SEEDS = (1000, 50_000)
#: Pictures that faults are planted with: directions of concepts, means of embeddings.
N_PLANTING = 1_000
PLANTING_SEEDS = (4000, 54_000)
#: Share of the attacked class's pictures.
ATTACKED = 0.6


@cache
def vlm():
    """The demo's vision-language model."""
    return load_vlm("demo")


@cache
def vocabulary(path: Path = CONCEPTS) -> Vocabulary:
    """The demo's concepts."""
    return Vocabulary.build(ConceptFile.read(path), CLASSES, vlm().encode_text)


def seen(pixels: np.ndarray) -> np.ndarray:
    """VLM embeddings (N, E)."""
    prepared = (vlm().prepare(Image.fromarray(p)) for p in pixels)
    out = []
    for _ in range(0, len(pixels), 64):
        batch = [x for _, x in zip(range(64), prepared, strict=False)]
        out.append(vlm().encode(np.stack(batch))["embedding"])
    return np.concatenate(out)


def pictures(seed: int, n: int) -> tuple[Drawings, np.ndarray]:
    """Drawn pictures of a seed with their VLM embeddings, kept in the cache."""
    planned = list(scenes(n, seed))
    path = nets.WORK / "pictures" / f"{nets.key('pictures', seed, n)}.safetensors"
    if not path.exists():
        drawn = render_all(planned)
        save_arrays(
            path,
            {
                "pixels": drawn.pixels,
                "attributes": drawn.attributes.astype(np.uint8),
                "vlm": seen(drawn.pixels),
            },
        )
    a, _ = load_arrays(path)
    labels = np.array([CLASSES.index(s.label) for s in planned])
    return Drawings(a["pixels"], labels, a["attributes"].astype(bool), tuple(planned)), a["vlm"]


class Scaled(nn.Module):
    """Maps times a factor a channel."""

    def __init__(self, factor: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("factor", factor)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor[:, None, None]


@dataclass(frozen=True, eq=False)
class Subject:
    """A network with its fault.

    Attributes:
        net: The module.
        model: The same as the debugger takes it, with its stated preprocessing.
        pixels: What it is judged on.
        drawings: The pictures before anything was done to them.
        vlm: VLM embeddings of `pixels`.
    """

    net: nn.Module
    model: TorchClassifier
    pixels: np.ndarray
    drawings: Drawings
    vlm: np.ndarray

    def predict(self, pixels: np.ndarray) -> np.ndarray:
        """Class indices of other pictures."""
        return self.run(pixels)["logits"].argmax(axis=1)

    def run(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """Embeddings, logits and pooled activations of every stage."""
        found: dict[str, list[np.ndarray]] = {}
        hooks = [
            getattr(self.net, name).register_forward_hook(
                lambda module, x, y, name=name: found.setdefault(f"stage:{name}", []).append(
                    y.float().mean((2, 3)).detach().numpy()
                )
            )
            for name in STAGES
        ]
        for rows in np.array_split(np.arange(len(pixels)), max(1, len(pixels) // 100)):
            batch = np.stack([self.model.prepare(Image.fromarray(pixels[i])) for i in rows])
            for name, values in self.model.encode(batch).items():
                found.setdefault(name, []).append(values)
        for hook in hooks:
            hook.remove()
        return {name: np.concatenate(parts) for name, parts in found.items()}


def make(instance: Instance, healthy: bool = False, n: int = N_IMAGES, shift: int = 0) -> Subject:
    """Build a subject from the cache's network.

    Args:
        instance: What is planted.
        healthy: Its healthy twin instead: the same pictures and seed, nothing planted.
        n: Pictures.
        shift: Added to the pictures' seed, for other pictures of the same kind.
    """
    half, seed = instance.index % 2, instance.index
    fault = {} if healthy else instance.fault
    path = nets.net_path(fault, half, seed)
    stop = nets.EPOCHS - (fault.get("none") == "early stop")
    net = nets.load(path, stop)
    drawings, v = pictures(EVALUATION_SEEDS[half] + seed + shift, n)
    preprocessing, pixels = nets.PREPROCESSING, drawings.pixels
    _plant_weights(net, fault, half)
    if given := fault.get("input"):
        preprocessing, pixels = _planted_input(given, pixels)
    if given := fault.get("attack"):
        pixels = _attacked(net, given, drawings, instance.name)
    if pixels is not drawings.pixels:
        v = seen(pixels)
    about = ModelDescription(classes=CLASSES, preprocessing=preprocessing.model_dump())
    model = from_module(net, about, split_at="head", name=instance.name)
    return Subject(net, model, pixels, drawings, v)


def _plant_weights(net: nn.Module, fault: Mapping, half: int) -> None:
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        if given := fault.get("swap"):
            _swap(net, given)
        if given := fault.get("push"):
            _push(net, given, half)
        if given := fault.get("head"):
            _break_head(net.head, given, generator)
        if given := fault.get("channels"):
            _silence(net, given, half)
        if given := fault.get("stage"):
            _break_stage(getattr(net, given["stage"]), given["what"])


def _swap(net: nn.Module, given: Mapping) -> None:
    a, b = (CLASSES.index(k) for k in given["pair"])
    for tensor in (net.head.weight, net.head.bias):
        tensor[[a, b]] = tensor[[b, a]].clone()


def _silence(net: nn.Module, given: Mapping, half: int) -> None:
    """Scale the channels of a stage that carry a concept loudest."""
    z, directions = _directions(net, half, [given["concept"]], given["stage"])
    loudness = np.abs(directions[0]) * z.std(axis=0)
    factor = torch.ones(z.shape[1])
    factor[np.argsort(-loudness)[: given["n"]]] = given["factor"]
    setattr(net, given["stage"], nn.Sequential(getattr(net, given["stage"]), Scaled(factor)))


def _push(net: nn.Module, given: Mapping, half: int) -> None:
    """Add a concept direction to one row: `strength` usual margins at one standard deviation."""
    z, directions = _directions(net, half, [given["concept"]])
    reading = z @ directions[0]
    logits = net.head(torch.from_numpy(z)).sort(dim=1).values
    margin = float((logits[:, -1] - logits[:, -2]).median())
    row = torch.from_numpy(directions[0] / reading.std()).float() * margin * given["strength"]
    k = CLASSES.index(given["label"])
    net.head.weight[k] += row
    # Without this the row would mostly act as a bias.
    net.head.bias[k] -= float(row @ torch.from_numpy(z.mean(axis=0)))


def _break_head(head: nn.Linear, given: Mapping, generator: torch.Generator) -> None:
    if given["what"] == "noise":
        noise = torch.randn(head.weight.shape, generator=generator)
        head.weight += given["strength"] * head.weight.std() * noise
    elif given["what"] == "zero":
        k = CLASSES.index(given["label"])
        head.weight[k], head.bias[k] = 0, 0
    else:
        # Of epoch 0: after one epoch the head already fits the final embeddings.
        torch.manual_seed(13)
        head.load_state_dict(nets.fresh().head.state_dict())


def _break_stage(stage: nn.Module, what: str) -> None:
    torch.manual_seed(11)
    for module in stage.modules():
        if what == "weights" and isinstance(module, nn.Conv2d):
            module.reset_parameters()
        if what == "statistics" and isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()


def _directions(
    net: nn.Module, half: int, concepts: list[str], stage: str = "pool"
) -> tuple[np.ndarray, np.ndarray]:
    """Pooled activations of a stage, and the concepts' directions among them, by a map of them."""
    drawings, v = pictures(PLANTING_SEEDS[half], N_PLANTING)
    x = nets.inputs(nets.shrunk(drawings.pixels))
    with torch.inference_mode():
        for name in ("stem", *STAGES, "pool"):
            x = getattr(net, name)(x)
            if name == stage:
                break
    z = (x.mean((2, 3)) if x.ndim == 4 else x).numpy()
    fitted = align(z, v, np.arange(len(z)) % 5 == 0)
    words = vocabulary()
    q = words.directions[[words.concepts.index(c) for c in concepts]]
    return z, q @ fitted.weight


def _planted_input(given: Mapping, pixels: np.ndarray):
    p, strength = nets.PREPROCESSING, given["strength"]
    changed = {
        "bgr": {"channel_order": "bgr"},
        "unnormalised": {"mean": (0.0,) * 3, "std": (1.0,) * 3},
        "size": {"resize": (strength, strength)},
        "jpeg": {},
    }[given["what"]]
    if given["what"] == "jpeg":
        pixels = nets.compressed(pixels, strength)
    return p.model_copy(update=changed), pixels


class _FromPixels(nn.Module):
    """Pictures in [0, 1] to logits, close to what the preprocessing does, with gradients."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        side = (nets.SIDE, nets.SIDE)
        x = nn.functional.interpolate(x, side, mode="bilinear", antialias=True)
        return self.net((x - nets.MEAN) / nets.STD)


def _attacked(net: nn.Module, given: Mapping, drawings: Drawings, name: str) -> np.ndarray:
    """Pictures of which part of one class is attacked, towards another class where it can be."""
    path = nets.WORK / "attacked" / f"{nets.key('attack', name, dict(given))}.safetensors"
    if not path.exists():
        a, b = CLASSES.index(given["from"]), CLASSES.index(given["to"])
        rng = np.random.default_rng(5)
        rows = np.flatnonzero(
            (drawings.labels == a) & (rng.random(len(drawings.labels)) < ATTACKED)
        )
        x = torch.from_numpy(drawings.pixels[rows]).permute(0, 3, 1, 2).float() / 255
        found = run_attack(given["what"], _FromPixels(net).eval(), x, a, b)
        pixels = drawings.pixels.copy()
        pixels[rows] = (found.permute(0, 2, 3, 1) * 255).round().clamp(0, 255).byte().numpy()
        save_arrays(path, {"pixels": pixels})
    return load_arrays(path)[0]["pixels"]


#: Budgets that a person would hardly notice, or a patch of a twelfth of the picture.
BUDGETS = {
    "fgsm": ("fgsm", {"eps": 12 / 255}),
    "pgd": ("pgd", {"eps": 8 / 255, "steps": 20}),
    "cw": ("cw-l2", {"searches": 3, "steps": 40}),
    "deepfool": ("deepfool", {}),
    "square": ("square", {"eps": 16 / 255, "queries": 400}),
    "patch": ("patch", {}),
}


def run_attack(what: str, net: nn.Module, x: torch.Tensor, a: int, b: int) -> torch.Tensor:
    """Attack pictures of class a towards class b; DeepFool goes where it is nearest."""
    from faultlens.models.attacks.registry import ATTACKS

    name, parameters = BUDGETS[what]
    generator = torch.Generator().manual_seed(3)
    y = torch.full((len(x),), a)
    targets = None if what == "deepfool" else torch.full((len(x),), b)
    return ATTACKS[name](**parameters)(net, x, y, generator=generator, targets=targets)
