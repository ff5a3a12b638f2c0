"""The parts of `benchmarks/monitor.py` that measure something else first, and their goals."""

import importlib
from collections.abc import Callable
from typing import Any

from monitoring.goals import goal

#: What is judged in light mode, the shipped one last.
LIGHT = ("msp", "margin", "mahalanobis", "fused-benign")
SHIPPED = ("refit", "fused", "fused-benign")


def part(name: str) -> Callable[[bool], dict[str, Any]]:
    """Return what runs a part: takes whether to be quick, returns `goals` and details."""
    adapted = {"adversarial": adversarial, "speed": speed}
    if name in adapted:
        return adapted[name]
    found: Callable[[bool], dict[str, Any]] = importlib.import_module(f"monitoring.{name}").run
    return found


def adversarial(is_quick: bool) -> dict[str, Any]:
    """Attacks on ResNet-20, images of the scoring half: light mode, full mode, and an attacker
    who knows the monitor."""
    from monitoring import adversarial as attacks
    from monitoring import attacked_heatmaps, full

    n_splits = 2 if is_quick else 5
    sets = attacks.load_sets("scoring")
    light = attacks.run({name: attacks.detector(name) for name in LIGHT}, sets, n_splits)
    attacks.show(light)
    watched = attacks.load_sets("scoring", featurize=full.full_features)
    complete = attacks.run({name: attacks.detector(name) for name in full.FULL}, watched, n_splits)
    attacks.show(complete)
    print("errors among the negatives")
    mixed = {
        name: attacks.run({name: attacks.detector(name)}, of, n_splits, with_errors=True)[name]
        for name, of in (("fused-benign", sets), ("fused-full", watched))
    }
    attacks.show(mixed)
    print("a patch")
    patched = {}
    for names, featurize in ((LIGHT, attacks.features_of), (full.FULL, full.full_features)):
        few = attacks.load_sets("scoring", ("patch",), featurize)
        patched |= attacks.run({name: attacks.detector(name) for name in names}, few, n_splits)
    attacks.show(patched)
    heatmaps = attacked_heatmaps.judge("scoring", n_splits)
    attacks.show(heatmaps)
    n_images = 50 if is_quick else 200
    known = {
        "light": attacks.adaptive(sets, n_images),
        "full": attacks.adaptive(watched, n_images, full.WATCHED),
    }
    print(known)
    ours, whole = light["fused-benign"], complete["fused-full"]
    return {
        "goals": [
            goal("attacks, light mode, mean AUROC", ours["mean"], ">=", 0.77, 0.85),
            goal("attacks, light mode, worst AUROC", ours["worst"], ">=", 0.55, 0.70),
            goal("attacks, full mode, mean AUROC", whole["mean"], ">=", 0.88, 0.95),
            goal("attacks, full mode, worst AUROC", whole["worst"], ">=", 0.72, 0.88),
            goal("attacks, full mode, detected at 5 % false alarms, mean", whole["mean_detected"],
                 ">=", 0.60, 0.85),
        ],
        "light": light, "full": complete, "with_errors": mixed, "patch": patched,
        "heatmaps": heatmaps, "adaptive": known,
    }  # fmt: skip


def speed(is_quick: bool) -> dict[str, Any]:
    """What a monitor costs, judged by the slowest of the shipped combinations."""
    from monitoring import speed as clock

    found = clock.run(is_quick)
    clock.show(found)
    graph = [r for r in found["in_graph"] if r["detector"] in SHIPPED]
    cached = [r for r in found["cached"] if r["detector"] in SHIPPED]
    needed, aim = found["required"], found["aim"]
    goals = [
        goal("overhead in the graph of ResNet-18, share", max(r["share"] for r in graph), "<=",
             needed["share"]),
        goal("overhead in the graph of ResNet-18, us", max(r["overhead_us"] for r in graph), "<=",
             needed["overhead_us"], aim["overhead_us"]),
        goal("images scored a second on cached features", min(r["images_per_s"] for r in cached),
             ">=", needed["images_per_s"], 1e6),
    ]  # fmt: skip
    return {"goals": goals, **found}
