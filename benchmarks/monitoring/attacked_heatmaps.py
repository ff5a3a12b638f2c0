"""The paper's detector against attacks: heatmaps of strengths, also fitted on attacked images.

    python benchmarks/monitoring/attacked_heatmaps.py --half development

Strengths come from the map of the session over the shared features of the same network. The heatmap
of attacks is learned from one attack on the development half, whichever half is judged; the other
attacks are unseen by it.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from faultlens import monitoring
from faultlens.monitor.detector import load_detector
from faultlens.monitor.features import ATTACKED, Features
from monitoring.adversarial import Fit, Score, detector, load_sets, run, show
from monitoring.cifar_net import PixelNet, features_of
from monitoring.data import cifar_session

#: The attack that the heatmap of attacks has seen.
SEEN = "pgd-2"


def with_strengths(net: PixelNet, images: torch.Tensor) -> Features:
    """Return light features with strengths; for `load_sets(featurize=…)`."""
    found = features_of(net, images)
    mapped = monitoring.concept_map(cifar_session())
    return Features(found.embeddings, found.logits, mapped(found.embeddings))


def taught(attacked: Features) -> Fit:
    """Return a fit of the heatmap of attacks, given images of one attack."""

    def fit(features: Features, labels: np.ndarray) -> Score:
        parts = (features, attacked)
        both = Features(
            *(np.concatenate([getattr(f, kind) for f in parts])
              for kind in ("embeddings", "logits", "strengths")),
            {ATTACKED: np.repeat([0.0, 1.0], [len(f) for f in parts])[:, None]},
        )  # fmt: skip
        truth = np.concatenate([labels, attacked.predictions])  # not read of attacked images
        return load_detector("heatmap-attacked").fit(both, truth).score

    return fit


def judge(half: str, n_splits: int = 5) -> dict:
    """Return the table of `monitoring.adversarial.run`.

    Args:
        half: `development` or `scoring`.
        n_splits: Of the benign images.
    """
    sets = load_sets(half, featurize=with_strengths)
    seen = load_sets("development", (SEEN,), with_strengths).attacked[SEEN]
    fits = {name: detector(name) for name in ("heatmap", "heatmap-distance", "heatmap-bayes")}
    return run({**fits, f"heatmap-attacked ({SEEN})": taught(seen)}, sets, n_splits)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--half", choices=("development", "scoring"), default="development")
    show(judge(parser.parse_args().half))


if __name__ == "__main__":
    main()
