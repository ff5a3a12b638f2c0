"""Stages that are off are named, sound ones are not."""

import numpy as np
import pytest

from faultlens.errors import InputError, ShapeError
from faultlens.localize.breaks import deviation, find_break
from faultlens.localize.stages import MAX_IMAGES, Stage, measure_stages, sample

N, K = 800, 5


@pytest.fixture(scope="module")
def world():
    """Labels, the other model's embeddings, concept directions and folds."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, K, N)
    v = np.eye(K)[labels] + rng.normal(0, 0.15, (N, K))
    return labels, v, np.eye(K), rng.integers(0, 5, N)


def encoder(v, noises=(3.0, 1.5, 0.6, 0.15), width=24, seed=1):
    """Activations of stages whose channels are alike in size and know more and more."""
    rng = np.random.default_rng(seed)
    found = {}
    for i, noise in enumerate(noises, 1):
        z = v @ rng.normal(size=(K, width)) + rng.normal(0, noise, (len(v), width))
        z = np.maximum(z / z.std(axis=0) + 0.3, 0)
        found[f"stage{i}"] = (z / z.mean(axis=0) * rng.uniform(0.85, 1.15, width)).astype("f4")
    return found


def measured(world, activations):
    labels, v, directions, folds = world
    return measure_stages(activations, v, labels, folds, directions)


def right(world, share, seed=3):
    """A classifier that is right on a share of the images."""
    return np.random.default_rng(seed).random(N) < share


def uneven(activations, names, spread=1.2, seed=5):
    rng = np.random.default_rng(seed)
    return {
        k: z * np.exp(rng.normal(0, spread, z.shape[1])).astype("f4") if k in names else z
        for k, z in activations.items()
    }


def test_what_stages_know_grows(world):
    found = measured(world, encoder(world[1]))
    for numbers in ([s.accuracy for s in found], [s.r2 for s in found], [s.auroc for s in found]):
        assert numbers == sorted(numbers)
    assert found[0].accuracy < 0.6
    assert found[-1].accuracy > 0.9
    assert found[-1].r2 > 0.7
    assert max(s.unevenness for s in found) < 0.15


def test_noise_tells_nothing(world):
    rng = np.random.default_rng(0)
    (stage,) = measured(world, {"noise": rng.normal(size=(N, 16))})
    assert stage.accuracy == pytest.approx(1 / K, abs=0.07)
    assert abs(stage.r2) < 0.05
    assert stage.auroc == pytest.approx(0.5, abs=0.06)


def test_a_probe_never_sees_its_image(world):
    rng = np.random.default_rng(0)
    labels, v, directions, folds = world
    (stage,) = measure_stages(
        {"wide": rng.normal(size=(N, 600))}, v, rng.permutation(labels), folds, directions
    )
    assert stage.accuracy < 1 / K + 0.07
    assert stage.dimension == 600


def test_a_sound_encoder_is_not_broken(world):
    stages = measured(world, encoder(world[1]))
    assert find_break(stages, stages[-1].is_right).found is None


def test_nor_is_one_whose_head_fails(world):
    stages = measured(world, encoder(world[1]))
    assert find_break(stages, right(world, 0.5)).found is None


@pytest.mark.parametrize("broken", [1, 2, 3])
def test_uneven_channels_name_the_first_stage(world, broken):
    names = [f"stage{i}" for i in range(broken + 1, 5)]
    stages = measured(world, uneven(encoder(world[1]), names))
    found = find_break(stages, right(world, 0.5)).found
    assert (found.index, found.sign) == (broken, "channels")
    assert found.value > 0.6 > found.usual
    assert found.loss > 0.3
    assert found.p_value < 1e-6


def test_uneven_channels_from_the_start(world):
    stages = measured(world, uneven(encoder(world[1]), [f"stage{i}" for i in range(1, 5)]))
    found = find_break(stages, right(world, 0.5)).found
    assert (found.index, found.sign) == (0, "channels")
    assert np.isnan(found.usual)


def test_unevenness_that_later_stages_do_not_have_is_natural(world):
    stages = measured(world, uneven(encoder(world[1]), ["stage1", "stage2"]))
    assert find_break(stages, right(world, 0.5)).found is None


def test_a_network_that_loses_nothing_is_not_broken(world):
    stages = measured(world, uneven(encoder(world[1]), ["stage3", "stage4"]))
    assert find_break(stages, stages[-1].is_right).found is None


def test_dead_channels(world):
    activations = encoder(world[1])
    activations["stage2"][:, :12] = 0
    found = find_break(measured(world, activations), right(world, 0.5)).found
    assert (found.index, found.sign, found.value) == (1, "dead", 0.5)


def test_another_scale(world):
    activations = encoder(world[1])
    for name in ("stage3", "stage4"):
        activations[name] *= 12
    found = find_break(measured(world, activations), right(world, 0.5)).found
    assert (found.index, found.sign) == (2, "scale")
    assert found.value / found.usual == pytest.approx(12, rel=0.1)


def test_information_that_falls(world):
    stages = measured(world, encoder(world[1], noises=(3.0, 0.3, 2.5, 2.0)))
    found = find_break(stages, right(world, 0.4)).found
    assert (found.index, found.sign) == (2, "information")
    assert found.value < found.usual - 0.2
    assert found.p_value < 1e-6


def test_a_map_that_falls_while_labels_stay(world):
    rng = np.random.default_rng(2)
    labels, v, _, folds = world
    rich = np.c_[v, rng.normal(size=(N, 8))]
    target = np.c_[v, rich[:, K:]]
    hinted = np.eye(K)[labels] + rng.normal(0, 0.6, (N, K))
    stages = measure_stages({"a": np.c_[hinted, rich[:, K:]], "b": hinted}, target, labels, folds,
                            np.eye(K + 8))  # fmt: skip
    found = find_break(stages, right(world, 0.3)).found
    assert (found.index, found.sign) == (1, "map")
    assert found.value < found.usual - 0.2


def test_against_a_copy_the_first_difference_counts(world):
    healthy = encoder(world[1])
    broken = uneven(healthy, ["stage3", "stage4"], spread=0.05)
    reference, stages = measured(world, healthy), measured(world, broken)
    assert find_break(stages, right(world, 0.5)).found is None
    found = find_break(stages, right(world, 0.5), reference).found
    assert (found.index, found.sign) == (2, "twin")


def test_against_a_twin_trained_apart(world):
    reference = measured(world, encoder(world[1], seed=7))
    sound, broken = encoder(world[1]), uneven(encoder(world[1]), ["stage2", "stage3", "stage4"])
    assert find_break(measured(world, sound), right(world, 0.5), reference).found is None
    found = find_break(measured(world, broken), right(world, 0.5), reference).found
    assert (found.index, found.sign) == (1, "twin")


def test_a_twin_that_knows_more(world):
    reference = measured(world, encoder(world[1], seed=7))
    poor = measured(world, encoder(world[1], noises=(3.0, 1.5, 3.0, 3.0)))
    found = find_break(poor, right(world, 0.3), reference).found
    assert (found.index, found.sign) == (2, "information")


def test_a_twin_of_other_stages_is_refused(world):
    stages = measured(world, encoder(world[1]))
    with pytest.raises(InputError, match="reference must have the stages"):
        find_break(stages, right(world, 0.5), stages[1:])


def test_deviation_does_not_depend_on_the_order_of_channels():
    def of(sizes):
        return Stage("s", len(sizes), 0.0, 0.5, np.ones(4, bool), np.ones(4), np.sort(sizes), 0.0)

    sizes = np.array([1.0, 4.0, 2.0])
    assert deviation(of(sizes), of(sizes[::-1])) == 0
    assert deviation(of(2 * sizes), of(sizes)) == pytest.approx(np.log(2))


def test_rows_are_sampled_and_checked(world):
    labels, v, directions, folds = world
    assert len(sample(10 * MAX_IMAGES)) == MAX_IMAGES
    assert sample(10 * MAX_IMAGES)[-1] == 10 * MAX_IMAGES - 1
    with pytest.raises(ShapeError, match="stage:a must have 800 rows, got 2"):
        measure_stages({"a": np.ones((2, 3))}, v, labels, folds, directions)
    with pytest.raises(InputError, match="folds must be at least 3"):
        measure_stages({"a": np.ones((N, 3))}, v, labels, folds % 2, directions)


def test_no_concepts_leave_the_rest(world):
    labels, v, directions, folds = world
    stages = measure_stages(encoder(v), v, labels, folds, directions[:0])
    assert all(np.isnan(s.auroc) for s in stages)
    assert stages[-1].accuracy > 0.9
