"""Debug a third-party ResNet-20 on CIFAR-10 from its stored features, as it is and with faults.

    python benchmarks/cifar.py --json build/bench/cifar.json

The vision-language model is a label bridge over the stored logits of an independent ResNet-56.
Faults are planted in the stored embeddings or in the last layer; the logits are computed anew.
Needs the shared features beside the checkout and the extras `dev`.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np

from faultlens.files import load_arrays, save_arrays
from faultlens.session import DebugSession
from photos import show

ROOT = Path(__file__).resolve().parents[1]
CIFAR = ROOT.parent / "shared" / "cifar10"
WORK = ROOT / "build" / "cifar"
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
#: Variant -> what the run must blame first; None: no fault of a module is planted.
EXPECTED = {
    "as it is": None,
    "head rows of airplane and ship swapped": "localization.head",
    "head rows of cat and dog swapped": "localization.head",
    "head row of bird zeroed": "localization.head",
    "16 of 64 channels zeroed": "localization.encoder",
    "noise on the embeddings": "localization.encoder",
}


def faulty(
    name: str, z: np.ndarray, w: np.ndarray, b: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Plant one fault in embeddings, weight or bias."""
    rng = np.random.default_rng(0)
    z, w, b = z.copy(), w.copy(), b.copy()
    rows = np.arange(len(CLASSES))
    if name.startswith("head rows"):
        pair = [0, 8] if "ship" in name else [3, 5]
        rows[pair] = rows[pair[::-1]]
        return z, w[rows], b[rows]
    if "zeroed" in name and "bird" in name:
        w[2] = 0
    elif "channels" in name:
        z[:, rng.permutation(z.shape[1])[:16]] = 0
    elif "noise" in name:
        z += rng.normal(size=z.shape).astype(np.float32) * z.std(axis=0)
    return z, w, b


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="2,000 images instead of 20,000")
    args = parser.parse_args()
    if not CIFAR.exists():
        print("the shared features are not beside this checkout: nothing to measure")
        return
    here = Path(__file__).parent
    stored, _ = load_arrays(CIFAR / "features.safetensors")
    head, _ = load_arrays(CIFAR / "head.safetensors")
    z = stored["embedding"].astype(np.float32)
    rows = []
    for name, expected in EXPECTED.items():
        folder = WORK / name.replace(" ", "-")
        embedding, weight, bias = faulty(name, z, head["weight"], head["bias"])
        save_arrays(folder / "head.safetensors", {"weight": weight, "bias": bias})
        save_arrays(
            folder / "features.safetensors",
            {
                "embedding": embedding,
                "logits": embedding @ weight.T + bias,
                "label": stored["label"],
                "vlm_logits": stored["vlm_logits"],
            },
            {"class_names": json.dumps(CLASSES)},
        )
        start = time.perf_counter()
        session = DebugSession.run(
            vlm=f"bridge:{here / 'cifar-bridge.yaml'}",
            concepts=here / "cifar.yaml",
            out=folder / "session",
            features=folder / "features.safetensors",
            head=folder / "head.safetensors",
            limit=2000 if args.quick else None,
        )
        row = {"variant": name, "status": session.status, **session.numbers}
        row["seconds"] = time.perf_counter() - start
        row["findings"] = [f"[{f.severity}] {f.kind}: {f.claim}" for f in session.findings]
        row["expected"] = expected
        row["first"] = next((f.kind for f in session.findings if f.severity == "fault"), None)
        rows.append(row)
        show(row)
    planted = [r for r in rows if r["expected"]]
    named = sum(r["first"] == r["expected"] for r in planted) / len(planted)
    goal = {
        "name": "planted faults whose module is named first",
        "value": named,
        "op": ">=",
        "required": 0.8,
        "aim": 1.0,
        "ok": named >= 0.8,
    }
    print(f"\ngoal: {goal}")
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps({"goals": [goal], "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
