import numpy as np
import pytest

from faultlens.errors import InputError
from faultlens.models.chain import SOFTMAX_NOTE, Step, affine, cut

RNG = np.random.default_rng(5)
W0, B0 = RNG.normal(size=(5, 4)).astype(np.float32), RNG.normal(size=5).astype(np.float32)
W1, B1 = RNG.normal(size=(3, 5)).astype(np.float32), RNG.normal(size=3).astype(np.float32)
MLP = [affine("h", W1, B1), Step("relu", "g"), affine("z", W0, B0)]


def one(steps, split_at=None, known=("z", "g", "h", "p", "y")):
    return cut({"y": steps}, split_at=split_at, known=known, n_classes=3)


def test_the_default_is_the_last_affine_layer():
    found = one(MLP)
    assert (found.embedding, found.logits, found.notes) == ("h", "y", ())
    np.testing.assert_array_equal(found.head.weight, W1)


def test_a_named_split_takes_the_whole_chain():
    head = one(MLP, "z").head
    z = RNG.normal(size=(6, 4)).astype(np.float32)
    want = np.maximum(z @ W0.T + B0, 0) @ W1.T + B1
    np.testing.assert_allclose(head(z), want, rtol=1e-5, atol=1e-6)


def test_two_affine_layers_without_relu_become_one():
    head = one([MLP[0], Step("skip", "g"), MLP[2]], "z").head
    assert head.is_linear
    z = RNG.normal(size=(6, 4)).astype(np.float32)
    np.testing.assert_allclose(head(z), (z @ W0.T + B0) @ W1.T + B1, rtol=1e-4, atol=1e-5)


def test_a_separate_bias_belongs_to_the_layer_before_it():
    found = one([Step("bias", "m", bias=B1), affine("h", W1)])
    np.testing.assert_array_equal(found.head.bias, B1)


def test_a_softmax_at_the_end_is_noted():
    found = one([Step("skip", "s"), Step("softmax", "l"), *MLP])
    assert (found.logits, found.notes) == ("l", (SOFTMAX_NOTE,))


def test_unknown_names_get_the_nearest():
    with pytest.raises(InputError, match="split_at must be a name of the model, got 'pool1'; did"):
        one(MLP, "pool1", known=["pool", "y"])


def test_a_split_before_something_else_lists_what_would_do():
    with pytest.raises(InputError, match="got 'p'; use 'h' or 'z'"):
        one(MLP, "p")


@pytest.mark.parametrize(
    "steps",
    [[], [Step("relu", "a"), *MLP], [Step("bias", "a", bias=B1)], [Step("skip", "a")]],
)
def test_a_model_without_a_linear_end_is_refused(steps):
    with pytest.raises(InputError, match="model must end in a linear layer"):
        one(steps)


@pytest.mark.parametrize("split_at", ["g", "b"])
def test_a_head_begins_with_a_matrix(split_at):
    steps = [*MLP, Step("bias", "b", bias=B0[:4])]
    with pytest.raises(InputError, match="use 'h' or 'z'"):
        one(steps, split_at, known=["g", "b"])


@pytest.mark.parametrize(
    "steps",
    [
        [MLP[0], affine("z", W0[:4])],
        [MLP[0], Step("bias", "g", bias=np.ones(7)), affine("z", W0)],
        [MLP[0], Step("relu", "g"), affine("z", W0[:4])],
    ],
)
def test_layers_whose_sizes_do_not_fit_are_no_head(steps):
    # Such as a 1 x 1 convolution on a larger map, flattened, and a linear layer.
    assert one(steps).embedding == "h"
    with pytest.raises(InputError, match="got 'z'; use 'h'"):
        one(steps, "z")


def test_a_wrong_split_is_reported_for_the_output_of_the_classes():
    outputs = {"y": MLP, "feature": [affine("z", W0, B0)]}
    with pytest.raises(InputError, match="got 'g'; use 'h' or 'z'"):
        cut(outputs, split_at="g", known=["g"], n_classes=3)


def test_several_outputs_are_told_apart_by_the_number_of_classes():
    outputs = {"y": MLP, "feature": [affine("z", W0, B0)], "map": []}
    assert cut(outputs, split_at=None, known=[], n_classes=3).embedding == "h"
    with pytest.raises(
        InputError, match=r"exactly one output of 4 logits.*\['feature', 'map', 'y'\]"
    ):
        cut(outputs, split_at=None, known=[], n_classes=4)
    with pytest.raises(InputError, match="got 2 among"):
        cut({"y": MLP, "y2": MLP}, split_at=None, known=[], n_classes=3)
