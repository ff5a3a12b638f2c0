import json
from pathlib import Path

import numpy as np
import pytest

from faultlens.errors import SolverError
from faultlens.files import load_arrays
from faultlens.spec import certificate as checker
from faultlens.spec.branch import Branch, refutes
from faultlens.spec.certify import Claim, is_shown, write_certificate
from faultlens.spec.exact import Witness
from faultlens.spec.formula import FALSE, TRUE, AtLeast, Comparison, all_of, any_of, negate
from faultlens.spec.proof import Leaf, Phase, Split
from faultlens.spec.region import Body, Readout, Region, Shape
from proving import KINDS, decide, random_claim

ONE = np.ones(1, np.float32)
NONE = np.empty((0, 1), np.float32)
BOX = Region("box", (Body(Shape.BOX, 0 * ONE, None, ONE, 2 * ONE),), NONE, NONE[:, 0])
LINE = Readout(ONE[None], 0 * ONE, (ONE[None],), (0 * ONE,))
BIG = Comparison(((0, 1.0),))
HUGE = Comparison(((0, 1.0),), -1.5)


def test_a_certificate_is_small_and_its_arrays_are_written_once(tmp_path: Path) -> None:
    proved = Claim("PROVED", BIG, TRUE, BOX, LINE)
    refuted = Claim("REFUTED", HUGE, TRUE, BOX, LINE)
    first = write_certificate(tmp_path, "big", proved, Leaf(((0, 1.0),)), {"text": "big > 0"})
    second = write_certificate(tmp_path, "huge", refuted, Witness(ONE), {})
    assert first.stat().st_size < 800
    assert len(list(tmp_path.glob("*.safetensors"))) == 3  # readout, region, witness
    assert json.loads(first.read_bytes())["unchecked"] == {"name": "big", "text": "big > 0"}
    assert checker.main([str(first), str(second)]) == 0
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    write_certificate(tmp_path, "big", proved, Leaf(((0, 1.0),)), {"text": "big > 0"})
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_arrays_that_were_deleted_are_written_again(tmp_path: Path) -> None:
    claim = Claim("PROVED", BIG, TRUE, BOX, LINE)
    path = write_certificate(tmp_path, "a", claim, Leaf(((0, 1.0),)), {})
    for file in tmp_path.glob("*.safetensors"):
        file.unlink()
    assert checker.main([str(path)]) == 2
    write_certificate(tmp_path, "a", claim, Leaf(((0, 1.0),)), {})
    assert checker.main([str(path)]) == 0


def test_names_become_file_names_that_stay_apart(tmp_path: Path) -> None:
    claim = Claim("PROVED", BIG, TRUE, BOX, LINE)
    names = ["s[a=wheels,b=ears]", "../up", "a/b", "a:b", "ä b", "x" * 300, ""]
    paths = [write_certificate(tmp_path, n, claim, Leaf(((0, 1.0),)), {}) for n in names]
    assert paths[0].name == "s[a=wheels,b=ears].json"
    assert len(set(paths)) == len(names)
    assert {p.parent for p in paths} == {tmp_path}
    assert checker.main([str(p) for p in paths]) == 0


@pytest.mark.parametrize(
    ("verdict", "goal", "evidence"),
    [
        ("PROVED", HUGE, Leaf(((0, 1.0),))),
        ("PROVED", BIG, Leaf(((0, 0.0),))),
        ("PROVED", BIG, Leaf(((0, -1.0),))),
        ("PROVED", BIG, Leaf(((0, float("nan")),))),
        ("PROVED", BIG, Leaf(((1, 1.0),))),
        ("PROVED", BIG, Leaf(((0, 1.0), (0, 1.0)))),
        ("PROVED", BIG, Leaf(((0, 1.0),), ((0, 1.0),))),
        ("PROVED", BIG, Leaf(((0, 1.0),), body=1)),
        ("PROVED", BIG, Split(0, Leaf(), Leaf())),
        ("PROVED", BIG, Phase(0, 0, Leaf(), Leaf())),
        ("PROVED", BIG, Witness(ONE)),
        ("VACUOUS", BIG, Leaf(((0, 1.0),))),
        ("REFUTED", BIG, Witness(ONE)),
        ("REFUTED", BIG, Leaf(((0, 1.0),))),
        ("REFUTED", HUGE, Witness(0 * ONE)),
        ("UNKNOWN", BIG, Leaf(((0, 1.0),))),
    ],
)
def test_evidence_that_shows_nothing_is_not_certified(
    tmp_path: Path, verdict: str, goal: Comparison, evidence: Leaf | Witness
) -> None:
    claim = Claim(verdict, goal, TRUE, BOX, LINE)
    assert not is_shown(claim, evidence)
    with pytest.raises(SolverError, match="must show"):
        write_certificate(tmp_path, "x", claim, evidence, {})
    assert list(tmp_path.iterdir()) == []


def test_a_tie_proves_only_against_a_strict_comparison(tmp_path: Path) -> None:
    at_least_one = Comparison(((0, 1.0),), -1.0, is_strict=False)
    more_than_one = Comparison(((0, 1.0),), -1.0)
    proof = Leaf(((0, 1.0),))
    assert is_shown(Claim("PROVED", at_least_one, TRUE, BOX, LINE), proof)
    assert not is_shown(Claim("PROVED", more_than_one, TRUE, BOX, LINE), proof)
    assert is_shown(Claim("REFUTED", more_than_one, TRUE, BOX, LINE), Witness(ONE))


def test_a_radius_that_is_no_float32_keeps_its_value(tmp_path: Path) -> None:
    ball = Region("ball", (Body(Shape.BALL, 2 * ONE, radius=0.1),), NONE, NONE[:, 0])
    claim = Claim("PROVED", Comparison(((0, 1.0),), -1.9 + 1e-12), TRUE, ball, LINE)
    path = write_certificate(tmp_path, "a", claim, Leaf(((0, 1.0),)), {})
    assert checker.check(path) == "PROVED"
    arrays, _ = load_arrays(tmp_path / f"{json.loads(path.read_bytes())['region']}.safetensors")
    assert arrays["radius_0"].tolist() == [0.1]


def test_an_empty_region_is_vacuous_by_its_half_spaces(tmp_path: Path) -> None:
    empty = Region("none", BOX.bodies, -ONE[None], 0 * ONE)  # z in [1, 2] and -z >= 0
    claim = Claim("VACUOUS", HUGE, TRUE, empty, LINE)
    path = write_certificate(tmp_path, "a", claim, Leaf((), ((0, 1.0),)), {})
    assert checker.check(path) == "VACUOUS"


def test_an_impossible_hypothesis_closes_its_branch(tmp_path: Path) -> None:
    claim = Claim("VACUOUS", BIG, FALSE, BOX, LINE)
    assert checker.check(write_certificate(tmp_path, "a", claim, Leaf(), {})) == "VACUOUS"


def test_places_are_counted_as_the_rules_say() -> None:
    a, b, c = (Comparison(((0, 1.0),), float(k)) for k in range(3))
    branch = Branch().asserting(all_of(a, any_of(b, c), AtLeast(2, (a, b, c)), TRUE))
    assert branch.comparisons == (a,)
    assert branch.choices == (any_of(b, c), AtLeast(2, (a, b, c)))
    then, other = branch.split(1)
    assert then.comparisons == (a, a)
    assert then.choices == (any_of(b, c), None, AtLeast(1, (b, c)))
    assert other.comparisons == (a, b, c)
    assert other.choices == (any_of(b, c), None)
    with pytest.raises(IndexError):
        then.split(1)
    assert Branch().asserting(AtLeast(3, (a, b))).is_closed


def test_a_relu_head_needs_its_triangle_or_its_phases() -> None:
    # logit = relu(z) - relu(z / 2) + relu(-z / 2) = |z| / 2 over [-1, 1].
    rows = np.array([[1], [0.5], [-0.5]], np.float32)
    last = np.array([[1, -1, 1]], np.float32)
    head = Readout(NONE, NONE[:, 0], (rows, last), (np.zeros(3, np.float32), 0 * ONE))
    box = Region("box", (Body(Shape.BOX, 0 * ONE, None, -ONE, ONE),), NONE, NONE[:, 0])
    violated = negate(Comparison(((0, -1.0),), 0.8))  # logit >= 0.8
    # (z + 1) / 2 - y0 >= 0, half of y1 >= 0 and of y1 - z / 2 >= 0, (1 - z) / 4 - y2 >= 0.
    proof = Leaf(((2, 0.5), (3, 0.5), (4, 0.5), (8, 1.0), (9, 1.0)))
    assert refutes(proof, violated, box, head)
    tight = negate(Comparison(((0, -1.0),), 0.75))  # the sum is then 0, and nothing is strict
    assert not refutes(proof, tight, box, head)
    assert not refutes(Leaf(((9, 1.0),)), violated, box, head)


@pytest.mark.parametrize("hidden", [(), (2,), (2, 2)])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_shown_here_is_accepted_there(
    tmp_path: Path, kind: str, hidden: tuple[int, ...]
) -> None:
    rng = np.random.default_rng([len(hidden), KINDS.index(kind)])
    shown = 0
    while shown < 3:
        decided = decide(random_claim(rng, kind, hidden))
        if decided is None or not is_shown(*decided):
            continue
        shown += 1
        path = write_certificate(tmp_path, f"spec {shown}", *decided, {"slack": float("nan")})
        assert checker.check(path) == decided[0].verdict
