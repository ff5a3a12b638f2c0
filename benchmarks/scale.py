"""Work in parts: what it costs, and that how it is shared out changes nothing.

Six measurements: extraction against the bare model (by `benchmarks/extract.py`), heatmap counts,
alignment sums against their matrix products alone, memory at N and 4 N images, one worker against
two, and a run over 10⁶ synthetic embeddings with 200 concepts, at once and in parts.

Besides the seconds on the clock each gives those of the processors: where these do not grow with
the number of threads or workers, and the others do not shrink, something else used the machine.

python benchmarks/scale.py --json build/bench/scale.json
"""

import argparse
import json
import multiprocessing
import os
import platform
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from faultlens.alignment import BLOCK, AlignmentSums, normalize
from faultlens.embeddings.store import EmbeddingStore
from faultlens.heatmaps import HeatmapCounts
from faultlens.scale.aligning import align_job
from faultlens.scale.checks import check_job
from faultlens.scale.counting import Concepts, count_job
from faultlens.scale.job import run
from faultlens.scale.local import Local
from faultlens.spec import parse
from faultlens.spec.ground import ground
from faultlens.spec.predicate import Scope

SEED = 0
SPECS = """
spec first: predict(class0) => concept0 > concept1;
spec chain: predict(class1) => concept2 > concept3 > concept4;
spec either: concept5 > concept6 or concept6 >= concept5;
"""


class Repeated:
    """N rows of which few are in memory: the same few blocks over and over."""

    def __init__(self, n, width, n_blocks=2, seed=SEED):
        rng = np.random.default_rng(seed)
        self.n = n
        self.blocks = [rng.standard_normal((BLOCK, width), np.float32) for _ in range(n_blocks)]

    def __len__(self):
        return self.n

    def __getitem__(self, rows):
        block = self.blocks[rows.start // BLOCK % len(self.blocks)]
        return block[: min(rows.stop, self.n) - rows.start]


def timed(function):
    """Return what a function returns, its seconds, and those of all processors it used."""
    before, begin = os.times(), time.perf_counter()
    found = function()
    seconds = time.perf_counter() - begin
    # The first four are processor times of this process and of its children that ended.
    return found, seconds, sum(os.times()[:4]) - sum(before[:4])


def goal(name, value, op, required, aim):
    ok = value >= required if op == ">=" else value <= required
    return {
        "name": name, "value": value, "op": op, "required": required, "aim": aim, "ok": bool(ok),
    }  # fmt: skip


# Extraction ------------------------------------------------------------------------------------


def extraction(is_quick):
    """Run the benchmark of extraction, whose goals are the share of the bare throughput."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "extract.json"
        command = [sys.executable, str(Path(__file__).with_name("extract.py")), "--json", str(out)]
        subprocess.run(command + ["--quick"] * is_quick, check=False)
        result = json.loads(out.read_text())
    return result["goals"], result["rows"]


# Counting --------------------------------------------------------------------------------------


def counting(n, c=100, k=10, repeats=5):
    """Count heatmaps in memory, with one thread and with one for every processor."""
    rng = np.random.default_rng(SEED)
    strengths = rng.standard_normal((n, c), np.float32)
    groups = rng.integers(0, k, n)
    seconds, processor_s, found = {}, {}, {}
    for _ in range(repeats):
        for n_threads in (1, os.cpu_count()):
            count = partial(HeatmapCounts.of, strengths, groups, k, n_threads)
            found[n_threads], wall, used = timed(count)
            seconds.setdefault(n_threads, []).append(wall)
            processor_s.setdefault(n_threads, []).append(used)
    first, *others = found.values()
    assert all((other.wins == first.wins).all() for other in others)
    best = min(seconds[os.cpu_count()]) * 1_000_000 / n
    name = "heatmap counts, 1,000,000 x 100 x 10, seconds"
    row = {"n": n, "seconds_by_threads": seconds, "processor_s_by_threads": processor_s}
    return [goal(name, best, "<=", 2.0, 1.0)], row


# Alignment -------------------------------------------------------------------------------------


def products(z, v, blocks):
    """The peer: the matrix products of some blocks alone, all threads, on ready double rows."""
    zs = [b.astype(np.float64) for b in z.blocks]
    vs = [normalize(b.astype(np.float64)) for b in v.blocks]

    def loop():
        for i in blocks:
            n_rows = min(BLOCK, len(z) - i * BLOCK)
            a, b = zs[i % len(zs)][:n_rows], vs[i % len(vs)][:n_rows]
            _ = a.T @ a, a.T @ b

    return loop


def alignment(n, width=2048):
    """Sum over rows that are made up block by block, against the products alone."""
    z, v = Repeated(n, width), Repeated(n, width, seed=1)
    n_threads, n_blocks = os.cpu_count(), -(-n // BLOCK)
    with threadpool_limits(n_threads, user_api="blas"):
        # Half of the peer before and half after, so that a change of the machine meets both.
        _, before, before_used = timed(products(z, v, range(n_blocks // 2)))
        _, ours, used = timed(partial(AlignmentSums.of, z, v, n_threads))
        _, after, after_used = timed(products(z, v, range(n_blocks // 2, n_blocks)))
    bare = before + after
    name = f"alignment sums at D = E = {width}, times the matrix products alone"
    row = {
        "n": n, "seconds": ours, "products_s": bare, "processor_s": used,
        "products_processor_s": before_used + after_used, "peak_mb": peak_mb(),
    }  # fmt: skip
    return [goal(name, ours / bare, "<=", 1.5, 1.2)], row


def peak_mb():
    """Return the peak of this process; `getrusage` would count what its parent had."""
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1024


# Stores on disk ---------------------------------------------------------------------------------


def fill(folder, n, d, e, k, shard_rows):
    """Write synthetic stores of a classifier and a VLM, and labels, row by row the same."""
    sizes = {"model": {"embedding": d, "logits": k}, "vlm": {"embedding": e}}
    mix = np.random.default_rng(SEED).standard_normal((d, max(e, k))).astype(np.float32)
    stores = {
        name: EmbeddingStore.create_or_open(
            folder / name, "synthetic", n, {c: (w, "float32") for c, w in wide.items()}, shard_rows
        )
        for name, wide in sizes.items()
    }
    labels = np.lib.format.open_memmap(folder / "labels.npy", "w+", np.int16, (n,))
    for shard, rows in stores["model"].missing().items():
        # A row, and how its products are rounded, depends on its block of 1,000 alone, so that
        # shards can be cut otherwise.
        drawn = [rows_of(i, d) for i in range(rows.start, rows.stop, 1000)]
        z = np.concatenate(drawn)[: len(rows)]
        seen = np.concatenate([block @ mix for block in drawn])[: len(rows)]
        logits = seen[:, :k] + z[:, :k]
        labels[rows.start : rows.stop] = seen[:, :k].argmax(axis=1)
        stores["model"].write(shard, {"embedding": z, "logits": logits})
        stores["vlm"].write(shard, {"embedding": seen[:, :e]})
    labels.flush()


def rows_of(start, d):
    return np.random.default_rng([SEED, start]).standard_normal((1000, d), np.float32)


def concepts_of(c, k, d):
    rng = np.random.default_rng(SEED + 1)
    names, classes = [f"concept{i}" for i in range(c)], [f"class{i}" for i in range(k)]
    weight = rng.standard_normal((c, d))
    return Concepts(tuple(names), tuple(classes), weight, rng.standard_normal(c))


def in_parts(folder, out, concepts, n_workers):
    """Align, count and check a folder's stores: results, and seconds of clock and processors."""
    labels = folder / "labels.npy"
    scope = Scope(concepts.names, concepts.classes)
    suite = list(ground(parse.parse(SPECS), scope))
    jobs = {
        "alignment": align_job(folder / "model", folder / "vlm", out),
        "counts": count_job(folder / "model", labels, concepts, out),
        "check": check_job(suite, folder / "model", labels, concepts, out),
    }
    found, seconds, processor_s = {}, {}, {}
    for name, job in jobs.items():
        found[name], seconds[name], processor_s[name] = timed(partial(run, job, Local(n_workers)))
    return found, {"seconds": seconds, "processor_s": processor_s}


def bits(found):
    """Return all numbers of the results as bytes, to compare."""
    counts = found["counts"]
    parts = [counts.correct, counts.false_negative, counts.false_positive]
    arrays = [found["alignment"].weight, found["alignment"].bias]
    arrays += [a for part in parts for a in (part.wins, part.n)]
    arrays += [a for t in found["check"] for a in (t.asked, t.violated, t.rows)]
    return b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)


def start_s(n_workers):
    """Return the seconds until new processes have this module loaded; each job waits so long."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(n_workers, context) as pool:
        return timed(lambda: list(pool.map(abs, range(n_workers))))[1]


def large(n, d=512, e=512, c=200, k=10, repeats=2):
    """A run over n synthetic embeddings: one worker, two, and with shards cut otherwise."""
    rows = {"n": n, "D": d, "E": e, "concepts": c, "classes": k, "start_s": start_s(2)}
    concepts = concepts_of(c, k, d)
    cuts = [
        ("", 4000, [1, 2] * repeats),
        (", other shards", 13_000, [2]),
    ]
    found = []
    for cut, shard_rows, numbers in cuts:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            _, rows[f"fill{cut}"], _ = timed(partial(fill, folder, n, d, e, k, shard_rows))
            for i, n_workers in enumerate(numbers):
                # Each has a folder of its own: it would take over the parts of another.
                results, took = in_parts(folder, folder / f"out-{i}", concepts, n_workers)
                rows.setdefault(f"workers: {n_workers}{cut}", []).append(took)
                found.append(bits(results))
    is_equal = all(other == found[0] for other in found)
    one, two = (
        min(sum(took["seconds"].values()) for took in rows[f"workers: {number}"])
        for number in (1, 2)
    )
    rows["seconds_1"], rows["seconds_2"] = one, two
    return [
        goal("results bit-equal whatever the sharding", float(is_equal), ">=", 1.0, 1.0),
        goal("speed-up from 1 to 2 workers", one / two, ">=", 1.5, 1.8),
    ], rows


def memory(n, d=256, c=100, k=10):
    """Return the peak memory of new processes that work on n and on 4 n rows, in MB."""
    peaks = {}
    for rows in (n, 4 * n):
        with tempfile.TemporaryDirectory() as folder:
            fill(Path(folder), rows, d, d, k, 4000)
            context = multiprocessing.get_context("spawn")
            parent, child = context.Pipe(duplex=False)
            process = context.Process(target=in_process, args=(Path(folder), c, k, d, child))
            process.start()
            peaks[rows] = parent.recv()
            process.join()
    ratio = peaks[4 * n] / peaks[n]
    name = "peak memory at 4 N rows over that at N"
    return [goal(name, ratio, "<=", 1.25, 1.1)], {"peak_mb": peaks}


def in_process(folder, c, k, d, pipe):
    in_parts(folder, folder / "out", concepts_of(c, k, d), 1)
    pipe.send(peak_mb())


# ------------------------------------------------------------------------------------------------


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the result here")
    parser.add_argument("--quick", action="store_true", help="fewer rows")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=["extraction", "counting", "alignment", "memory", "large"],
        help="leave the others out",
    )
    args = parser.parse_args()
    quick = args.quick
    parts = {
        "extraction": partial(extraction, quick),
        "counting": partial(counting, 100_000 if quick else 1_000_000),
        "alignment": partial(alignment, 4 * BLOCK if quick else 1_000_000),
        "memory": partial(memory, 150_000 if quick else 300_000),
        "large": partial(large, 300_000 if quick else 1_000_000),
    }
    goals, details = [], {}
    for name in args.only or parts:
        found, details[name] = parts[name]()
        goals += found
        for one in found:
            mark = "ok" if one["ok"] else "MISSED"
            print(f"{one['name']:75}{one['value']:9.3f} {one['op']} {one['required']} {mark}")
        print(f"  {json.dumps(details[name], default=str)}", flush=True)
    result = {
        "goals": goals,
        "details": details,
        "seed": SEED,
        "is_quick": quick,
        "versions": {p: version(p) for p in ("numpy", "scipy", "threadpoolctl")},
        "machine": {"processors": os.cpu_count(), "platform": platform.platform()},
    }
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=2))
    return 0 if all(one["ok"] for one in goals) else 1


if __name__ == "__main__":
    sys.exit(main())
