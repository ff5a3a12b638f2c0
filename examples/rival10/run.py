"""The case study on RIVAL10: one configuration, one command.

    python run.py faultlens.yaml

Runs `faultlens debug`, then writes the study's tables into OUT/study: heatmaps and differential
heatmaps, localization, specifications on images and over regions, and runtime detection of wrong
predictions and of adversarial inputs. `docs/guide/rival10.md` says what each table means.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import faultlens as fl
from faultlens import evaluating, files
from faultlens.arrays import FloatArray
from faultlens.config import RunConfig
from faultlens.data.images import ImageSource
from faultlens.errors import FaultlensError, InputError
from faultlens.full_mode import wanted
from faultlens.inner_features import inner_features
from faultlens.models.classifier import Classifier
from faultlens.monitor.features import Features
from faultlens.monitor.reliability import Rate
from faultlens.monitor.risk import Quality
from faultlens.monitor.verdict import Verdict
from faultlens.spec.table import Table, bounds
from faultlens.stats import wilson

HERE = Path(__file__).parent
_BATCH, _N_PAIRS = 16, 5


@dataclass(frozen=True)
class Part:
    """One part of the study: a title, its tables, and the same as JSON."""

    title: str
    tables: tuple[Table, ...]
    values: dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study; returns 0, or 2 with one line on stderr for a mistake of the user."""
    options = _options(arguments)
    try:
        session = _session(options)
        folder = session.folder / "study"
        parts = [
            overall(session),
            heatmaps(session, folder / "heatmaps"),
            localization(session),
            *specifications(session, options),
            *runtime(session, options),
        ]
        _write(folder, parts)
    except FaultlensError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"study: {folder / 'study.md'}")
    print(f"report: {session.folder / 'report.html'}")
    return 0


def overall(session: fl.DebugSession) -> Part:
    """Say how good the classifier, the vision-language model and the map between them are."""
    known = session.numbers
    shown = (
        ("analysed images", f"{known['n_images']}"),
        ("accuracy of the classifier", f"{known['accuracy']:.4f}"),
        ("zero-shot accuracy of the VLM", f"{known['accuracy_vlm']:.4f}"),
        ("R² of the map", f"{known['map_r2']:.4f}"),
        ("cosine of mapped and VLM embeddings", f"{known['map_mean_cosine']:.4f}"),
        ("zero-shot accuracy through the map", f"{known['map_zero_shot']:.4f}"),
        ("valid concepts", f"{known['n_valid_concepts']} of {known['n_concepts']}"),
    )
    return Part("Overall", (Table(("figure", "value"), shown),), {"numbers": dict(known)})


def heatmaps(session: fl.DebugSession, folder: Path) -> Part:
    """Write every class's heatmaps, and name the pairs that tell wrong images from right ones."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, values = [], []
    for name in session.classes:
        for kind in ("correct", "incorrect", "differential"):
            found = session.heatmap(kind, name)
            _write_csv(folder / f"{name}-{kind}.csv", found.concepts, found.values)
        for pair in _pairs(session, name):
            values.append({"class": name, **pair})
            rows.append((
                name, f"{pair['stronger']} > {pair['weaker']}", f"{pair['n_right']}",
                f"{pair['n_wrong']}", f"{100 * pair['difference']:+.1f}",
                bounds(pair["interval"]), f"{pair['q']:.2g}",
            ))  # fmt: skip
    header = ("class", "pair", "right", "wrong", "right − wrong, points", "interval", "q")
    return Part("Differential heatmaps", (Table(header, tuple(rows)),), {"pairs": values})


def _pairs(session: fl.DebugSession, name: str) -> Iterator[dict[str, Any]]:
    """Yield the significant pairs of valid concepts with the greatest difference, each once."""
    delta = session.heatmap("differential", name)
    is_clear = delta.significant() & (delta.values > 0)
    cells = [
        (a, b) for a in session.valid_concepts for b in session.valid_concepts if is_clear[a, b]
    ]
    for a, b in sorted(cells, key=lambda ab: -delta.values[ab])[:_N_PAIRS]:
        yield {
            "stronger": delta.concepts[a],
            "weaker": delta.concepts[b],
            "n_right": delta.n_first,
            "n_wrong": delta.n_second,
            "difference": float(delta.values[a, b]),
            "interval": (float(delta.low[a, b]), float(delta.high[a, b])),
            "q": float(delta.q_values[a, b]),
        }


def localization(session: fl.DebugSession) -> Part:
    """Count, class by class, which part is at fault in the wrong predictions."""
    rows, values = [], {}
    for name in (*session.classes, None):
        wrong = [
            row for row in session.images
            if row["label"] != row["prediction"] and name in (None, row["label"])
        ]  # fmt: skip
        n = Counter(row["verdict"] for row in wrong)
        judged = len(wrong) - n["unknown"]
        interval = tuple(float(b) for b in wilson(n["head"], judged))
        share = n["head"] / judged if judged else None
        counts = {module: n[module] for module in ("encoder", "head", "data", "unknown")}
        values[name or "all"] = {**counts, "head_share": share, "interval": interval}
        rows.append((
            name or "all", f"{len(wrong)}", *map(str, counts.values()),
            "" if share is None else f"{100 * share:.1f}", bounds(interval) if judged else "",
        ))  # fmt: skip
    header = ("class", "wrong", "encoder", "head", "data", "unknown", "head share, %", "interval")
    return Part("Localization", (Table(header, tuple(rows)),), {"classes": values})


def specifications(session: fl.DebugSession, options: argparse.Namespace) -> Iterator[Part]:
    """Check the specifications on images, by both models, then verify them over regions."""
    checked = session.check(options.specs, required_rate=options.required_rate)
    yield Part("Specifications on images", (checked.table,), checked.to_json())
    verified = session.verify(options.specs, timeout_s=options.timeout)
    yield Part("Specifications over regions", (verified.table,), verified.to_json())


def runtime(session: fl.DebugSession, options: argparse.Namespace) -> Iterator[Part]:
    """Fit a monitor on the reference images; ask it about wrong and about adversarial inputs."""
    monitor = fl.RuntimeMonitor.fit(session, alpha=options.alpha, mode=options.mode)
    monitor.save(session.folder / "monitor" / "monitor.safetensors")
    found = evaluating.evaluate(monitor, session)
    evaluating.write(found, session)
    scores = {f"monitor ({found.detector})": found.monitor, **found.detectors}
    rates = {
        "false alarms": found.false_alarms,
        "wrong predictions rejected": found.caught,
        "wrong among the accepted": found.risk,
    }
    tables = (_qualities(scores), _rates(rates))
    yield Part("Detection of wrong predictions", tables, found.to_json())
    if options.attacked:
        yield adversarial(session, monitor, options)


def adversarial(
    session: fl.DebugSession, monitor: fl.RuntimeMonitor, options: argparse.Namespace
) -> Part:
    """Attack images that are classified rightly, and compare them with what they were before."""
    model = session.load_classifier()
    clean, labels = _right_images(session, model, options.attacked)
    attacked = _attack(model, clean, labels, options)
    (_, said), (changed, warned) = (_judge(monitor, model, x) for x in (clean, attacked))
    fooled = changed.predictions != labels
    if not fooled.any():
        raise InputError(f"eps must fool the classifier, got {options.eps:g} of 255; give more")
    score = np.concatenate([said.score, warned.score[fooled]])
    is_attack = np.repeat([False, True], [len(clean), int(fooled.sum())])
    quality = Quality.of(score, is_attack)
    rates = {
        "attacks that fool the classifier": Rate.among(fooled, np.ones_like(fooled)),
        "clean images rejected": Rate.among(~said.accept, np.ones_like(fooled)),
        "fooling attacks rejected": Rate.among(~warned.accept, fooled),
    }
    values = {
        "attack": "pgd", "eps": options.eps, "steps": options.steps, "seed": options.seed,
        "detector": monitor.detector.name, "auroc": quality.auroc, "fpr95": quality.fpr95,
        "rates": {name: asdict(rate) for name, rate in rates.items()},
    }  # fmt: skip
    tables = (_qualities({f"monitor ({monitor.detector.name})": quality}), _rates(rates))
    return Part("Detection of adversarial inputs", tables, values)


def _right_images(
    session: fl.DebugSession, model: Classifier, n: int
) -> tuple[FloatArray, np.ndarray]:
    """Return the inputs of some rightly classified test images, and their labels."""
    right = [row for row in session.images if row["label"] == row["prediction"]]
    rng = np.random.default_rng(0)
    chosen = [right[i] for i in np.sort(rng.permutation(len(right))[:n])]
    source: ImageSource = fl.open_images(session.info["config"]["images"])
    place = {name: i for i, name in enumerate(source.names)}
    inputs = [model.prepare(source.load(place[row["name"]])) for row in chosen]
    return np.stack(inputs), np.array([session.classes.index(row["label"]) for row in chosen])


def _attack(
    model: Classifier, clean: FloatArray, labels: np.ndarray, options: argparse.Namespace
) -> FloatArray:
    """Perturb inputs within `eps` grey levels, away from their labels."""
    import torch  # noqa: PLC0415 (only the attack needs it)

    from faultlens.models.attacks.pgd import PGD  # noqa: PLC0415

    net = getattr(model, "module", None)
    if net is None:
        raise InputError(f"model must be a PyTorch one to be attacked, got '{model.name}'; "
                         "give --attacked 0")  # fmt: skip
    mean, std = (torch.tensor(v).reshape(-1, 1, 1) for v in
                 (model.preprocessing.mean, model.preprocessing.std))  # fmt: skip
    eps = options.eps / 255
    attack = PGD(eps=eps, step_size=2.5 * eps / options.steps, steps=options.steps,
                 low=-mean / std, high=(1 - mean) / std)  # fmt: skip
    generator = torch.Generator().manual_seed(options.seed)
    return np.concatenate([
        attack(_logits(net), torch.from_numpy(x), torch.from_numpy(y), generator).numpy()
        for x, y in zip(_batches(clean), _batches(labels), strict=True)
    ])  # fmt: skip


def _logits(net: Any) -> Any:
    """Return a module that gives bare logits, as attacks want them."""
    import torch  # noqa: PLC0415

    class Bare(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out = self.net(x)
            return getattr(out, "logits", out)

    return Bare()


def _judge(
    monitor: fl.RuntimeMonitor, model: Classifier, inputs: FloatArray
) -> tuple[Features, Verdict]:
    """Run the classifier on inputs, and ask the monitor."""
    if monitor.layers:
        stages, squeezes = wanted(monitor.layers)
        found = inner_features(model, _batches(inputs), stages=stages, squeezes=squeezes)
    else:
        parts = [model.encode(x) for x in _batches(inputs)]
        found = Features(
            *(np.concatenate([p[key] for p in parts]) for key in ("embedding", "logits"))
        )
    return found, monitor(found)


def _batches(rows: np.ndarray) -> list[np.ndarray]:
    return [rows[i : i + _BATCH] for i in range(0, len(rows), _BATCH)]


def _qualities(scores: dict[str, Quality]) -> Table:
    rows = ((n, f"{q.auroc:.4f}", f"{q.aurc:.5f}", f"{q.fpr95:.4f}") for n, q in scores.items())
    return Table(("score", "AUROC", "AURC", "FPR95"), tuple(rows))


def _rates(rates: dict[str, Rate]) -> Table:
    rows = (
        (name, f"{100 * r.share:.1f}", f"{r.n} of {r.of}", bounds(r.interval))
        for name, r in rates.items()
    )
    return Table(("rate", "%", "images", "interval"), tuple(rows))


def _write_csv(path: Path, concepts: Iterable[str], values: np.ndarray) -> None:
    names = list(concepts)
    lines = [",".join(["", *names])]
    lines += [
        ",".join([n, *(f"{v:.4f}" for v in row)]) for n, row in zip(names, values, strict=True)
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write(folder: Path, parts: Sequence[Part]) -> None:
    document = {part.title: part.values for part in parts}
    files.write_json(folder / "study.json", files.json_value(document))
    text = ["# The study"]
    for part in parts:
        text += [f"## {part.title}", *(t.markdown() for t in part.tables)]
    (folder / "study.md").write_text("\n\n".join(text) + "\n", encoding="utf-8")


def _session(options: argparse.Namespace) -> fl.DebugSession:
    """Run the debug job, with one line a stage on stderr."""
    told: set[str] = set()

    def progress(stage: str, done: int, total: int) -> None:
        if stage not in told:
            told.add(stage)
            print(f"{stage}: {total}", file=sys.stderr)

    config = RunConfig.read(options.config)
    return fl.DebugSession.run_config(config, None if options.quiet else progress)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("config", type=Path, help="as for faultlens debug --config")
    add("--specs", type=Path, default=HERE / "rival10.con", help="specifications")
    add("--required-rate", type=float, default=0.95, help="of a specification on images")
    add("--timeout", type=float, default=60.0, help="seconds to verify one specification")
    add("--alpha", type=float, default=0.05, help="false-alarm rate of the monitor")
    add("--mode", choices=("light", "full"), default="full", help="of the monitor")
    add("--attacked", type=int, default=1000, help="images to attack; 0 leaves that part out")
    add("--eps", type=float, default=2.0, help="greatest change of a pixel, of 255")
    add("--steps", type=int, default=10, help="of the attack")
    add("--seed", type=int, default=0, help="of the attack")
    add("--quiet", action="store_true", help="no progress on stderr")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
