"""Planted faults: does the debugger name the module and the concept that were broken?

    python benchmarks/planted.py --json build/bench/planted.json

Thirteen kinds of faults (and none), twenty instances each, on pictures of ConceptWorld: the even
ones for development, the odd ones for scoring. Networks, pictures, observations and judged
instances are kept in build/planted, each named after all that makes it. Baselines see the same
instances in the same run. `--half development` looks at the development half alone. Needs the
extras `dev`.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import contextlib
import hashlib
import io
import json
import platform
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from importlib.resources import files
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from planting import nets
from planting.instances import HALVES, ROWS, Instance, instance
from planting.metrics import at_coverage, kappa, macro_f1, mean, with_interval

HERE = Path(__file__).resolve().parent
COLUMNS = (
    ("module", "module_right"), ("top 1", "top1"), ("top 3", "top3"), ("MRR", "reciprocal_rank"),
    ("class", "classes_right"), ("stability", "stability"), ("fix", "actionability"),
    ("seconds", "seconds"),
)  # fmt: skip

#: Ablations are run on these rows: a cue, a concept in the head, and no fault.
ABLATED_ROWS = ("D1", "H2", "N0")
ABLATED = {"module": "module_right", "top 1": "top1", "top 3": "top3", "names a cue": "named"}


def goal(name: str, value: float, op: str, required: float, aim: float) -> dict:
    ok = bool(value >= required if op == ">=" else value <= required)
    return {"name": name, "value": value, "op": op, "required": required, "aim": aim, "ok": ok}


def code_hash() -> str:
    """SHA-256 of the product and of this benchmark."""
    product = Path(str(files("faultlens")))
    paths = sorted([*product.rglob("*.py"), *(HERE / "planting").glob("*.py")])
    return hashlib.sha256(b"".join(p.read_bytes() for p in paths)).hexdigest()


def trained(given: Instance) -> None:
    """Train an instance's network and its healthy twin, unless they are there."""
    with contextlib.redirect_stdout(io.StringIO()):
        for fault in (given.fault, {}):
            nets.train(fault, given.index % 2, given.index)


def judged(job: tuple[Instance, str]) -> dict:
    """A row of the table, from the cache if neither code nor instance changed."""
    import torch

    from planting.diagnosed import judge

    given, code = job
    torch.set_num_threads(1)
    path = nets.WORK / "judged" / f"{nets.key('judged', code, given.name, given.fault)}.json"
    if not path.exists():
        row = judge(given)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".part")
        partial.write_text(json.dumps(row))
        partial.replace(path)
    return json.loads(path.read_text())


def ablated(given: Instance) -> list[dict]:
    """Rows of one instance under every ablation."""
    import torch

    from planting.ablated import ablate

    torch.set_num_threads(1)
    return ablate(given)


def show_ablations(rows: list[dict]) -> None:
    """One line an ablation, over all its instances."""
    print(f"\n{'ablation':<18}{'instances':>10}" + "".join(f"{c:>20}" for c in ABLATED))
    for name in dict.fromkeys(r["ablation"] for r in rows):
        own = [r for r in rows if r["ablation"] == name]
        cells = [cell(with_interval(own, mean(column))) for column in ABLATED.values()]
        print(f"{name:<18}{len(own):>10}" + "".join(f"{c:>20}" for c in cells))


def in_parallel(work: Callable, jobs: list, workers: int, what: str) -> Iterable:
    """Results in order, with a line a twentieth of the way."""
    start = time.perf_counter()
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        for i, result in enumerate(pool.map(work, jobs), 1):
            if i % max(1, len(jobs) // 20) == 0 or i == len(jobs):
                print(f"{what}: {i}/{len(jobs)}, {time.perf_counter() - start:.0f} s", flush=True)
            yield result


def show(title: str, rows: list[dict]) -> None:
    """One line a row of the table, then all."""
    print(f"\n{title}\n{'':<5}" + "".join(f"{name:>20}" for name, _ in COLUMNS))
    for name in (*ROWS, "all"):
        group = [r for r in rows if name in (r["row"], "all")]
        if group:
            cells = [with_interval(group, mean(column)) for _, column in COLUMNS]
            print(f"{name:<5}" + "".join(f"{cell(c):>20}" for c in cells))


def cell(value: dict) -> str:
    if not np.isfinite(value["value"]):
        return "–"
    low, high = value["interval"]
    return f"{value['value']:.2f} [{low:.2f}, {high:.2f}]"


def summary(rows: list[dict]) -> dict:
    """Every metric with its interval."""
    healthy = [r for r in rows if r["row"] == "N0"]
    found = {name: with_interval(rows, mean(column)) for name, column in COLUMNS}
    found["stage named (E2)"] = with_interval(rows, mean("stage_right"))
    found["macro-F1"] = with_interval(rows, macro_f1)
    found["accuracy at 80 % coverage"] = with_interval(rows, at_coverage)
    found["kappa verdict, swap test"] = with_interval(rows, lambda r: kappa(r, "votes"))
    found["kappa oracle, swap test"] = with_interval(rows, lambda r: kappa(r, "oracle_votes"))
    found["false alarms on N0"] = with_interval(
        healthy, lambda r: float(np.mean([x["module"] != "none" for x in r]))
    )
    causes = [{"valid": float(v)} for r in rows for v in r["causal"]]
    found["causal validity"] = with_interval(causes, mean("valid"))
    return found


def baselines(rows: list[dict]) -> dict:
    """The same metrics of every baseline."""
    out = {}
    for name in rows[0]["baselines"]:
        said = [r | r["baselines"][name] for r in rows]
        out[name] = {
            c: with_interval(said, mean(k))
            for c, k in COLUMNS[:4]
            if c in ("module", "top 1", "top 3", "MRR")
        }
    return out


def goals(found: dict, seconds: float) -> list[dict]:
    wanted = (
        ("module", ">=", 0.80, 0.92), ("top 1", ">=", 0.60, 0.80), ("top 3", ">=", 0.80, 0.95),
        ("kappa verdict, swap test", ">=", 0.4, 0.6), ("false alarms on N0", "<=", 0.05, 0.02),
        ("accuracy at 80 % coverage", ">=", 0.9, 0.97), ("stability", ">=", 0.6, 0.8),
        ("causal validity", ">=", 0.8, 0.95), ("fix", ">=", 0.5, 0.8),
    )  # fmt: skip
    out = [goal(name, found[name]["value"], op, least, aim) for name, op, least, aim in wanted]
    out.append(goal("seconds for D = 512, 10,000 images", seconds, "<=", 30, 10))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--half", choices=("development", "scoring", "both"), default="both")
    parser.add_argument("--rows", default=",".join(ROWS), help="such as D1,H2")
    parser.add_argument("--quick", action="store_true", help="two instances a row, development")
    parser.add_argument("--ablations", action="store_true", help="also those, on D1, H2 and N0")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    start = time.perf_counter()
    halves = list(HALVES) if args.half == "both" else [args.half]
    indices = [0, 2] if args.quick else [i for half in halves for i in HALVES[half]]
    chosen = [instance(r, i) for r in args.rows.split(",") for i in indices]
    for half in {i % 2 for i in indices}:
        nets.pool(half, args.workers)
    networks = {nets.net_path(x.fault, x.index % 2, x.index): x for x in chosen}
    list(in_parallel(trained, list(networks.values()), args.workers, "training"))
    code = code_hash()
    rows = list(in_parallel(judged, [(x, code) for x in chosen], args.workers, "judging"))
    result = {"machine": f"{platform.machine()}, {os.cpu_count()} cores", "rows": rows}
    for half in ("development", "scoring"):
        own = [r for r in rows if r["is_scoring"] == (half == "scoring")]
        if not own:
            continue
        show(half, own)
        result[half] = {"metrics": summary(own), "baselines": baselines(own)}
        for name, value in result[half]["metrics"].items():
            print(f"{name:<28} {cell(value)}")
        for name, values in result[half]["baselines"].items():
            print(f"{name:<36}" + "".join(f"{cell(v):>20}" for v in values.values()))
    if args.ablations:
        own = [x for x in chosen if x.row in ABLATED_ROWS]
        found = in_parallel(ablated, own, args.workers, "ablations")
        result["ablations"] = [row for part in found for row in part]
        show_ablations(result["ablations"])
    judged_half = "development" if args.quick or args.half == "development" else "scoring"
    result["seconds"] = time.perf_counter() - start
    result["goals"] = goals(result[judged_half]["metrics"], large())
    print(f"\n{judged_half} half, {result['seconds']:.0f} s in all")
    for g in result["goals"]:
        mark = "ok " if g["ok"] else "NOT"
        print(f"{mark} {g['name']}: {g['value']:.3g} (required {g['op']} {g['required']})")
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=1))


def large() -> float:
    """Seconds of a full run on 10,000 images of a network with 512 dimensions, from features."""
    from planting.large import seconds

    return seconds()


if __name__ == "__main__":
    main()
