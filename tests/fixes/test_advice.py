"""Which fixes are tried for which finding, and when one is advised."""

from dataclasses import replace

import numpy as np
import pytest

from faultlens.finding import Finding
from faultlens.fixes import advice
from faultlens.fixes.trial import Material, Part
from faultlens.localize.swap import refit_head
from faultlens.models.head import Head

K, D = 4, 8


def draw(n, seed):
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(1).normal(size=(K, D))
    y = rng.integers(0, K, n)
    return (centres[y] + rng.normal(size=(n, D))).astype(np.float32), y


def best_head():
    """The best linear head there is: fitted on far more images than are analysed."""
    z, y = draw(8000, 999)
    fitted = refit_head(z, y, K, 1e-4)
    return Head((fitted.weight,), (fitted.bias,))


def material(head, seed, n=300):
    z, y = draw(n, seed)
    rows = np.arange(n)

    def part(held):
        own = rows[~held]
        fitted = refit_head(z[own], y[own], K, 1e-3)
        return Part(own, rows[held], np.eye(D), fitted.weight, fitted.bias)

    return Material(
        embeddings=z, labels=y, predictions=head(z).argmax(axis=1), strengths=z[:, :2],
        directions=np.eye(D)[:2], head=head, parts=tuple(part(rows % 5 == i) for i in range(5)),
        full=part(rows < 0), penalty=1e-3, classes=tuple("abcd"), concepts=("p", "q"),
    )  # fmt: skip


def finding(kind="localization.head", **evidence):
    return Finding("f", kind, "fault", "a", "…", 0.2, (0.1, 0.3), 100, 0.9, evidence=evidence)


HEAD = finding(classes=["a", "b"], concepts=[])
CUE = finding("localization.data", classes=["a"], cue="p", concepts=[])


def ids(head, *found):
    return [p.id for p in advice.proposals(material(head, 0), found)]


def test_each_kind_of_finding_calls_for_its_own_fixes():
    head = best_head()
    assert ids(head, HEAD) == ["refit", "rows-f", "bias-f"]
    assert ids(head, finding("localization.encoder", concepts=[])) == ["refit"]
    assert ids(head, replace(HEAD, severity="notice")) == []
    assert ids(head, finding("localization.shift")) == []
    assert ids(head, HEAD, CUE) == ["refit", "rows-f", "bias-f", "balanced-f", "fold-f"]


def test_a_chain_of_layers_can_only_be_refitted():
    head = best_head()
    chain = Head((np.eye(D), head.weight), (np.full(D, 50.0), head.bias))
    assert ids(chain, HEAD, CUE) == ["refit", "balanced-f"]
    m = material(chain, 0)
    [fix, *_] = advice.tried(m, advice.proposals(m, [HEAD]))
    assert fix.head is not None
    assert fix.head.is_linear


def test_a_sound_head_is_hardly_ever_mended():
    head = best_head()
    advised = 0
    for seed in range(20):
        m = material(head, seed)
        advised += any(f.is_advised for f in advice.tried(m, advice.proposals(m, [HEAD, CUE])))
    assert advised <= 2


def test_a_broken_head_is_mended_and_p_values_grow_with_what_is_tried():
    sound = best_head()
    weight = sound.weight.copy()
    weight[[0, 1]] = weight[[1, 0]]
    m = material(Head((weight,), (sound.bias,)), 3)
    alone = advice.tried(m, advice.proposals(m, [HEAD])[:1])
    together = {f.proposal.id: f for f in advice.tried(m, advice.proposals(m, [HEAD, CUE]))}
    assert alone[0].is_advised
    assert together["rows-f"].is_advised
    assert not together["fold-f"].is_advised
    assert together["refit"].overall.p_value > alone[0].overall.p_value
    assert together["refit"].overall.gain == alone[0].overall.gain


def test_trying_is_reported():
    m, seen = material(best_head(), 0), []
    advice.tried(m, advice.proposals(m, [HEAD]), lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("seed", [0, 1])
def test_the_same_material_gives_the_same_heads(seed):
    m = material(best_head(), seed)
    a, b = (advice.tried(m, advice.proposals(m, [HEAD, CUE])) for _ in range(2))
    for one, two in zip(a, b, strict=True):
        assert one.to_json() == two.to_json()
        np.testing.assert_array_equal(one.head.weight, two.head.weight)
