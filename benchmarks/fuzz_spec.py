"""Fuzzing Con_spec: whatever is read, printed and grounded ends in a tree or in a SpecError.

OMP_NUM_THREADS=1 python benchmarks/fuzz_spec.py --json build/bench/fuzz_spec.json

Five cheap generators (changed bytes, soups of tokens, cut and spliced files, deep nesting, random
text), hypothesis over a grammar of fragments, and atheris guided by coverage in a process of its
own. Each input is parsed; what parses must survive printing, and is grounded in a small scope.
Seconds are the processor's.
"""

import argparse
import importlib.util
import itertools
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path

SEED = 0
SHARES = {"bytes": 25, "tokens": 25, "cuts": 15, "text": 5, "nesting": 2, "hypothesis": 8}
N_GROUNDED = 20  # cases of one input

WORDS = """
class concept let region spec on given margin confidence at expect where in forall exists not and
xor or true false min max concepts classes relevant irrelevant x a b wheels ears truck dog predict
top str hasCon logit R S m box nonneg gamma proved ( ) ( ) { } , , : ; ; ; = > > < >= <= != => ->
<=> ! & && | || + - * ∧ ∨ ¬ ∀ ∃ ∈ ⇒ ⇔ ≥ ≤ ≠ ⊕ − 0 1 .5 1e3 1e999 0.1 "long-snout" "x #c
"""
TOKENS = [*WORDS.split(), '"long snout"', "\n"]
SEEDS = [
    "predict(truck) => wheels > ears;",
    'min{wheels, metallic} > max{ears, "long snout"};',
    "let m(p, q) = >(x, p, q) and not q >= p; m(wheels, ears);",
    "let S = {wheels, ears}; exists a in S, b in concepts where a != b and b not in S: a > b + .1;",
    "spec s: forall k in classes, a in relevant(k), b in irrelevant(k): predict(k) => a > b;",
    "region R = box(gamma=.5) & nonneg; spec s on R(truck) given predict(truck) margin .1 "
    "confidence .95 at .99 expect proved: hasCon(wheels, >= .2) xor top(2, dog) <=> true;",
    "class truck, dog; concept wheels; # note\n2*logit(truck) >= logit(dog) or ¬(wheels > 0);",
]


class Probe:
    """Judges inputs and remembers those that ended in anything but a tree or a SpecError."""

    def __init__(self):
        import numpy as np

        from faultlens.spec.ground import Scope

        concepts = ("wheels", "metallic", "ears", "long snout", "a", "b")
        relevant = np.array([[1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0]], bool)
        self.scope = Scope(concepts, ("truck", "dog"), np.zeros(6), relevant)
        self.outcomes, self.crashes = Counter(), []
        self.slowest, self.slowest_text = 0.0, ""

    def __call__(self, text):
        from faultlens.errors import SpecError

        start = time.process_time()
        try:
            outcome = self.judge(text)
        except SpecError as e:
            outcome = type(e).__name__
        except Exception as e:
            outcome = "crash"
            self.crashes.append({"error": repr(e)[:300], "text": text[:2000]})
        self.outcomes[outcome] += 1
        seconds = time.process_time() - start
        if seconds > self.slowest:
            self.slowest, self.slowest_text = seconds, text[:300]

    def judge(self, text):
        from faultlens.spec.ground import ground
        from faultlens.spec.parse import parse
        from faultlens.spec.printer import render

        file = parse(text)
        if parse(render(file)) != file:
            raise ValueError("printed text reads as another tree")
        for _ in itertools.islice(ground(file, self.scope), N_GROUNDED):
            pass
        return "grounded"


def changed_bytes(rng):
    data = bytearray(rng.choice(SEEDS).encode())
    for _ in range(rng.randint(1, 8)):
        at = rng.randrange(len(data) + 1)
        choice = rng.randrange(4)
        if choice == 0:
            data[at:at] = bytes([rng.randrange(256)])
        elif choice == 1 and at < len(data):
            data[at] = rng.randrange(256)
        elif choice == 2:
            del data[at : at + rng.randint(1, 6)]
        else:
            data[at:at] = data[: rng.randint(0, 12)]
    return data.decode("utf-8", "replace")


def token_soup(rng):
    return rng.choice(["", " "]).join(rng.choices(TOKENS, k=rng.randint(1, 30))) + ";"


def cut_and_spliced(rng):
    one, two = rng.choice(SEEDS), rng.choice(SEEDS)
    return one[: rng.randrange(len(one) + 1)] + two[rng.randrange(len(two)) :]


OPENINGS = """
(
not
!(
a > b =>
a xor
{
forall a in S:
min{
predict(
a > b and (
-
2*
a +
let m =
"
"""
CLOSINGS = {"(": ")", "{": "}", '"': '"', "=": ";"}


def deep(rng):
    opening = rng.choice(OPENINGS.split("\n"))
    closing = CLOSINGS.get(opening[-1:], "")
    n = rng.choice([10, 60, 64, 65, 100, 1000])
    return f"{opening} " * n + "a > b" + closing * (n if rng.random() < 0.8 else n // 2) + ";"


def random_text(rng):
    highs = [128, 128, 0x2300, 0x110000]
    return "".join(chr(rng.randrange(rng.choice(highs))) for _ in range(rng.randint(0, 40)))


GENERATORS = {
    "bytes": changed_bytes,
    "tokens": token_soup,
    "cuts": cut_and_spliced,
    "text": random_text,
    "nesting": deep,
}


ATOMS = """a > b
predict(truck)
hasCon(ears)
m(a)
true
>(a, b)
min S > max{a}
top(1, dog)
wheels
2*a - b >= .5
logit(dog) > 0
a > b > wheels
str(a)"""
HEADS = """forall a in S:\x20
exists k in classes, b in relevant(k) where b != a:\x20
not\x20
("""


def with_hypothesis(probe, n):
    """Fragments of formulas, put together by hypothesis."""
    from hypothesis import HealthCheck, Phase, given, seed, settings
    from hypothesis import strategies as st

    atoms = st.sampled_from(ATOMS.split("\n"))
    heads = HEADS.split("\n")
    formulas = st.recursive(
        atoms,
        lambda f: st.one_of(
            st.builds("{} {} {}".format, f, st.sampled_from(["and", "=>", "xor", ">", ")"]), f),
            st.builds("{}{}".format, st.sampled_from(heads), f),
            st.builds("({})".format, f),
        ),
        max_leaves=8,
    )
    starts = ["", "let m(p) = ", "spec s: ", "spec s on R(*) given ", "let S = {a, b}; "]
    files = st.builds("{}{};".format, st.sampled_from(starts), formulas)

    @seed(SEED)
    @settings(
        max_examples=n,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(files)
    def run(text):
        probe(text)

    run()


def summary(probe, n, seconds):
    return {
        "n": n,
        "seconds": seconds,
        "outcomes": dict(probe.outcomes),
        "n_crashes": probe.outcomes["crash"],
        "crashes": probe.crashes[:20],
        "slowest_s": probe.slowest,
        "slowest": probe.slowest_text,
    }


def run_atheris(n, out):
    """Run in a process of its own: libFuzzer ends it."""
    import atheris

    with atheris.instrument_imports(include=["faultlens.spec", "lark"]):
        import faultlens.spec.ground
        import faultlens.spec.parse
        import faultlens.spec.printer  # noqa: F401
    probe, start, state = Probe(), time.process_time(), {"n": 0}

    def one(data):
        text = atheris.FuzzedDataProvider(data).ConsumeUnicode(len(data))
        probe(data.decode("utf-8", "replace") if data[:1] < b"\x80" else text)
        state["n"] += 1
        if state["n"] >= n or state["n"] % 1000 == 0:
            done = summary(probe, state["n"], time.process_time() - start)
            Path(out).write_text(json.dumps(done))

    with tempfile.TemporaryDirectory() as corpus:
        for i, text in enumerate(SEEDS):
            (Path(corpus) / str(i)).write_text(text, encoding="utf-8")
        words = [w for w in WORDS.split() if w.isascii() and '"' not in w]
        listing = Path(corpus).parent / f"{Path(corpus).name}.dict"
        listing.write_text("".join(f'"{w}"\n' for w in words))
        options = [f"-runs={n}", f"-seed={SEED + 1}", "-max_len=400", f"-dict={listing}"]
        atheris.Setup([sys.argv[0], *options, "-verbosity=0", corpus], one)
        atheris.Fuzz()


def atheris_part(n):
    """Return the summary of a run in another process; None where atheris is not installed."""
    if importlib.util.find_spec("atheris") is None:
        print("atheris is not installed, its part is left out; run: pip install atheris")
        return None
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "atheris.json"
        command = [sys.executable, __file__, "--atheris", str(n), "--out", str(out)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if not out.exists():
            raise SystemExit(f"atheris broke down:\n{done.stderr[-2000:]}")
        return json.loads(out.read_text())


def goal(name, value, op, required, aim=None):
    ok = value <= required if op == "<=" else value >= required
    return {"name": name, "value": value, "op": op, "required": required, "aim": aim, "ok": ok}


def run_generators(n):
    """Return a summary of every generator; inputs that are left over go to atheris."""
    parts = {}
    for name, share in SHARES.items():
        probe, start, count = Probe(), time.process_time(), n * share // 100
        if name == "hypothesis":
            with_hypothesis(probe, count)
        else:
            rng = random.Random(f"{SEED}/{name}")
            for _ in range(count):
                probe(GENERATORS[name](rng))
        parts[name] = summary(probe, probe.outcomes.total(), time.process_time() - start)
        print(row(name, parts[name]), flush=True)
    guided = atheris_part(n - sum(part["n"] for part in parts.values()))
    if guided:
        parts["atheris"] = guided
        print(row("atheris", guided))
    return parts


def row(name, part):
    n = max(part["n"], 1)
    text = f"{name:<12}{n:>9}{n / part['seconds']:>10.0f}"
    text += f"{part['outcomes'].get('grounded', 0) / n:>10.1%}{part['slowest_s']:>8.2f}s"
    crashes = "".join(f"\n  {c['error']}\n    {c['text'][:200]!r}" for c in part["crashes"][:3])
    return f"{text}{part['n_crashes']:>9}{crashes}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--quick", action="store_true", help="a fiftieth of the inputs")
    parser.add_argument("--atheris", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--out", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.atheris:
        return run_atheris(args.atheris, args.out)
    n = args.inputs // 50 if args.quick else args.inputs
    print("generator      inputs  a second  grounded  slowest  crashes")
    parts = run_generators(n)
    total, seconds, crashes = (
        sum(part[key] for part in parts.values()) for key in ("n", "seconds", "n_crashes")
    )
    print(f"{total} inputs, {total / seconds:.0f} a second, {crashes} crashes")
    goals = [goal("inputs that end in anything but a tree or a SpecError", crashes, "<=", 0, 0)]
    if n >= 1_000_000:
        goals.append(goal("fuzzed inputs", total, ">=", 1_000_000))
    for g in goals:
        mark = "ok " if g["ok"] else "NOT"
        print(f"{mark} {g['name']}: {g['value']} (required {g['op']} {g['required']})")
    if args.json:
        machine = f"{platform.machine()}, {os.cpu_count()} cores"
        versions = {name: version(name) for name in ("lark", "hypothesis")}
        details = {"goals": goals, "seed": SEED, "machine": machine, "versions": versions}
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(details | {"parts": parts}, indent=1))
    return None


if __name__ == "__main__":
    main()
