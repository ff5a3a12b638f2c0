"""How well detectors that saw benign images only tell adversarial ones, and what an attacker who
knows the detector can do about it.

    PYTHONPATH=benchmarks python -m monitoring.adversarial --half development

Every attack is unseen: detectors are fitted on benign images with their true labels, and the
threshold comes from further benign images (split-conformal). Negatives are images that the network
classifies rightly when clean, positives are images that an attack turned. The choice of negatives
matters: with misclassified benign images among them, a detector that looks at the margin scores a
few points lower.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from faultlens.models.attacks.adaptive import AdaptivePGD
from faultlens.models.attacks.pgd import PGD
from faultlens.monitor.conformal import Calibration
from faultlens.monitor.detector import load_detector
from faultlens.monitor.features import Features
from faultlens.stats import auroc
from monitoring.attacked import attacked, split_rows
from monitoring.cifar_net import PixelNet, features_of, load_net, load_pictures, predict
from monitoring.twin import LightTwin

Score = Callable[[Features], np.ndarray]
#: Takes benign features with true labels, returns scores: (N,), higher = more abnormal.
Fit = Callable[[Features, np.ndarray], Score]
Featurize = Callable[[PixelNet, torch.Tensor], Features]

#: The attacks of the goals; `patch` has a set as well and is reported apart.
GOAL_ATTACKS = (
    "fgsm-8", "pgd-2", "pgd-8", "apgd-8", "cw", "deepfool", "square-8", "spatial",
)  # fmt: skip
N_FIT, N_CALIBRATION = 1500, 1000  # of the 3,000 benign images; the rest are negatives
ALPHA = 0.05


class Split(NamedTuple):
    """Indices into `load_pictures()`; the last two hold rightly classified images only.

    Attributes:
        fit: To fit on, with true labels.
        calibration: For the threshold.
        negatives: Benign images to judge on: benign ones left over and the attacked half, clean.
    """

    fit: np.ndarray
    calibration: np.ndarray
    negatives: np.ndarray


class Sets(NamedTuple):
    """Features of everything a split needs.

    Attributes:
        clean: Of all 4,000 images.
        labels: (4000,) truth.
        attacked: Name of an attack -> features of the images of one half that it turned.
        half: (500,) indices of that half's clean images.
    """

    clean: Features
    labels: np.ndarray
    attacked: Mapping[str, Features]
    half: np.ndarray


def detector(name: str, **options: Any) -> Fit:
    """Return a fit of one of the package's detectors."""
    return lambda features, labels: load_detector(name, **options).fit(features, labels).score


def load_sets(
    half: str = "scoring",
    attacks: Sequence[str] = GOAL_ATTACKS,
    featurize: Featurize = features_of,
) -> Sets:
    """Compute the features of clean and attacked images.

    Args:
        half: `scoring`, or `development` for everything that is tuned.
        attacks: Names of sets, see `monitoring.attacked.ATTACKS`.
        featurize: Runs the network; replace it for statistics that need more passes.
    """
    net, pictures = load_net(), load_pictures()
    rows = getattr(split_rows(), half)
    found = {name: featurize(net, attacked(name).only(rows).images) for name in attacks}
    return Sets(featurize(net, pictures.images), pictures.labels.numpy(), found, rows)


def split(sets: Sets, seed: int, with_errors: bool = False) -> Split:
    """Return one random split of the benign images.

    Args:
        sets: From `load_sets`.
        seed: Of the split.
        with_errors: Whether the negatives are all benign images left over, misclassified ones too,
            instead of rightly classified ones and the clean versions of the attacked.
    """
    right = sets.clean.predictions == sets.labels
    order = np.random.default_rng(seed).permutation(split_rows().benign)
    fit, rest = order[:N_FIT], order[N_FIT:]
    calibration, left = rest[:N_CALIBRATION], rest[N_CALIBRATION:]
    negatives = left if with_errors else np.concatenate([left[right[left]], sets.half])
    return Split(fit, calibration[right[calibration]], negatives)


def run(
    fits: Mapping[str, Fit],
    sets: Sets,
    n_splits: int = 5,
    alpha: float = ALPHA,
    with_errors: bool = False,
) -> dict[str, Any]:
    """Judge detectors on every attack.

    Args:
        fits: Name -> fit; see `detector` for those of the package.
        sets: From `load_sets`.
        n_splits: Random splits of the benign images; figures are means over them.
        alpha: Requested false-alarm rate.
        with_errors: See `split`.

    Returns:
        Name of a fit -> `auroc` and `detected` (each: attack -> value), `mean` and `worst` (AUROC
        over attacks), `mean_detected`, `worst_detected`, `false_alarms`, and `sd` (of `mean`,
        `worst`, `mean_detected`, `false_alarms` over splits).
    """
    rows = [split(sets, seed, with_errors) for seed in range(n_splits)]
    return {
        name: _summary([_judge(fit, sets, one, alpha) for one in rows])
        for name, fit in fits.items()
    }


def _judge(fit: Fit, sets: Sets, rows: Split, alpha: float) -> dict[str, Any]:
    """Return the figures of one detector on one split."""
    score = fit(sets.clean.select(rows.fit), sets.labels[rows.fit])
    calibration, negatives = sets.clean.select(rows.calibration), sets.clean.select(rows.negatives)
    limits = Calibration.of(
        score(calibration), calibration.predictions, negatives.logits.shape[1], alpha=alpha
    )
    benign = score(negatives)
    row = {"auroc": {}, "detected": {}}
    for name, features in sets.attacked.items():
        found = score(features)
        positive = np.repeat([False, True], [len(benign), len(found)])
        row["auroc"][name] = float(auroc(np.concatenate([benign, found]), positive))
        row["detected"][name] = float(limits.rejects(found, features.predictions).mean())
    row["false_alarms"] = float(limits.rejects(benign, negatives.predictions).mean())
    return row


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return means over splits, and the spread of the figures that goals are about."""
    mean = {
        key: {name: float(np.mean([row[key][name] for row in rows])) for name in rows[0][key]}
        for key in ("auroc", "detected")
    }
    spread = {
        "mean": [np.mean(list(row["auroc"].values())) for row in rows],
        "worst": [min(row["auroc"].values()) for row in rows],
        "mean_detected": [np.mean(list(row["detected"].values())) for row in rows],
        "false_alarms": [row["false_alarms"] for row in rows],
    }
    return mean | {
        "mean": float(np.mean(list(mean["auroc"].values()))),
        "worst": min(mean["auroc"].values()),
        "mean_detected": float(np.mean(list(mean["detected"].values()))),
        "worst_detected": min(mean["detected"].values()),
        "false_alarms": float(np.mean(spread["false_alarms"])),
        "sd": {key: float(np.std(values, ddof=1)) for key, values in spread.items()},
    }


class Watched(NamedTuple):
    """A monitor to attack.

    Attributes:
        name: Of its detector.
        featurize: What it reads.
        twin: Makes a differentiable copy from network, detector and threshold.
    """

    name: str
    featurize: Featurize
    twin: Callable[..., Any]


LIGHT = Watched("fused-benign", features_of, LightTwin.of)


def adaptive(
    sets: Sets,
    n_images: int = 200,
    watched: Watched = LIGHT,
    seed: int = 0,
    alpha: float = ALPHA,
    eps: Sequence[float] = (1 / 255, 2 / 255, 8 / 255),
    steps: int = 50,
) -> dict[str, Any]:
    """Attack a monitor with and without knowledge of it.

    Args:
        sets: From `load_sets` with the monitor's `featurize`; its half is attacked.
        n_images: How many images of the half.
        watched: The monitor; light (margin and Mahalanobis) by default.
        seed: Of the split that the monitor is fitted and calibrated on.
        alpha: Requested false-alarm rate.
        eps: Budgets.
        steps: Of the adaptive attack; the plain one is PGD with 10.

    Returns:
        `false_alarms`; `agreement` (share of images on which twin and monitor decide alike); and
        for each budget, with (`adaptive`) and without (`plain`) knowledge of the monitor:
        `turned` (share of the images misclassified), `detected` (share of those rejected),
        `evaded` (share of the images misclassified and accepted).
    """
    net, pictures, rows = load_net(), load_pictures(), split(sets, seed)
    monitor = load_detector(watched.name).fit(sets.clean.select(rows.fit), sets.labels[rows.fit])
    calibration = sets.clean.select(rows.calibration)
    limits = Calibration.of(
        monitor.score(calibration), calibration.predictions, calibration.logits.shape[1],
        alpha=alpha,
    )  # fmt: skip
    twin = watched.twin(net, monitor, float(limits.thresholds[0]))

    def rejects(images: torch.Tensor) -> np.ndarray:
        features = watched.featurize(net, images)
        return limits.rejects(monitor.score(features), features.predictions)

    chosen = torch.from_numpy(sets.half[:n_images])
    x, y = pictures.images[chosen], pictures.labels[chosen]
    result: dict[str, Any] = {"false_alarms": float(rejects(x).mean()), "n_images": len(chosen)}
    alike = [(twin.rejects(x) == rejects(x)).mean()]
    for budget in eps:
        step = budget / 4
        for name, attack in (
            ("plain", PGD(eps=budget, step_size=step, steps=10)),
            ("adaptive", AdaptivePGD(twin, 0.0, eps=budget, step_size=step, steps=steps)),
        ):
            found = attack(net, x, y, torch.Generator().manual_seed(seed))
            turned, caught = (predict(net, found) != y).numpy(), rejects(found)
            alike.append((twin.rejects(found) == caught).mean())
            result[f"{name} {round(budget * 255)}/255"] = {
                "turned": float(turned.mean()),
                "detected": float(caught[turned].mean()),
                "evaded": float((turned & ~caught).mean()),
            }
    return result | {"agreement": float(np.mean(alike))}


def show(result: Mapping[str, Any]) -> None:
    """Print AUROC by attack, then what goals are about."""
    attacks = list(next(iter(result.values()))["auroc"])
    print(
        f"{'':<22}" + "".join(f"{a:>10}" for a in (*attacks, "mean", "worst", "det@5%", "alarms"))
    )
    for name, row in result.items():
        values = [*row["auroc"].values(), row["mean"], row["worst"], row["mean_detected"],
                  row["false_alarms"]]  # fmt: skip
        print(f"{name:<22}" + "".join(f"{v:>10.3f}" for v in values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--half", choices=("development", "scoring"), default="development")
    parser.add_argument("--images", type=int, default=200, help="for the adaptive attack")
    args = parser.parse_args()
    names = ("msp", "margin", "mahalanobis", "fused-benign")
    sets = load_sets(args.half, (*GOAL_ATTACKS, "patch"))
    show(run({name: detector(name) for name in names}, sets))
    print(json.dumps(adaptive(sets, args.images), indent=2))


if __name__ == "__main__":
    main()
