"""Specifications of real classifiers: how many hold on images, how many are proved, and where.

    python benchmarks/specs.py --json build/bench/specs.json

The suite is that of the Con_spec paper: every concept that a class should have is stronger than
every concept that only other classes should have. It is checked on images and verified over
regions of several kinds, with the share of held-out images that lie in them. Data: a third-party
ResNet-20 on CIFAR-10 with a label bridge, and a classifier of photographs with the offline
vision-language model. Needs the shared data beside the checkout and the extras `dev`.
"""

import argparse
import json
import time
from collections import Counter
from pathlib import Path

import numpy as np

import cifar
import photos
from faultlens import checking, signals, verifying
from faultlens.data.images import open_images
from faultlens.files import load_arrays, save_arrays
from faultlens.models.description import ModelDescription
from faultlens.models.pytorch import from_module
from faultlens.session import DebugSession
from faultlens.spec.initial import quoted
from faultlens.spec.parse import parse
from faultlens.vlm.load import load_vlm

REGIONS = (
    "box(gamma=0.25)", "box(gamma=0.5)", "box(gamma=1)", "box(coverage=0.9)",
    "pcabox(coverage=0.9)", "ellipsoid(coverage=0.9)", "slabs(coverage=0.5)",
    "slabs(coverage=0.8)", "slabs(coverage=0.9)", "slabs(coverage=0.95)",
)  # fmt: skip


def cifar_session(limit: int | None) -> DebugSession:
    """The ResNet-20 as it is, from its stored features."""
    stored, _ = load_arrays(cifar.CIFAR / "features.safetensors")
    head, _ = load_arrays(cifar.CIFAR / "head.safetensors")
    folder = cifar.WORK / "specs"
    z = stored["embedding"].astype(np.float32)
    save_arrays(folder / "head.safetensors", {"weight": head["weight"], "bias": head["bias"]})
    arrays = {
        "embedding": z, "logits": z @ head["weight"].T + head["bias"], "label": stored["label"],
        "vlm_logits": stored["vlm_logits"],
    }  # fmt: skip
    names = {"class_names": json.dumps(cifar.CLASSES)}
    save_arrays(folder / "features.safetensors", arrays, names)
    here = Path(__file__).parent
    return DebugSession.run(
        vlm=f"bridge:{here / 'cifar-bridge.yaml'}", concepts=here / "cifar.yaml",
        out=folder / "session", features=folder / "features.safetensors",
        head=folder / "head.safetensors", limit=limit,
    )  # fmt: skip


def photo_session(limit: int | None) -> tuple[DebugSession, object]:
    """The sound classifier of the photographs."""
    source = open_images(photos.PHOTOS / "photos.csv")
    net, preprocessing = photos.healthy(source.split("train"))
    about = ModelDescription(classes=source.class_names, preprocessing=preprocessing)
    model = from_module(net, about, name="photos: healthy")
    session = DebugSession.run(
        model, images=source, vlm=load_vlm("offline"), concepts=photos.CONCEPTS,
        out=photos.WORK / "specs", split="test", limit=limit,
    )  # fmt: skip
    return session, model


def suite(session: DebugSession) -> str:
    """Paper-like specifications, class by class."""
    relevant, valid = signals.relevance(session), np.zeros(len(session.concepts), bool)
    valid[session.valid_concepts] = True
    of_some = relevant.any(axis=0) & valid
    lines = []
    for k, name in enumerate(session.classes):
        sets = [
            "{" + ", ".join(quoted(session.concepts[c]) for c in np.flatnonzero(group)) + "}"
            for group in (relevant[k] & valid, of_some & ~relevant[k])
        ]
        if "{}" not in sets:
            pairs = f"forall a in {sets[0]}, b in {sets[1]}: str(a) > str(b)"
            lines.append(f"spec {quoted(name)} on R({quoted(name)}): {pairs};")
    return "\n".join(lines)


def measure(name: str, session: DebugSession, model: object) -> dict:
    """Check and verify one session's suite."""
    text = suite(session)
    file = parse(f"region R = {REGIONS[0]};\n{text}")
    checked = checking.check([session], file).document
    verdicts = Counter(s["results"]["model"]["verdict"] for s in checked["specs"])
    rates = [s["results"]["model"]["rate"] for s in checked["specs"] if s["results"]["model"]["n"]]
    row = {
        "data": name, "images": len(session.images), "specs": len(checked["specs"]),
        "on_images": dict(verdicts), "mean_rate": float(np.mean(rates)),
        "hold_always": float(np.mean([r == 1 for r in rates])), "regions": [],
    }  # fmt: skip
    print(f"\n{name}: {row['specs']} specs on {row['images']} images: {dict(verdicts)}; mean rate "
          f"{row['mean_rate']:.3f}, {row['hold_always']:.3f} hold on every image")  # fmt: skip
    print(f"{'region':<26}{'proved':>8}{'refuted':>9}{'other':>7}{'inside':>8}{'seconds':>9}")
    for region in REGIONS:
        start = time.perf_counter()
        settings = verifying.Settings(has_gamma=False, timeout_s=10.0)
        file = parse(f"region R = {region};\n{text}")
        found = verifying.verify(session, file, settings, model=model).document
        cases = [c for s in found["specs"] for c in s["regions"]]
        counts = Counter(c["verdict"] for c in cases)
        inside = [c["coverage"] for c in cases if c["coverage"]]
        share = sum(c["n_inside"] for c in inside) / max(sum(c["n"] for c in inside), 1)
        entry = {
            "region": region, "verdicts": dict(counts), "coverage": share,
            "seconds": time.perf_counter() - start,
        }  # fmt: skip
        row["regions"].append(entry)
        n = len(cases)
        other = n - counts["PROVED"] - counts["REFUTED"]
        print(f"{region:<26}{counts['PROVED'] / n:>8.3f}{counts['REFUTED'] / n:>9.3f}"
              f"{other / n:>7.3f}{share:>8.3f}{entry['seconds']:>9.1f}", flush=True)  # fmt: skip
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="2,000 and 300 images")
    args = parser.parse_args()
    rows = []
    if cifar.CIFAR.exists():
        session = cifar_session(2000 if args.quick else None)
        rows.append(measure("ResNet-20 on CIFAR-10", session, None))
    if photos.PHOTOS.exists():
        rows.append(measure("photographs", *photo_session(300 if args.quick else None)))
    if not rows:
        print("the shared data are not beside this checkout: nothing to measure")
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps({"goals": [], "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
