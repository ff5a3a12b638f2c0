"""The full mode on the CIFAR ResNet-20: features as the product takes them, of pixels as they are.

    python benchmarks/monitoring/full.py --half development

The network is loaded by its SPEC, watched at six of its blocks, and run on two changed versions of
each picture. There is no vision-language model here: the shared one is features only.
"""

import argparse
import json
import sys
from functools import cache
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from faultlens.inner_features import inner_features
from faultlens.models.classifier import Classifier
from faultlens.models.load import load_model
from faultlens.monitor.features import Features
from monitoring.adversarial import GOAL_ATTACKS, Watched, adaptive, detector, load_sets, run
from monitoring.attacked import WORK
from monitoring.cifar_net import CIFAR, CLASSES, MEAN, STD, PixelNet
from monitoring.twin_full import FullTwin

#: What is shown beside the combination: its parts, and peers of the literature.
FULL = ("fused-full", "squeezed-margin", "squeezed-joint", "layers", "feature-squeezing")
_BATCH = 250


@cache
def classifier() -> Classifier:
    """Return the network as the product loads it."""
    description = WORK / "resnet20.yaml"
    description.parent.mkdir(parents=True, exist_ok=True)
    description.write_text(
        f"classes: [{', '.join(CLASSES)}]\n"
        f"preprocessing: {{resize: null, mean: {list(MEAN)}, std: {list(STD)}}}\n"
    )
    return load_model(
        "torch:monitoring.cifar_net:ResNet20",
        weights=CIFAR / "resnet20.safetensors",
        preprocess=description,
    )


def full_features(_: PixelNet, images: torch.Tensor) -> Features:
    """Return what a monitor in full mode reads; for `load_sets(featurize=…)`.

    Args:
        _: Not used: the product loads the same network by its SPEC.
        images: (N, 3, 32, 32) in [0, 1].
    """
    mean, std = (np.array(x, np.float32)[:, None, None] for x in (MEAN, STD))
    batches = ((batch.numpy() - mean) / std for batch in images.split(_BATCH))
    return inner_features(classifier(), batches)


#: The monitor for an attacker who knows it.
WATCHED = Watched("fused-full", full_features, FullTwin)


def main() -> None:
    """Print a table of one half."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--half", choices=("development", "scoring"), default="development")
    parser.add_argument("--attacks", nargs="+", default=list(GOAL_ATTACKS))
    parser.add_argument("--adaptive", type=int, default=0, help="images to attack knowing it")
    args = parser.parse_args()
    sets = load_sets(args.half, args.attacks, full_features)
    found = run({name: detector(name) for name in FULL}, sets)
    print(
        f"{'':<20}{'mean':>7}{'worst':>7}{'at 5 %':>8}" + "".join(f"{a:>11}" for a in args.attacks)
    )
    for name, row in found.items():
        areas = "".join(f"{row['auroc'][a]:>11.3f}" for a in args.attacks)
        print(
            f"{name:<20}{row['mean']:>7.3f}{row['worst']:>7.3f}{row['mean_detected']:>8.2f}{areas}"
        )
    if args.adaptive:
        print(json.dumps(adaptive(sets, args.adaptive, WATCHED), indent=2))


if __name__ == "__main__":
    main()
