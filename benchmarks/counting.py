"""Counting heatmaps: 100,000 images, 100 concepts, 10 classes, against a plain NumPy loop.

Both use one thread; `benchmarks/scale.py --only counting` uses all.

python benchmarks/counting.py --json build/bench/counting.json
"""

import argparse
import json
import os
import platform
import time
from pathlib import Path

import numpy as np

from faultlens.heatmaps import HeatmapCounts


def plain(strengths: np.ndarray, groups: np.ndarray, n_groups: int) -> np.ndarray:
    """The peer: compare all pairs of a block at once and add up."""
    wins = np.zeros((n_groups, strengths.shape[1], strengths.shape[1]), np.int64)
    for k in range(n_groups):
        rows = strengths[groups == k]
        for i in range(0, len(rows), 255):
            x = rows[i : i + 255]
            flags = (x[:, :, None] > x[:, None, :]).view(np.uint8)
            wins[k] += np.add.reduce(flags, axis=0, dtype=np.uint8)
    return wins


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="a tenth of the images")
    args = parser.parse_args()
    n, c, k = (10_000 if args.quick else 100_000), 100, 10
    rng = np.random.default_rng(0)
    strengths = rng.normal(size=(n, c)).astype(np.float32)
    groups = rng.integers(0, k, n)
    ours, peer = [], []
    for _ in range(5):
        start = time.perf_counter()
        counts = HeatmapCounts.of(strengths, groups, k, n_threads=1)
        ours.append(time.perf_counter() - start)
        start = time.perf_counter()
        reference = plain(strengths, groups, k)
        peer.append(time.perf_counter() - start)
    assert (counts.wins == reference).all()
    best = min(ours)
    ratio = float(np.median(np.array(peer) / np.array(ours)))
    floor = n * c * (c - 1) / 2  # comparisons that no method can avoid
    print(f"{n} images x {c} concepts x {k} classes, {platform.processor() or platform.machine()}")
    print(f"ours  {best:.3f} s (best of 5; {floor / best / 1e9:.1f} billion comparisons a second)")
    print(f"plain {min(peer):.3f} s; ours is {ratio:.1f} times as fast (median of 5)")
    scale = n / 100_000
    goal = {
        "name": "heatmap counts, 100,000 x 100 x 10, seconds",
        "value": best / scale,
        "op": "<=",
        "required": 0.4,
        "aim": 0.26,
        "ok": best / scale <= 0.4,
    }
    print(f"goal: {goal}")
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        details = {"goals": [goal], "ours_s": ours, "plain_s": peer, "cpus": os.cpu_count()}
        args.json.write_text(json.dumps(details, indent=2))


if __name__ == "__main__":
    main()
