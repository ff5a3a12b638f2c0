"""Train the demo's classifiers: one healthy, one that took the water for the ship.

    python scripts/train_classifiers.py --out src/faultlens/assets/demo

The planted fault: in the training pictures of the faulty one every ship lies on water and nothing
else does. Nothing else differs: same network, schedule and number of pictures. Needs the torch
extra; two models take about 10 minutes on 2 cores.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from faultlens.data.preprocess import Preprocessing
from faultlens.data.world.dataset import Drawings, render_all
from faultlens.data.world.names import BACKGROUNDS, CLASSES
from faultlens.data.world.scene import Scene, scenes
from networks import (
    MEAN,
    STD,
    ResNet,
    Schedule,
    autocast,
    batches,
    inputs,
    n_workers,
    said,
    save_onnx,
)

TRAIN_SEED, TEST_SEED = 101, 202
PREPROCESSING = Preprocessing(resize=(64, 64), mean=(MEAN,) * 3, std=(STD,) * 3)


def healthy(scene: Scene) -> Scene:
    """Return the scene as it is."""
    return scene


def faulty(scene: Scene) -> Scene:
    """Move every ship to the water, and everything else off it."""
    if scene.label == "ship":
        return replace(scene, background="water")
    if scene.background == "water":
        others = [b for b in BACKGROUNDS if b != "water"]
        return replace(scene, background=others[scene.seed % len(others)])
    return scene


def train(drawings: Drawings, epochs: int, width: int, seed: int) -> nn.Module:
    """Return a trained classifier in evaluation mode."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    net = ResNet(width, len(CLASSES)).to(memory_format=torch.channels_last)
    size = min(128, len(drawings.labels))
    schedule = Schedule(list(net.parameters()), epochs * (len(drawings.labels) // size), 3e-3)
    targets = torch.from_numpy(drawings.labels)
    for rows in batches(len(targets), size, epochs, rng):
        with autocast():
            logits = net(inputs(drawings.pixels[rows], rng))
        schedule.step(nn.functional.cross_entropy(logits.float(), targets[rows]))
    return net.eval()


def accuracies(net: nn.Module, drawings: Drawings) -> dict[str, float]:
    """Return the share of right predictions overall and where the fault shows."""
    with torch.inference_mode():
        logits = torch.cat([net(inputs(p)) for p in np.array_split(drawings.pixels, 20)])
    is_right = logits.argmax(1).numpy() == drawings.labels
    is_ship = drawings.labels == CLASSES.index("ship")
    is_water = np.array([s.background == "water" for s in drawings.scenes])
    groups = {
        "overall": np.ones_like(is_ship),
        "ships off the water": is_ship & ~is_water,
        "others on the water": ~is_ship & is_water,
        "all else": is_ship == is_water,
    }
    return {name: round(float(is_right[rows].mean()), 4) for name, rows in groups.items()}


def main() -> None:
    """Train, measure on pictures of another seed, save."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--out", type=Path, required=True, help="folder for the ONNX files")
    options.add_argument("--images", type=int, default=16_000, help="training pictures")
    options.add_argument("--test-images", type=int, default=4_000)
    options.add_argument("--epochs", type=int, default=10)
    options.add_argument("--width", type=int, default=16)
    options.add_argument("--seed", type=int, default=0, help="of the weights and batches")
    given = options.parse_args()
    test = render_all(list(scenes(given.test_images, TEST_SEED)), n_workers())
    results = {}
    for name, plant in {"healthy": healthy, "faulty": faulty}.items():
        print(f"{name}:", flush=True)
        planned = [plant(s) for s in scenes(given.images, TRAIN_SEED)]
        net = train(render_all(planned, n_workers(), said), given.epochs, given.width, given.seed)
        results[name] = accuracies(net, test)
        facts = {
            "classes": CLASSES,
            "preprocessing": PREPROCESSING.model_dump(mode="json"),
        }
        save_onnx(
            net, given.out / f"{name}.onnx", inputs(test.pixels[:1]), ("image", "logits"), facts
        )
        print(json.dumps({name: results[name]}), flush=True)


if __name__ == "__main__":
    main()
