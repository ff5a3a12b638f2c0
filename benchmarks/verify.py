"""Con_spec verification: speed against other solvers, and right against exact ones.

    OMP_NUM_THREADS=1 python benchmarks/verify.py --json build/bench/verify.json

One process, one thread; seconds are those of the processor, so that other work on the machine does
not count. Peers (highspy, maraboupy, pyscipopt, z3-solver) run in the same process on the same
instances: predict(class) => a > b over a class's box, 512 dimensions, 100 concepts, 10 classes.
"""

import argparse
import contextlib
import io
import json
import os
import platform
import tempfile
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from faultlens.spec.boxes import STAGES
from faultlens.spec.certify import Claim
from faultlens.spec.formula import TRUE, all_of, negate
from faultlens.spec.pairs import PairVerdicts, verify_pairs
from faultlens.spec.verify import PROVED, REFUTED, Verifier
from verifying import data, trials
from verifying.families import NAMES, BigM, specification
from verifying.peers import PEERS, Question, z3_satisfiable

#: The setting of the Boolean goals: nearly all are refuted. One class alone is shown beside it.
ALL_CLASSES = "all classes, gamma 0.2"
GAMMAS = (0.02, 0.05, 0.25, 1.0, 3.0)


def goal(name: str, value: float, op: str, required: float, aim: float) -> dict[str, Any]:
    is_ok = bool(value <= required if op == "<=" else value >= required)
    return {
        "name": name,
        "value": float(value),
        "op": op,
        "required": required,
        "aim": aim,
        "ok": is_ok,
    }


def timed_pairs(instance: data.Instance, gamma: float, repeats: int) -> tuple[float, PairVerdicts]:
    """Processor seconds (best of some) of all pairs of all classes."""
    regions = instance.boxes(gamma)
    samples = [instance.own(cls)[:64] for cls in range(len(regions))]
    best = np.inf
    for _ in range(repeats):
        start = time.process_time()
        found = verify_pairs(instance.readout, regions, samples=samples, timeout_s=600.0)
        best = min(best, time.process_time() - start)
    return best, found


def pairs_table(instance: data.Instance, gammas: tuple[float, ...], repeats: int) -> list[dict]:
    rows = []
    for gamma in gammas:
        seconds, found = timed_pairs(instance, gamma, repeats)
        stages = Counter(np.array(STAGES)[found.stage.ravel()].tolist())
        stages.pop("", None)
        rows.append({"data": instance.name, "gamma": gamma, "seconds": seconds,
                     **found.counts(), "stages": dict(stages)})  # fmt: skip
        print(
            f"  {instance.name}, gamma {gamma}: {seconds:.2f} s, {found.counts()}, {dict(stages)}"
        )
    return rows


def against_peers(instance: data.Instance, gamma: float, share: float) -> list[dict[str, Any]]:
    """Times of every peer on the pairs of class 0, and its agreement with our verdicts."""
    seconds, found = timed_pairs(instance, gamma, 3)
    ours = seconds / (found.status > 0).sum()
    region, readout = found.regions[0], instance.readout
    rng = np.random.default_rng(0)
    n_concepts = len(readout.concept_rows)
    pairs = [tuple(rng.choice(n_concepts, 2, replace=False).tolist()) for _ in range(1000)]
    question = Question(readout, region, 0)
    rows = []
    for name, solve, n, required in PEERS:
        chosen = pairs[: max(int(n * share), 5)]
        start = time.process_time()
        answers = solve(question, chosen)
        each = (time.process_time() - start) / len(chosen)
        rows.append(_row(name, each, ours, required, found, chosen, answers))
    chosen = pairs[: 2 if share < 1 else 4]
    start = time.process_time()
    answers = []
    for a, b in chosen:
        wanted, given = found.formulas(0, a, b)
        answers.append(z3_satisfiable(all_of(given, negate(wanted)), region, readout))
    each = (time.process_time() - start) / len(chosen)
    rows.append(_row("Z3", each, ours, 1e5, found, chosen, answers))
    return rows


def _row(
    name: str, each: float, ours: float, required: float, found: PairVerdicts,
    pairs: list, answers: list[bool],
) -> dict[str, Any]:  # fmt: skip
    agree = sum(
        bool(found.status[0, a, b] == 2) == sat for (a, b), sat in zip(pairs, answers, strict=True)
    )
    row = {"peer": name, "specs_per_s": 1 / each, "ratio": each / ours, "required": required,
           "agree": agree, "n": len(pairs)}  # fmt: skip
    print(f"  {name}: {1 / each:,.2f} specs/s, we are {each / ours:,.0f} times as fast; "
          f"agree {agree}/{len(pairs)}")  # fmt: skip
    return row


def boolean(instance: data.Instance, n: int, n_peer: int) -> tuple[list[dict[str, Any]], list]:
    """Families F1 … F4 over the box of all classes, and over one class's."""
    rows, cases = [], []
    boxes = {ALL_CLASSES: data.box_of(instance.embeddings, 0.2),
             "one class, gamma 0.05": instance.boxes(0.05)[0]}  # fmt: skip
    for where, region in boxes.items():
        verifier = Verifier(region, instance.readout)
        for family in NAMES:
            rng = np.random.default_rng(7)
            specs = [specification(family, instance.readout, rng) for _ in range(n)]
            verifier.verify(specification(family, instance.readout, rng))  # load the solver
            start = time.process_time()
            verdicts = [verifier.verify(spec) for spec in specs]
            ours = (time.process_time() - start) / n
            start = time.process_time()
            answers = [BigM(negate(s), region, instance.readout).solve(60) for s in specs[:n_peer]]
            peer = (time.process_time() - start) / n_peer
            wrong = sum(
                v.status != (REFUTED if sat else PROVED)
                for v, sat in zip(verdicts, answers, strict=False) if sat is not None
            )  # fmt: skip
            counts = dict(Counter(v.status for v in verdicts))
            rows.append({"where": where, "family": family, "specs_per_s": 1 / ours,
                         "ratio": peer / ours, "wrong": wrong, **counts})  # fmt: skip
            print(f"  {where}, {family}: {1 / ours:,.0f} specs/s, HiGHS big-M {1 / peer:.1f}, "
                  f"ratio {peer / ours:.0f}, {counts}, disagree {wrong}/{n_peer}")  # fmt: skip
            cases += [
                (Claim("", s, TRUE, region, instance.readout), v)
                for s, v in zip(specs[:10], verdicts, strict=False)
            ]
    return rows, cases


def pair_cases(found: PairVerdicts, n: int) -> list[trials.Case]:
    rng = np.random.default_rng(3)
    cases = []
    for _ in range(n):
        cls = int(rng.integers(len(found.regions)))
        a, b = (int(i) for i in rng.choice(found.status.shape[1], 2, replace=False))
        wanted, given = found.formulas(cls, a, b)
        claim = Claim("", wanted, given, found.regions[cls], found.readout)
        cases.append((claim, found.verdict(cls, a, b)))
    return cases


def run(is_quick: bool) -> dict[str, Any]:
    goals, details = [], {}
    instance, real = data.synthetic(), data.real()
    print("all pairs")
    rows = pairs_table(instance, GAMMAS, 3)
    slowest = max(row["seconds"] for row in rows)
    goals.append(goal("99,000 pairs, D = 512, certified in float, s", slowest, "<=", 1.5, 1.0))
    if real:
        rows += pairs_table(real, (0.25, 0.5, 1.0, 3.0), 1)
    large = data.synthetic(n_concepts=500)
    rows += (many := pairs_table(large, (0.05,) if is_quick else (0.02, 0.05, 1.0), 1))
    slowest = max(row["seconds"] for row in many)
    goals.append(goal("2,495,000 pairs, D = 512, s", slowest, "<=", 25.0, 15.0))
    details["pairs"] = rows
    print("other solvers, D = 512, gamma 0.05")
    details["peers"] = against_peers(instance, 0.05, 0.1 if is_quick else 1.0)
    goals += [
        goal(f"times as fast as {r['peer']}", r["ratio"], ">=", r["required"], r["required"])
        for r in details["peers"]
    ]
    print("Boolean families, D = 512")
    details["boolean"], cases = boolean(instance, 20 if is_quick else 60, 3 if is_quick else 12)
    goals += [
        goal(f"times as fast as HiGHS big-M, {r['family']}", r["ratio"], ">=", 20.0, 50.0)
        for r in details["boolean"] if r["where"] == ALL_CLASSES
    ]  # fmt: skip
    goals += _right(is_quick, instance, real, cases, details)
    return {"goals": goals, **details}


def _right(
    is_quick: bool, instance: data.Instance, real: data.Instance | None, cases: list, details: dict
) -> list[dict[str, Any]]:
    print("right or wrong")
    details["z3"], small = trials.against_z3(200 if is_quick else 2000)
    details["planted"] = trials.planted(100 if is_quick else 1000)
    z = (real or instance).own(0)
    details["coverage"] = trials.calibration(z[:1000], (real or instance).readout)
    _, found = timed_pairs(instance, 0.05, 1)
    cases += pair_cases(found, 20 if is_quick else 200) + small
    cases += trials.regional(np.random.default_rng(4), 20 if is_quick else 200)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        details["certificates"], paths = trials.certified(cases, Path(folder))
        light = [p for p in paths if _weight(p) < 200_000]
        mutants = Path(folder, "mutants")
        details["mutants"] = trials.mutated(light, mutants, 300 if is_quick else 10_000)
    for name in ("z3", "planted", "certificates", "mutants"):
        print(f"  {name}: {details[name]}")
    outside = sum(not row["ok"] for row in details["coverage"])
    for row in details["coverage"]:
        print(f"  coverage {row}")
    share = details["certificates"]["accepted"] / details["certificates"]["verdicts"]
    wrong = details["z3"]["disagreements"] + sum(r["wrong"] for r in details["boolean"])
    wrong += sum(r["n"] - r["agree"] for r in details["peers"])
    hidden = details["planted"]["called PROVED"]
    return [
        goal("disagreements with exact Z3 and other solvers", wrong, "<=", 0, 0),
        goal("verdicts with an accepted certificate, share", share, ">=", 1.0, 1.0),
        goal("mutated certificates accepted", details["mutants"]["accepted"], "<=", 0, 0),
        goal("planted counterexamples called PROVED", hidden, "<=", 0, 0),
        goal("coverages outside binomial error", outside, "<=", 0, 0),
    ]  # fmt: skip


def _weight(path: Path) -> int:
    document = json.loads(path.read_bytes())
    names = [document["readout"], document["region"]]
    return sum((path.parent / f"{name}.safetensors").stat().st_size for name in names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="a tenth of the specifications")
    args = parser.parse_args()
    with threadpool_limits(1):
        results = run(args.quick)
    names = ("numpy", "scipy", "highspy", "z3-solver", "pyscipopt", "maraboupy")
    results["versions"] = {name: version(name) for name in names}
    results["machine"] = {"processor": platform.machine(), "cpus": os.cpu_count()}
    for g in results["goals"]:
        print(f"{'ok  ' if g['ok'] else 'FAIL'} {g['name']}: {g['value']:.4g} "
              f"({g['op']} {g['required']:g}, aim {g['aim']:g})")  # fmt: skip
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
