"""Every symptom family: a planted case is found, its healthy twin stays silent."""

from dataclasses import replace

import numpy as np
import pytest

from faultlens.training.diagnose import diagnose
from faultlens.training.reading import Reading
from faultlens.training.symptom import SYMPTOMS
from faultlens.training.trace import Evaluation, LayerInfo, OptimizerInfo, Setup, Trace
from training_cases import (
    FALLING,
    INPUTS,
    NUMBERS,
    ONE_HOT,
    STUCK,
    curve,
    faults,
    first,
    network,
    parameters,
    trace,
)


def test_healthy_parts_are_silent_whatever_the_loss_does():
    assert faults(trace(FALLING)) == []
    stuck = diagnose(trace(STUCK))
    assert [(f.symptom, f.severity) for f in stuck] == [("not_learning", "notice")]


@pytest.mark.parametrize("name", list(SYMPTOMS))
def test_no_symptom_of_a_healthy_training(name):
    assert SYMPTOMS.load(name)(Reading(trace(FALLING))) == []
    assert SYMPTOMS.load(name)(Reading(Trace(Setup(), ()))) == []


@pytest.mark.parametrize(
    ("stats", "inputs", "phase", "layer"),
    [
        ({(2, "output_nan"): 1, (4, "output_nan"): 1}, INPUTS, "forward", "2"),
        ({(2, "weight_gradient_bad"): 1, (0, "weight_gradient_bad"): 1}, INPUTS, "backward", "2"),
        ({(4, "weight_bad"): 3}, INPUTS, "update", "4"),
        ({}, replace(INPUTS, n_nan=5), "data", None),
    ],
)
def test_origin_of_nan(stats, inputs, phase, layer):
    planted = {k: np.r_[np.zeros(5), np.full(25, v)] for k, v in stats.items()}
    found, kinds = first(trace(FALLING[:400], stats=planted, inputs=inputs))
    assert (found.symptom, found.phase, found.layer) == ("nonfinite", phase, layer)
    assert kinds[0] == "numeric_nan"
    assert found.step == (6 if layer else 1)


def test_nan_loss_after_growth_is_divergence():
    loss = np.r_[1.1, 9, 1e4, 1e9, np.nan, np.nan]
    _, kinds = first(trace(loss))
    assert set(kinds) == {"lr_too_high", "exploding"}
    found, kinds = first(trace(np.r_[1.1, 1.0, 1.1, np.nan]))
    assert found.phase == "loss"
    assert found.step == 4
    assert kinds[0] == "numeric_nan"


def test_exploding_gradients():
    grown = np.geomspace(0.1, 1e4, 30)
    t = trace(curve(400, 1.1, 40), stats={(None, "weight_gradient_norm"): grown})
    assert {"lr_too_high", "exploding"} == set(first(t)[1])
    assert faults(replace(t, loss=FALLING)) == []


SIGMOIDS = network(("sigmoid", "sigmoid", "softmax"))
VANISHED = {(0, "weight_gradient_mean_abs"): 1e-8, (0, "update_ratio"): 1e-7}


def test_vanishing_gradients():
    found, kinds = first(trace(layers=SIGMOIDS, stats=VANISHED))
    assert kinds[0] == "vanishing"
    assert found.layer in ("0", "1")
    assert faults(trace(FALLING, layers=SIGMOIDS, stats=VANISHED)) == []


def test_dead_units():
    found, kinds = first(trace(stats={(3, "output_dead"): 1}))
    assert (found.symptom, found.layer_index, kinds[0]) == ("dead_units", 3, "dead_relu")
    assert faults(trace(FALLING, stats={(3, "output_dead"): 1})) == []
    assert faults(trace(stats={(3, "output_dead"): 0.6})) == []


def test_a_dead_path_needs_no_patience():
    assert first(trace(STUCK[:15], stats={(3, "output_dead"): 1}))[0].symptom == "dead_units"


def test_units_killed_by_a_spike_are_put_down_to_the_step_size():
    loss = np.r_[1.1, 60, 30, STUCK]
    _, kinds = first(trace(loss, stats={(1, "output_dead"): 1, (3, "output_dead"): 1}))
    assert kinds[0] == "lr_too_high"


def test_saturation():
    wide = replace(INPUTS, minimum=0, maximum=2e4, mean=1e4, std=5e3)
    stats = {(1, "output_saturated"): 0.99}
    found, kinds = first(trace(layers=SIGMOIDS, stats=stats, inputs=wide))
    assert kinds[0] == "data_scaling"
    assert found.place == "data"
    assert faults(trace(FALLING, layers=SIGMOIDS, stats=stats, inputs=wide)) == []
    # A saturated output layer is what success looks like.
    assert faults(trace(FALLING, stats={(5, "output_saturated"): 1})) == []


def test_constant_output():
    assert first(trace(stats={(5, "output_constant"): 1}))[0].symptom == "constant_output"
    late = np.arange(30) > 10  # of sorted rows, say
    assert faults(trace(FALLING, stats={(5, "output_constant"): late})) == []


def test_unchanged_weights():
    still = {(None, "parameters_unchanged"): 1.0}
    found, kinds = first(trace(stats=still))
    assert (found.symptom, found.place, kinds[0]) == (
        "unchanged_weights",
        "optimizer",
        "lr_too_low",
    )
    zero = {(None, n): 0 for n in ("weight_gradient_max_abs", "weight_gradient_norm")}
    assert first(trace(stats=still | zero))[1][0] == "vanishing"


def test_unreached_layers():
    cut = {(k, n): 0 for k in (0, 2) for n in ("weight_gradient_norm", "output_gradient_norm")}
    found, kinds = first(trace(stats=cut))
    assert (found.symptom, found.layer, kinds[0]) == ("unreached_layers", "2", "frozen")
    assert faults(trace(FALLING, stats=cut)) == []


def test_a_cut_path_is_told_while_the_loss_says_little():
    cut = {(k, n): 0 for k in (0, 2) for n in ("weight_gradient_norm", "output_gradient_norm")}
    found, _ = first(trace(curve(60, 1.1, 1.1), stats=cut))
    assert (found.symptom, found.layer) == ("unreached_layers", "2")
    # An output beside the path that the loss does not read leaves the layers before it alone.
    aside = {(2, n): 0 for n in ("weight_gradient_norm", "output_gradient_norm")}
    assert faults(trace(curve(60, 1.1, 1.1), stats=aside)) == []
    # Frozen on purpose.
    assert faults(trace(curve(60, 1.1, 1.1), stats=cut, layers=frozen_network("02"))) == []


NOT_STEPPED = {(None, n): np.nan for n in ("update_norm", "update_ratio", "parameters_unchanged")}


def test_an_optimizer_that_never_steps():
    found, kinds = first(trace(curve(30, 1.1, 1.1), stats=NOT_STEPPED))
    assert (found.symptom, found.place, kinds) == (
        "unchanged_weights", "optimizer", ["optimizer", "frozen"],
    )  # fmt: skip
    assert "never called" in found.claim
    assert faults(trace(curve(15, 1.1, 1.1), stats=NOT_STEPPED)) == []
    # Batches of one accumulated step, or weights that change without the optimizer's word.
    n = len(trace(curve(30, 1.1, 1.1)).recorded)
    growing = {(None, "weight_gradient_norm"): np.linspace(0.1, 3, n)}
    assert faults(trace(curve(30, 1.1, 1.1), stats=NOT_STEPPED | growing)) == []
    moving = {(None, "weight_norm"): np.linspace(5, 6, n)}
    assert faults(trace(curve(30, 1.1, 1.1), stats=NOT_STEPPED | moving)) == []


def test_gradients_that_are_never_set_back():
    n = len(trace(FALLING).recorded)
    growing = {(2, "bias_gradient_norm"): np.geomspace(0.1, 30, n)}
    found, kinds = first(trace(FALLING, stats=growing))
    assert (found.symptom, kinds[0], found.place) == (
        "accumulated_gradients", "optimizer", "optimizer",
    )  # fmt: skip
    # A fixed factor is that of several batches a step; a norm that only grows less small is none.
    assert faults(trace(FALLING, stats={(2, "bias_gradient_norm"): 30.0})) == []
    both = growing | {(2, "output_gradient_norm"): np.geomspace(0.1, 30, n)}
    assert faults(trace(FALLING, stats=both)) == []


def frozen_network(names):
    return tuple(
        replace(x, parameters=tuple(replace(p, trainable=False) for p in x.parameters))
        if x.name in names else x
        for x in network()
    )  # fmt: skip


def test_frozen_layers():
    found, kinds = first(trace(STUCK[:1], layers=frozen_network("024")))
    assert (found.symptom, kinds[0]) == ("frozen_layers", "frozen")
    # Fine-tuning freezes most of a network on purpose.
    assert faults(trace(FALLING, layers=frozen_network("02"))) == []


def test_next_to_nothing_is_trained():
    layers = list(frozen_network("02"))
    weight, bias = layers[4].parameters
    layers[4] = replace(layers[4], parameters=(replace(weight, trainable=False), bias))
    found, kinds = first(trace(STUCK, layers=tuple(layers)))
    assert (found.symptom, kinds[0]) == ("frozen_layers", "frozen")
    assert faults(trace(FALLING, layers=tuple(layers))) == []


def constant_network(names, *, biases=True):
    """Layers whose weights, and biases if asked for, start at one value."""

    def constant(x):
        weight, bias = x.parameters
        bias = replace(bias, is_constant=biases)
        return replace(x, parameters=(replace(weight, is_constant=True, std=0), bias))

    return tuple(constant(x) if x.name in names else x for x in network())


def test_equal_units_are_told_at_once():
    found, kinds = first(trace(STUCK[:1], layers=constant_network("024")))
    assert (found.symptom, kinds[0], found.layer) == ("initial_values", "initialization", "0")
    # Other layers, or different biases, tell the units apart.
    assert faults(trace(FALLING, layers=constant_network("2"))) == []
    assert faults(trace(FALLING, layers=constant_network("024", biases=False))) == []


def test_step_size():
    large = {(None, "update_ratio"): 0.8}
    found, kinds = first(trace(curve(400, 1.1, 3, 0.3), stats=large))
    assert (found.place, kinds[0]) == ("optimizer", "lr_too_high")
    assert faults(trace(FALLING, stats=large)) == []
    found, kinds = first(trace(stats={(None, "update_ratio"): 1e-8}))
    assert (found.place, kinds[0]) == ("optimizer", "lr_too_low")
    # Slow but sure is learning.
    slow = {(None, "update_ratio"): 1e-5}
    assert faults(trace(curve(400, 1.15, 1.0), stats=slow)) == []


def test_divergence():
    assert first(trace(curve(400, 1.1, 30)))[1][0] == "lr_too_high"
    spike = np.r_[1.1, 200, np.geomspace(100, 0.3, 300)]
    assert faults(trace(spike)) == []


def test_oscillation():
    swing = 1.6 + 0.8 * (-1.0) ** np.arange(400)
    signs = SYMPTOMS.load("oscillation")(Reading(trace(swing)))
    assert [s.symptom for s in signs] == ["oscillation"]
    # Independent noise of single batches is no swing.
    noise = np.abs(1 + np.random.default_rng(0).standard_normal(400))
    assert SYMPTOMS.load("oscillation")(Reading(trace(noise))) == []


def test_unfinished():
    slowing = 0.75 + 0.35 * np.geomspace(1, 0.1, 200) + curve(200, 0, 0, 0.003)
    t = trace(slowing, is_complete=True)
    assert set(first(t)[1]) == {"lr_too_low", "epochs"}
    assert faults(replace(t, is_complete=False)) == []
    assert faults(trace(FALLING, is_complete=True)) == []
    # Well below the trivial loss, at an undiminished pace: merely short.
    assert faults(trace(curve(60, 1.12, 0.75), is_complete=True)) == []


def test_overfitting_is_a_notice():
    losses = (0.9, 0.6, 0.62, 0.7, 0.8, 0.95)
    held_out = tuple(Evaluation(50 * k, k, v) for k, v in enumerate(losses, 1))
    found = diagnose(trace(FALLING, evaluations=held_out))
    assert [(f.symptom, f.severity, f.step) for f in found] == [("overfitting", "notice", 100)]


@pytest.mark.parametrize("scale", [255.0, 1e4])
def test_input_scale(scale):
    raw = replace(INPUTS, minimum=0, maximum=scale, mean=scale / 2, std=scale / 3)
    found, kinds = first(trace(inputs=raw))
    assert (found.place, found.phase, kinds[0]) == ("data", "data", "data_scaling")
    assert next(c.kind for c in found.repairs[0].changes) == "scale_inputs"
    assert faults(trace(FALLING, inputs=raw)) == []


def test_constant_inputs():
    same = replace(INPUTS, constant_features=4, std=0)
    assert first(trace(inputs=same))[1][0] == "data_values"


def regression(fn=None, **changes):
    layers = network(("relu", fn), (4, 16, 1))
    return trace(layers=layers, kind="mse", targets=changes.pop("targets", NUMBERS),
                 baseline=changes.pop("baseline", 1.0), **changes)  # fmt: skip


@pytest.mark.parametrize("fn", ["sigmoid", "tanh", "relu"])
def test_targets_out_of_range_are_found_before_training(fn):
    targets = replace(NUMBERS, minimum=-30, maximum=30, std=12)
    found, kinds = first(regression(fn, loss=STUCK[:1], targets=targets))
    assert (found.symptom, found.layer_index, kinds[0]) == ("target_range", 3, "wrong_activation")
    assert faults(regression(None, loss=STUCK[:1], targets=targets)) == []


def test_several_labels_a_row_do_not_suit_a_softmax():
    many = replace(ONE_HOT, rows_sum_to_one=0.3, is_one_hot=False, class_counts=None)
    found, kinds = first(trace(STUCK[:1], targets=many))
    assert found.layer_index == 5
    assert kinds[0] == "wrong_activation"


def test_target_scale():
    far = replace(NUMBERS, minimum=2e4, maximum=4e5, mean=1.8e5, std=8e4)
    creeping = {(2, "output_mean"): np.linspace(0, 0.3, 12), (2, "output_std"): 0.1}
    t = regression(loss=curve(40, 3.9e10, 3.9e10, 1e9), targets=far, baseline=6.4e9, stats=creeping)
    assert first(t)[1][0] == "data_scaling"
    falling = np.geomspace(3.9e10, 1e8, 400)
    assert faults(regression(loss=falling, targets=far, baseline=6.4e9)) == []


def test_labels():
    column = replace(ONE_HOT, shape=(640, 1), is_one_hot=False, n_unique=10, class_counts=None)
    sparse = {"loss_options": {"is_sparse": True}}
    broken = replace(column, integers=0.1, maximum=0.03)
    assert first(trace(STUCK[:1], targets=broken, setup=sparse))[1][0] == "data_labels"
    beyond = replace(column, maximum=9)
    assert first(trace(STUCK[:1], targets=beyond, setup=sparse))[0].symptom == "target_labels"
    one = replace(NUMBERS, minimum=1, maximum=1, mean=1, std=0, integers=1, n_unique=1)
    found = diagnose(trace(np.geomspace(0.7, 1e-3, 400), network(("relu", "sigmoid"), (4, 8, 1)),
                           targets=one, kind="bce", baseline=0))  # fmt: skip
    assert [(f.symptom, f.severity) for f in found] == [("target_labels", "notice")]


def test_softmax_over_one_unit():
    found, kinds = first(regression("softmax", loss=STUCK[:1]))
    assert (found.symptom, found.layer_index, kinds[0]) == ("output_activation", 3,
                                                            "wrong_activation")  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "fn"),
    [("cross_entropy", "softmax"), ("bce", "relu"), ("nll", "softmax"),
     ("categorical_crossentropy", "sigmoid")],
)  # fmt: skip
def test_odd_pairs_are_blamed_only_when_the_training_fails(kind, fn):
    layers = network(("relu", "relu", fn))
    signs = SYMPTOMS.load("output_activation")(Reading(trace(layers=layers, kind=kind)))
    assert signs[0].layer.index == 5
    assert faults(trace(FALLING, layers=layers, kind=kind)) == []


def test_mean_absolute_error_of_labels():
    layers = network(("sigmoid", "sigmoid"), (4, 8, 1))
    binary = replace(NUMBERS, minimum=0, maximum=1, mean=0.5, std=0.5, integers=1, n_unique=2)
    stuck = trace(curve(400, 0.5, 0.5), layers, targets=binary, kind="mae", baseline=0.5)
    found, kinds = first(stuck)
    assert (found.place, kinds[0]) == ("loss", "wrong_loss")
    assert faults(replace(stuck, loss=np.geomspace(0.5, 0.05, 400))) == []


def test_negative_loss():
    layers = network(("relu", "relu", None))
    found, _ = first(trace(curve(50, 1, -40), layers, kind="nll"))
    assert "negative_loss" in [s["symptom"] for s in found.evidence["signs"]]


def test_missing_nonlinearity():
    found, kinds = first(trace(layers=network((None, None, "softmax"))))
    assert (found.layer, kinds[0]) == ("0", "missing_activation")
    assert faults(trace(FALLING, layers=network((None, None, "softmax")))) == []
    # A function called between the two layers is not seen; nothing is said of it.
    unseen = tuple(replace(x, inputs_from=()) for x in network((None, None, "softmax")))
    assert faults(trace(layers=unseen)) == []


def test_equal_initial_weights():
    layers = network()
    zero = replace(layers[2], parameters=parameters(16, 16, std=0, is_constant=True))
    planted = (*layers[:2], zero, *layers[3:])
    found, kinds = first(trace(layers=planted))
    assert (found.layer, kinds[0]) == ("2", "initialization")
    assert faults(trace(FALLING, layers=planted)) == []


def test_dropout_and_decay():
    layers = network()
    dropout = LayerInfo("1b", 9, "Dropout", "dropout", rate=0.95)
    kinds = first(trace(layers=(*layers, dropout)))[1]
    assert kinds[0] == "regularization"
    heavy = {"optimizers": (OptimizerInfo("SGD", 0.1, weight_decay=0.5),)}
    assert first(trace(setup=heavy))[1][0] == "regularization"
    assert faults(trace(FALLING, setup=heavy)) == []


def test_a_late_start_is_not_a_fault():
    late = np.r_[curve(150, 1.1, 1.1), np.geomspace(1.1, 0.3, 250)]
    raw = replace(INPUTS, minimum=0, maximum=255, mean=128, std=80)
    for n in (1, 20, 60, 100, 149, 200, 400):
        assert faults(trace(late[:n], inputs=raw)) == []
