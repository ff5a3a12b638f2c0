"""Mutants of small programs that learn: are real faults found and named, the healthy left alone?

    python benchmarks/training_mutants.py --json build/bench/training_mutants.json

Twenty-one programs, thirty-four fault operators where they apply. A mutant is first trained without
a watch: it counts only if it gains less than half of what its healthy twin gains (same seed, same
data); the others are equivalents and left out. Healthy variants differ in seed, width, rate, batch
and activation. `--half development` runs the programs that thresholds may be chosen on; with
`--traces` their traces are kept, and `--replay` diagnoses kept traces again without any training.
Needs the extras `dev`.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import platform
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from trainings.mutating import Task, judge, said, verdict
from trainings.operators import OPERATORS
from trainings.programs import DEVELOPMENT, SCORING, variants
from trainings.recipe import Variant

Row = dict[str, Any]
HALVES = {"development": DEVELOPMENT, "scoring": SCORING, "both": DEVELOPMENT + SCORING}


def tasks(args: argparse.Namespace) -> list[Task]:
    """All tasks, those of one program and seed beside one another (they share the twin)."""
    names = args.programs or HALVES[args.half]
    todo = []
    for name in names:
        for seed in range(args.seeds):
            chosen = [o.name for o in OPERATORS if not args.operators or o.name in args.operators]
            todo += [Task(name, Variant(seed), operator) for operator in chosen]
        healthy = variants(name)
        if not args.operators:
            todo += [Task(name, v) for v in (healthy[::3] if args.quick else healthy)]
    return todo[:: args.every]


def one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def judged(traces: Path | None, task: Task) -> Row:
    """A row of the result; next to a kept trace it is kept as well."""
    row = judge(task, traces)
    if traces is not None and "watched" in row:
        (traces / task.name / "row.json").write_text(json.dumps(row))
    return row


def replay(folder: Path) -> Row:
    """A kept row, its trace diagnosed anew."""
    from faultlens.training.recorder import read_trace
    from trainings.replay import replayed

    row: Row = json.loads((folder / "row.json").read_text())
    told, final = replayed(read_trace(folder))
    row["watched"] |= {
        "first_step": told[0][0] if told else None,
        "told": [{"at": step} | said(f) for step, f in told],
        "final": [said(f) for f in final],
    }
    return row | verdict(row["operator"], row["watched"]["final"] or row["watched"]["told"])


def results(work: Any, todo: list[Any], workers: int) -> Iterator[Row]:
    start = time.perf_counter()
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=one_thread) as pool:
        for i, row in enumerate(pool.map(work, todo, chunksize=8), 1):
            if "error" in row:
                print(f"{row['name']}: {row['error']}")
            if i % max(1, len(todo) // 10) == 0:
                print(f"{i}/{len(todo)}, {time.perf_counter() - start:.0f} s", flush=True)
            yield row


def share(values: list[Any]) -> float:
    return sum(map(bool, values)) / len(values) if values else float("nan")


def summary(rows: list[Row]) -> dict[str, float]:
    failing = [r for r in rows if r["status"] == "fails"]
    healthy = [r for r in rows if r["status"] == "healthy"]
    return {
        "detection": share([r["has_alarm"] for r in failing]),
        "healthy silence": share([not r["has_alarm"] for r in healthy]),
        "kind in the first two": share([r["kind"] for r in failing]),
        "mutants that really fail": len(failing),
        "healthy variants": len(healthy),
        "errors": sum(r["status"] == "error" for r in rows),
    }


def show(rows: list[Row], key: str) -> None:
    """A line an operator or program."""
    print(f"\n{key:<24}{'fail':>5}{'found':>7}{'named':>7}   what was said first")
    for name in dict.fromkeys(r[key] for r in rows):
        own = [r for r in rows if r[key] == name and r["status"] in ("fails", "healthy")]
        failing = [r for r in own if r["status"] == "fails"]
        said_first = Counter(
            "/".join((r["watched"]["final"] or r["watched"]["told"])[0]["kinds"][:2])
            for r in own if r["has_alarm"]
        )  # fmt: skip
        heard = ", ".join(f"{k} {n}" for k, n in said_first.most_common(3))
        found, named = (sum(bool(r[c]) for r in failing) for c in ("has_alarm", "kind"))
        print(f"{name or 'healthy'!s:<24}{len(failing):>5}{found:>7}{named:>7}   {heard}")


def show_misfires(rows: list[Row]) -> None:
    print("\nmissed, misnamed or disturbed")
    for r in rows:
        if r["status"] not in ("fails", "healthy"):
            continue
        faults = r["watched"]["final"] or r["watched"]["told"]
        text = f"{faults[0]['symptom']} {faults[0]['kinds'][:3]}" if faults else ""
        what = (
            "false alarm" if r["status"] == "healthy" and r["has_alarm"]
            else "missed" if r["status"] == "fails" and not r["has_alarm"]
            else "misnamed" if r["status"] == "fails" and not r["kind"] else None
        )  # fmt: skip
        if what:
            print(f"{what:<12}{r['name']:<44} gain {r['gain']:.2f}/{r['twin']:.2f}  {text}")


def goals(s: dict[str, float]) -> list[Row]:
    limits = {
        "detection": 0.9, "healthy silence": 0.95, "kind in the first two": 0.7,
        "mutants that really fail": 200, "healthy variants": 50,
    }  # fmt: skip
    return [
        {"name": name, "value": s[name], "op": ">=", "required": limit, "aim": None,
         "ok": s[name] >= limit}
        for name, limit in limits.items()
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--half", choices=list(HALVES), default="both")
    parser.add_argument("--programs", nargs="*")
    parser.add_argument("--operators", nargs="*")
    parser.add_argument("--seeds", type=int, default=1, help="seeds of each mutant")
    parser.add_argument("--every", type=int, default=1, help="only every n-th task")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--traces", type=Path, help="folder to keep traces in (must be new)")
    parser.add_argument("--replay", type=Path, help="folder of kept traces to diagnose again")
    parser.add_argument("--quick", action="store_true", help="development programs, fewer tasks")
    args = parser.parse_args()
    if args.quick:
        args.half, args.every = "development", 4
    start = time.perf_counter()
    if args.replay:
        folders = sorted(p.parent for p in args.replay.glob("*/*/*/row.json"))
        rows = list(results(replay, folders, args.workers))
    else:
        rows = list(results(partial(judged, args.traces), tasks(args), args.workers))
    for key in ("operator", "program"):
        show(rows, key)
    show_misfires(rows)
    print(dict(Counter(r["status"] for r in rows)))
    result: Row = {
        "seconds": time.perf_counter() - start,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores", "summary": summary(rows),
        "halves": {
            half: summary([r for r in rows if r["program"] in HALVES[half]])
            for half in ("development", "scoring")
        },
        "goals": goals(summary(rows)), "rows": rows,
    }  # fmt: skip
    print({k: v for k, v in result["halves"].items() if v["mutants that really fail"]})
    for g in result["goals"]:
        print(f"{'ok ' if g['ok'] else 'NOT'} {g['name']}: {g['value']:.3g} "
              f"(required >= {g['required']})")  # fmt: skip
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
