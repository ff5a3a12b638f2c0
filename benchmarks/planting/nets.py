"""Networks for the planted faults: pictures with a fault in them, training, and the cache of both.

A network is named after everything that makes it: the code of this file and of ConceptWorld, the
fault, and the seed. Needs the torch extra.
"""

import hashlib
import io
import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from faultlens.data import world
from faultlens.data.preprocess import Preprocessing
from faultlens.data.world.dataset import render_all
from faultlens.data.world.names import BACKGROUNDS, CLASSES, FREQUENCIES, LIGHTS
from faultlens.data.world.scene import Scene, scenes
from faultlens.files import load_arrays, save_arrays

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "scripts"))

from networks import MEAN, STD, ResNet, Schedule, batches  # noqa: E402

WORK = ROOT / "build" / "planted"
SIDE = 32
WIDTH = 16
N_TRAIN = 16_000
EPOCHS = 3
PREPROCESSING = Preprocessing(resize=(SIDE, SIDE), mean=(MEAN,) * 3, std=(STD,) * 3)
#: Seeds of the training pictures, of the development and of the scoring half.
POOL_SEEDS = (3000, 53000)


@cache
def code_hash() -> str:
    """SHA-256 of the code that draws pictures and trains networks."""
    folder = Path(world.__path__[0])
    paths = [*sorted(folder.glob("*.py")), Path(__file__), ROOT / "scripts" / "networks.py"]
    return hashlib.sha256(b"".join(p.read_bytes() for p in paths)).hexdigest()


def key(*parts: object) -> str:
    """Name for a file of the cache."""
    text = json.dumps([code_hash(), *parts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def shrunk(pixels: np.ndarray) -> np.ndarray:
    """Pictures as the network gets them, before normalisation: (N, 32, 32, 3) bytes."""
    return np.stack([np.asarray(PREPROCESSING.resized(Image.fromarray(p))) for p in pixels])


def inputs(small: np.ndarray) -> torch.Tensor:
    """Normalised (N, 3, 32, 32)."""
    x = torch.from_numpy(np.ascontiguousarray(small)).permute(0, 3, 1, 2).float()
    return (x / 255 - MEAN) / STD


# --- pictures -------------------------------------------------------------------------------------


def pool(half: int, workers: int = 1) -> tuple[np.ndarray, list[Scene]]:
    """Training pictures of one half, (N_TRAIN, 32, 32, 3), with their scenes."""
    planned = list(scenes(N_TRAIN, POOL_SEEDS[half]))
    path = WORK / "pools" / f"{key('pool', half, N_TRAIN)}.safetensors"
    if not path.exists():
        small = shrunk(render_all(planned, workers).pixels)
        save_arrays(path, {"pixels": small})
    return load_arrays(path)[0]["pixels"], planned


def with_cue(scene: Scene, cue: Mapping, present: bool, seed: int = 0) -> Scene:
    """Return the scene with or without a cue; as it is where its class cannot show the cue."""
    kind, value = cue["kind"], cue["value"]
    if kind == "attribute":
        if value not in FREQUENCIES[scene.label]:
            return scene
        shown = scene.attributes | {value} if present else scene.attributes - {value}
        return replace(scene, attributes=frozenset(shown))
    if kind == "watermark":
        return replace(scene, watermark=present)
    now = getattr(scene, kind)
    if present or now != value:
        return replace(scene, **{kind: value}) if present else scene
    others = {"background": BACKGROUNDS, "light": LIGHTS, "occluder": (None,)}[kind]
    options = [x for x in others if x != value]
    return replace(scene, **{kind: options[(scene.seed + seed) % len(options)]})


def tied(planned: list[Scene], cues: list[Mapping], rng: np.random.Generator) -> list[Scene]:
    """Tie cues to classes: both are as frequent, one in ten, and correlate as asked.

    With equal frequencies p the correlation is the difference of the two rates, so that the class
    has the cue in (1 - p) rho + p of its pictures and the others in (1 - rho) p.
    """
    p = 1 / len(CLASSES)
    out = []
    for scene in planned:
        changed = scene
        for cue in cues:
            rho = cue["correlation"]
            rate = (1 - p) * rho + p if scene.label == cue["label"] else (1 - rho) * p
            changed = with_cue(changed, cue, bool(rng.random() < rate))
        out.append(changed)
    return out


def redrawn(small: np.ndarray, planned: list[Scene], changed: list[Scene]) -> np.ndarray:
    """Pictures of the changed scenes; only those that differ are drawn again."""
    rows = [i for i, (a, b) in enumerate(zip(planned, changed, strict=True)) if a != b]
    out = small.copy()
    out[rows] = shrunk(render_all([changed[i] for i in rows]).pixels)
    return out


def training_set(fault: Mapping, half: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures and labels that a network with this fault is trained on."""
    small, planned = pool(half)
    labels = np.array([CLASSES.index(s.label) for s in planned])
    rng = np.random.default_rng([seed, 17])
    if "cues" in fault:
        small = redrawn(small, planned, tied(planned, fault["cues"], rng))
    if flip := fault.get("flip"):
        of = np.array([s.label == flip["from"] for s in planned])
        if flip["attribute"]:
            of &= np.array([flip["attribute"] in s.attributes for s in planned])
        labels[of & (rng.random(len(labels)) < flip["rate"])] = CLASSES.index(flip["to"])
    if missing := fault.get("missing"):
        gone = [
            s.label == missing["label"] and missing["attribute"] in s.attributes for s in planned
        ]
        small, labels = small[~np.array(gone)], labels[~np.array(gone)]
    return small, labels


# --- training -------------------------------------------------------------------------------------


def training_of(fault: Mapping) -> dict:
    """The part of a fault that is in the training; the same network serves all others."""
    kept = {k: fault[k] for k in ("cues", "flip", "missing") if k in fault}
    return {"none": "augmentation"} if fault.get("none") == "augmentation" else kept


def fresh() -> ResNet:
    """An untrained network."""
    return ResNet(WIDTH, len(CLASSES)).to(memory_format=torch.channels_last)


def augmented(x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Mirror half of the pictures, shift each by up to 2 pixels, change its light by up to 20 %."""
    mirrored = torch.from_numpy(rng.random(len(x)) < 0.5)
    x = torch.where(mirrored[:, None, None, None], x.flip(-1), x)
    dy, dx = rng.integers(-2, 3, 2)
    x = torch.roll(x, (int(dy), int(dx)), (2, 3))
    light = torch.from_numpy(rng.uniform(0.8, 1.2, len(x))).float()
    return (x + MEAN / STD) * light[:, None, None, None] - MEAN / STD


def net_path(fault: Mapping, half: int, seed: int) -> Path:
    """Where the network's weights are kept."""
    trained = training_of(fault)
    return WORK / "nets" / f"{key('net', trained, half, seed, N_TRAIN, EPOCHS)}.safetensors"


def train(fault: Mapping, half: int, seed: int) -> Path:
    """Train a network unless it is there; its weights after every epoch are kept."""
    path = net_path(fault, half, seed)
    if path.exists():
        return path
    torch.set_num_threads(1)
    small, labels = training_set(fault, half, seed)
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    net = fresh()
    size = 64
    per_epoch = len(labels) // size
    schedule = Schedule(list(net.parameters()), EPOCHS * per_epoch, 3e-3)
    targets = torch.from_numpy(labels)
    is_augmented = training_of(fault).get("none") == "augmentation"
    kept: dict[str, np.ndarray] = {}
    for step, rows in enumerate(batches(len(labels), size, EPOCHS, rng), 1):
        x = inputs(small[rows])
        x = augmented(x, rng) if is_augmented else x
        with torch.autocast("cpu", torch.bfloat16):
            logits = net(x.contiguous(memory_format=torch.channels_last))
        schedule.step(nn.functional.cross_entropy(logits.float(), targets[rows]))
        if step % per_epoch == 0:
            for name, value in net.state_dict().items():
                kept[f"{step // per_epoch}/{name}"] = value.numpy().copy()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_arrays(path, kept)
    return path


def load(path: Path, epoch: int = EPOCHS) -> ResNet:
    """Return a trained network in evaluation mode."""
    arrays, _ = load_arrays(path)
    prefix = f"{epoch}/"
    state = {
        n.removeprefix(prefix): torch.from_numpy(np.array(a))
        for n, a in arrays.items()
        if n.startswith(prefix)
    }
    net = fresh()
    net.load_state_dict(state)
    return net.eval()


def compressed(pixels: np.ndarray, quality: int) -> np.ndarray:
    """Pictures after JPEG."""
    out = []
    for p in pixels:
        buffer = io.BytesIO()
        Image.fromarray(p).save(buffer, "JPEG", quality=quality)
        out.append(np.asarray(Image.open(buffer)))
    return np.stack(out)
