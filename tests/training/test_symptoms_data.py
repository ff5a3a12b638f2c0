"""What the loss, the settings and the epochs tell: each rule with a case and a near miss."""

from dataclasses import replace

import numpy as np
import pytest

from faultlens.training.diagnose import diagnose
from faultlens.training.reading import Reading
from faultlens.training.symptom import SYMPTOMS
from faultlens.training.trace import Evaluation, OptimizerInfo
from training_cases import (
    FALLING,
    INPUTS,
    NUMBERS,
    STUCK,
    curve,
    faults,
    first,
    network,
    parameters,
    trace,
)

PASSES = np.repeat(np.arange(10), 40)
BINARY = replace(NUMBERS, minimum=0, maximum=1, mean=0.5, std=0.5, integers=1, n_unique=2)


def signs(name, t):
    return SYMPTOMS.load(name)(Reading(t))


def stairs(fall, *, within=0.0, start=1.1):
    """Ten epochs; each is `fall` lower than the one before, of which `within` in its course."""
    steps = np.arange(400)
    level = start - fall * (PASSES + within * ((steps % 40) / 40 - 0.5))
    return level + 0.02 * np.random.default_rng(1).standard_normal(400)


def test_labels_are_left_when_a_training_ends_where_it_began():
    found, kinds = first(trace(STUCK, is_complete=True, epoch=PASSES))
    assert (found.symptom, found.place, kinds[0]) == ("not_learning", "data", "data_labels")


@pytest.mark.parametrize(
    "changes",
    [
        {},  # it goes on
        {"is_complete": True, "epoch": PASSES // 5},  # two passes over the rows
        {"is_complete": True},  # how many passes is unknown, and 400 steps are few
        {"is_complete": True, "epoch": PASSES, "baseline": np.nan},
    ],
)
def test_labels_are_only_noticed_before_that(changes):
    assert [(f.symptom, f.severity) for f in diagnose(trace(STUCK, **changes))] == [
        ("not_learning", "notice")
    ]


def test_another_cause_comes_before_the_labels():
    raw = replace(INPUTS, minimum=0, maximum=1e4, mean=5e3, std=3e3)
    kinds = first(trace(STUCK, inputs=raw, is_complete=True, epoch=PASSES))[1]
    assert kinds[0] == "data_scaling"
    assert "data_labels" not in kinds


def test_rows_learned_by_heart():
    found, kinds = first(trace(stairs(0.06), is_complete=True, epoch=PASSES))
    assert (found.symptom, kinds[0]) == ("memorized", "data_labels")
    for healthy in (
        stairs(0.06, within=1.0),  # as smooth as a loss falls that all rows lower
        stairs(0.06, start=0.95),  # below the trivial loss in the first pass already
        stairs(0.06, start=1.6),  # far above it: a bad start is made good
        stairs(0.0),
    ):
        assert signs("memorized", trace(healthy, is_complete=True, epoch=PASSES)) == []
    assert signs("memorized", trace(stairs(0.06), epoch=PASSES)) == []


def test_a_held_out_loss_that_never_falls():
    def held_out(*losses):
        rounds = enumerate(losses, 1)
        return trace(FALLING, evaluations=tuple(Evaluation(100 * k, k, x) for k, x in rounds))

    found, kinds = first(held_out(1.11, 1.2, 1.5, 2.0))
    assert (found.symptom, kinds[0]) == ("memorized", "data_labels")
    assert signs("memorized", held_out(0.9, 1.2, 1.5, 2.0)) == []  # overfitting, after a success
    assert signs("memorized", held_out(1.2, 1.5)) == []


def test_a_weak_end_is_blamed_on_what_stands_out():
    layers = network(("relu", "relu", "relu"))
    weak, good = (np.r_[np.linspace(1.1, x, 100), curve(300, x, x)] for x in (0.8, 0.3))
    found, kinds = first(trace(weak, layers, kind="cross_entropy", is_complete=True))
    assert (found.symptom, kinds[0]) == ("output_activation", "wrong_activation")
    assert faults(trace(weak, layers, kind="cross_entropy")) == []  # not over
    assert faults(trace(good, layers, kind="cross_entropy", is_complete=True)) == []
    assert faults(trace(weak, network(("relu", "relu", None)), kind="cross_entropy",
                        is_complete=True)) == []  # fmt: skip


def test_a_relapse():
    lost = np.r_[np.linspace(1.1, 0.6, 100), np.linspace(0.6, 1.2, 100), curve(200, 1.2, 1.2)]
    found, kinds = first(trace(lost, is_complete=True, epoch=PASSES))
    assert found.symptom == "relapse"
    assert set(kinds) == {"lr_too_high", "optimizer"}
    noise = curve(400, 1.1, 1.1, noise=0.3)
    assert signs("relapse", trace(noise, is_complete=True)) == []
    assert signs("relapse", trace(FALLING, is_complete=True)) == []


@pytest.mark.parametrize(
    ("optimizer", "is_odd"),
    [
        (OptimizerInfo("SGD", 0.1, momentum=0.9999), True),
        (OptimizerInfo("Adam", 1e-3, betas=(0.9999, 0.999)), True),
        (OptimizerInfo("SGD", 0.1, momentum=0.99), False),
        (OptimizerInfo("Adam", 1e-3, betas=(0.95, 0.999)), False),
    ],
)
def test_momentum(optimizer, is_odd):
    setup = {"optimizers": (optimizer,)}
    assert bool(signs("momentum", trace(setup=setup))) is is_odd
    assert faults(trace(FALLING, setup=setup)) == []
    if is_odd:
        assert first(trace(setup=setup))[1][0] == "optimizer"


def test_a_first_loss_far_above_the_trivial_one():
    layers = network()
    huge = (replace(layers[0], parameters=parameters(4, 16, std=50)), *layers[1:])
    shot = np.r_[2000.0, curve(399, 1.1, 1.1)]
    found = signs("first_loss", trace(shot, huge))
    assert set(found[0].kinds) == {"initialization"}
    assert found[0].layer.name == "0"
    raw = replace(INPUTS, maximum=1e4)
    assert set(signs("first_loss", trace(shot, inputs=raw))[0].kinds) == {"data_scaling"}
    assert signs("first_loss", trace(shot)) == []  # nothing explains it
    assert signs("first_loss", trace(STUCK, huge)) == []


def test_a_loss_that_is_turned_round():
    layers = network(("relu", "relu", "log_softmax"))
    kinds = first(trace(curve(50, -1, -40), layers, kind="nll"))[1]
    assert kinds[0] == "wrong_loss"
    assert "turned round" in signs("negative_loss", trace(-STUCK, kind="mse"))[0].told
    # Raw scores make this loss negative by themselves.
    raw = trace(curve(50, -1, -40), network(("relu", "relu", None)), kind="nll")
    assert "turned round" not in signs("negative_loss", raw)[0].told


def test_success_of_constant_outputs():
    layers, same = network(("relu", "relu", "relu")), {(5, "output_constant"): 1}
    _, kinds = first(trace(np.zeros(100), layers, same, kind="nll"))
    assert set(kinds) <= {"wrong_activation", "wrong_loss"}
    assert signs("constant_success", trace(STUCK, layers, same, kind="nll")) == []
    assert signs("constant_success", trace(FALLING, layers, kind="nll")) == []


def test_the_loss_of_counts():
    layers = network(("relu", None), (4, 8, 1))
    negative = trace(STUCK[:1], layers, targets=NUMBERS, kind="poisson")
    found, kinds = first(negative)
    assert (found.place, kinds[0]) == ("loss", "wrong_loss")
    labels = trace(STUCK, layers, targets=BINARY, kind="poisson")
    assert first(labels)[1][0] == "wrong_loss"
    assert faults(replace(labels, loss=FALLING)) == []
    counts = replace(NUMBERS, minimum=0, maximum=9, mean=3, integers=1)
    assert signs("count_loss", trace(layers=layers, targets=counts, kind="poisson")) == []


def test_a_chain_of_sigmoids():
    def chain(n):
        return trace(layers=network(("sigmoid",) * n + ("softmax",), (4,) * (n + 1) + (3,)))

    assert first(chain(6))[1][0] in ("vanishing", "wrong_activation")
    assert faults(chain(3)) == []
