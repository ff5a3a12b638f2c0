import ast
import importlib.util
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from faultlens.spec import certificate as checker
from faultlens.spec.certify import Claim, is_shown, write_certificate
from faultlens.spec.exact import Witness
from faultlens.spec.formula import TRUE, AtLeast, Comparison, Formula, any_of
from faultlens.spec.proof import Leaf, Split
from faultlens.spec.region import Body, Readout, Region, Shape
from proving import KINDS, decide, random_claim

SOURCE = Path(checker.__file__)
ROOT = Path(__file__).parents[2]
ONE = np.ones(1, np.float32)
NONE = np.empty((0, 1), np.float32)
BOX = Region("box", (Body(Shape.BOX, 0 * ONE, None, ONE, 2 * ONE),), NONE, NONE[:, 0])
LINE = Readout(ONE[None], 0 * ONE, (ONE[None],), (0 * ONE,))
BIG = Comparison(((0, 1.0),))
LINES = 190  # of code


@pytest.fixture(scope="module")
def mutate() -> ModuleType:
    path = ROOT / "benchmarks" / "verifying" / "mutate.py"
    spec = importlib.util.spec_from_file_location("mutate", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["mutate"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Small certificates of every verdict, kind of region and kind of head."""
    folder, rng = tmp_path_factory.mktemp("certificates"), np.random.default_rng(0)
    paths, wanted = [], Counter[Any]()
    while len(paths) < 40:
        kind, hidden = str(rng.choice(KINDS)), [(), (), (2,), (2, 2)][int(rng.integers(4))]
        decided = decide(random_claim(rng, kind, hidden))
        if decided is None or not is_shown(*decided):
            continue
        key = (decided[0].verdict, bool(hidden))
        if wanted[key] < 7:
            wanted[key] += 1
            paths.append(write_certificate(folder, f"s{len(paths)}", *decided, {}))
    tie = Claim("PROVED", Comparison(((0, 1.0),), -1.0, False), TRUE, BOX, LINE)
    return [*paths, write_certificate(folder, "tie", tie, Leaf(((0, 1.0),)), {})]


@pytest.fixture
def proved(tmp_path: Path) -> Path:
    claim = Claim("PROVED", any_of(BIG, BIG), TRUE, BOX, LINE)
    return write_certificate(tmp_path, "a", claim, Leaf(((0, 1.0),)), {"text": "a"})


@pytest.fixture
def refuted(tmp_path: Path) -> Path:
    claim = Claim("REFUTED", Comparison(((0, -1.0),)), TRUE, BOX, LINE)
    return write_certificate(tmp_path, "r", claim, Witness(ONE), {})


def change(path: Path, **values: Any) -> Path:
    document = json.loads(path.read_bytes())
    document.update(values)
    changed = path.with_name("changed.json")
    changed.write_text(json.dumps(document))
    return changed


def reason(path: Path, capsys: pytest.CaptureFixture[str], code: int = 1) -> str:
    assert checker.main([str(path)]) == code
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    return out


def test_it_needs_the_standard_library_only() -> None:
    names = set()
    for node in ast.walk(ast.parse(SOURCE.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            names.add(node.module)
    assert {name.split(".")[0] for name in names} <= sys.stdlib_module_names


def test_its_code_can_be_read_at_one_sitting() -> None:
    tree = ast.parse(SOURCE.read_text())
    texts = [n for n in ast.walk(tree) if isinstance(n, ast.Module | ast.FunctionDef)]
    docs = {
        line
        for n in texts
        if ast.get_docstring(n)
        for line in range(n.body[0].lineno, n.body[0].end_lineno + 1)
    }
    lines = enumerate(SOURCE.read_text().splitlines(), 1)
    assert sum(1 for i, text in lines if text.strip() and i not in docs) <= LINES


def test_a_copy_of_it_runs_alone(tmp_path: Path, proved: Path) -> None:
    copy = tmp_path / "elsewhere" / "checker.py"
    copy.parent.mkdir()
    copy.write_bytes(SOURCE.read_bytes())
    bad = change(proved, verdict="VACUOUS")
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(copy), str(proved), str(bad)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, "")
    accepted, rejected = done.stdout.splitlines()
    assert accepted == f"{proved}: accepted, PROVED"
    assert rejected.startswith(f"{bad}: rejected")


def test_files_that_are_absent_are_unreadable(
    proved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "unreadable" in reason(proved.with_name("none.json"), capsys, 2)
    assert "unreadable" in reason(change(proved, readout="0" * 64), capsys, 2)
    assert checker.main([]) == 2


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"format": "faultlens-certificate-2"}, "format"),
        ({"extra": 1}, "must have just"),
        ({"verdict": "UNKNOWN"}, "no verdict"),
        ({"shapes": "box"}, "format"),
        ({"shapes": []}, "more arrays"),
        ({"shapes": ["sphere"]}, "sphere"),
        ({"evidence": []}, "a case is missing"),
        ({"evidence": [[0, []]]}, "not closed"),
        ({"evidence": [[0, [[0, "0x0.0p+0"]]]]}, "not closed"),
        ({"evidence": [[0, [[2, "0x1.0000000000000p+0"]]]]}, "no comparison 2"),
        ({"evidence": [[0, [[True, "0x1.0000000000000p+0"]]]]}, "no comparison True"),
        ({"evidence": [[0, [[0, "-0x1.0000000000000p+0"]]]]}, "negative"),
        ({"evidence": [[0, [[0, "nan"]]]]}, "rejected"),
        ({"evidence": [[0, [[0, "inf"]]]]}, "rejected"),
        ({"evidence": [[0, [[0, 1.0]]]]}, "rejected"),
        ({"evidence": [[0, [[0, "1.0"]]]]}, "malformed"),
        ({"evidence": [[1, [[0, "0x1.0000000000000p+0"]]]]}, "no body 1"),
        ({"evidence": [[0], [0, []], [0, []]]}, "no choice 0"),
        ({"goal": [True, [[2, "0x1.0000000000000p+0"], [2, "0x1.0000000000000p+0"]]]}, "twice"),
        ({"goal": [True, [[3, "0x1.0000000000000p+0"]]]}, "no signal 3"),
        ({"goal": [1.0, []]}, "malformed"),
        ({"goal": None}, "rejected"),
    ],
)
def test_malformed_certificates_are_rejected_with_a_reason(
    proved: Path, capsys: pytest.CaptureFixture[str], values: dict[str, Any], message: str
) -> None:
    assert message in reason(change(proved, **values), capsys)


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_certificate_is_rejected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], data: bytes
) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(data)
    assert "rejected" in reason(path, capsys)


def test_the_unchecked_part_may_say_anything(proved: Path) -> None:
    assert checker.main([str(change(proved, unchecked={"slack": -1, "text": "false"}))]) == 0


def test_a_changed_array_file_is_found(proved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    digest = json.loads(proved.read_bytes())["region"]
    path = proved.with_name(f"{digest}.safetensors")
    data = path.read_bytes()
    assert checker.main([str(proved)]) == 0
    capsys.readouterr()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert "another SHA-256" in reason(proved, capsys)


def test_the_goal_is_negated_by_the_checker(proved: Path) -> None:
    """The same proof fails for the opposite goal, and for a goal that is not strict at a tie."""
    opposite = [1, [[True, [[0, (-1.0).hex()]]]] * 2]
    assert checker.main([str(change(proved, goal=opposite))]) == 1
    tie = [[0, (1.0).hex()], [2, (-1.0).hex()]]
    assert checker.main([str(change(proved, goal=[False, tie]))]) == 0
    assert checker.main([str(change(proved, goal=[True, tie]))]) == 1


@pytest.mark.parametrize("own", [1, -1, True, False, 0.0, "0"])
def test_the_body_of_a_witness_must_exist(refuted: Path, own: Any) -> None:
    assert checker.main([str(refuted)]) == 0
    digest = json.loads(refuted.read_bytes())["evidence"][1]
    assert checker.main([str(change(refuted, evidence=[own, digest]))]) == 1


def test_deep_proofs_are_checked_without_recursion(tmp_path: Path) -> None:
    parts = tuple(Comparison(((0, 1.0),), float(k)) for k in range(1200))
    claim = Claim("PROVED", AtLeast(600, parts), TRUE, BOX, LINE)
    # 601 of 1200 would have to fail: assert one after the other, until all of the rest must.
    proof: Leaf | Split = Leaf(((0, 1.0),))
    for place in reversed(range(599)):
        proof = Split(place, Leaf(((0, 1.0),)), proof)
    path = write_certificate(tmp_path, "deep", claim, proof, {})
    assert checker.main([str(path)]) == 0
    cases = json.loads(path.read_bytes())["evidence"]
    assert len(cases) == 1199
    assert checker.main([str(change(path, evidence=cases[:-1]))]) == 1


def test_no_mutant_is_accepted(
    certificates: list[Path], mutate: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert checker.main([str(path) for path in certificates]) == 0
    battery = mutate.Battery(tmp_path / "mutants", np.random.default_rng(1))
    kinds, n_false = Counter[str](), 0
    for mutant in battery.mutants(certificates, 1000):
        code = checker.main([str(mutant.path)])
        assert code in (1, 2), (mutant.kind, mutant.path.read_bytes())
        kinds[mutant.kind] += 1
        n_false += mutant.is_false
    assert set(kinds) >= set(mutate.KINDS) - {"strictness"}  # which matters at a tie only
    assert n_false > 20
    assert sum(battery.harmless.values()) > 100


def test_harmless_changes_are_accepted_as_the_package_accepts_them(
    certificates: list[Path], mutate: ModuleType, tmp_path: Path
) -> None:
    """What the battery sets aside is valid: the two implementations agree both ways."""
    rng = np.random.default_rng(2)
    battery = mutate.Battery(tmp_path / "mutants", rng)
    agreed = 0
    for _ in range(400):
        before = sum(battery.harmless.values())
        kind = str(rng.choice(["digit", "scale", "strictness", "constant", "count", "larger"]))
        battery.folder.mkdir(exist_ok=True)
        mutant = battery._mutant(certificates[int(rng.integers(len(certificates)))], kind)
        if mutant is None and sum(battery.harmless.values()) > before:
            assert checker.main([str(battery.folder / "mutant.json")]) == 0
            agreed += 1
    assert agreed > 100


def test_z3_agrees_with_accepted_certificates() -> None:
    z3 = pytest.importorskip("z3")
    rng, checked = np.random.default_rng(5), Counter[str]()
    for _ in range(100):
        claim = random_claim(rng, str(rng.choice(["box", "pcabox", "simplex"])))
        decided = decide(claim)
        if decided is None or not is_shown(*decided):
            continue
        verdict = decided[0].verdict
        solver = z3.Solver()
        signals = _signals(z3, solver, claim)
        solver.add(_meaning(z3, claim.given, signals))
        if verdict != "VACUOUS":
            solver.add(z3.Not(_meaning(z3, claim.goal, signals)))
        assert solver.check() == (z3.sat if verdict == "REFUTED" else z3.unsat)
        checked[verdict] += 1
    assert min(checked[v] for v in ("PROVED", "REFUTED", "VACUOUS")) > 10


def _signals(z3: ModuleType, solver: Any, claim: Claim) -> list[Any]:
    body, readout = claim.region.bodies[0], claim.readout
    rank = len(body.centre) if body.basis is None else body.basis.shape[1]
    basis = np.eye(rank) if body.basis is None else body.basis

    def q(x: float) -> Any:
        return z3.Q(*float(x).as_integer_ratio())

    u = [z3.Real(f"u{i}") for i in range(rank)]
    if body.shape is Shape.SIMPLEX:
        solver.add(z3.Sum(u) == 1, *(x >= 0 for x in u))
    else:
        solver.add(*(x >= q(a) for x, a in zip(u, body.lower, strict=True)))
        solver.add(*(x <= q(a) for x, a in zip(u, body.upper, strict=True)))

    def affine(rows: np.ndarray, offsets: np.ndarray, x: list[Any]) -> list[Any]:
        return [
            z3.Sum([q(a) * v for a, v in zip(row, x, strict=True)]) + q(b)
            for row, b in zip(rows, offsets, strict=True)
        ]

    z = affine(basis, body.centre, u)
    solver.add(*(v >= 0 for v in affine(claim.region.weights, claim.region.offsets, z)))
    concepts = affine(readout.concept_rows, readout.concept_offsets, z)
    return concepts + affine(readout.head_weights[0], readout.head_biases[0], z)


def _meaning(z3: ModuleType, formula: Formula, signals: list[Any]) -> Any:
    if isinstance(formula, Comparison):
        total = z3.Q(*formula.constant.as_integer_ratio())
        for signal, weight in formula.terms:
            total = total + z3.Q(*weight.as_integer_ratio()) * signals[signal]
        return total > 0 if formula.is_strict else total >= 0
    parts = [z3.If(_meaning(z3, part, signals), 1, 0) for part in formula.parts]
    return z3.Sum([*parts, 0]) >= formula.n
