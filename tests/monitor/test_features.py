import numpy as np
import pytest

from faultlens.errors import InputError, ShapeError
from faultlens.monitor.features import Features


def features() -> Features:
    return Features(
        np.arange(6, dtype=np.float16).reshape(3, 2),
        np.array([[1.0, 2.0, 2.0], [5, 0, 0], [0, 0, 1]]),
        np.eye(3),
        {"stem": np.arange(12.0).reshape(3, 2, 2)},
    )


def test_arrays_are_held_as_float32_and_logits_keep_their_precision():
    f = features()
    assert f.embeddings.dtype == f.strengths.dtype == f.layers["stem"].dtype == np.float32
    assert f.logits.dtype == np.float64
    assert Features(np.ones((1, 1)), np.ones((1, 2), np.float16)).logits.dtype == np.float32


def test_predictions_take_the_first_of_equals():
    assert features().predictions.tolist() == [1, 0, 2]


def test_layers_are_flattened_to_one_row_an_image():
    assert features().layers["stem"].tolist() == np.arange(12.0).reshape(3, 4).tolist()


@pytest.mark.parametrize("rows", [np.array([2, 0]), np.array([True, False, True]), slice(0, 3, 2)])
def test_select_takes_the_same_rows_of_everything(rows):
    f, part = features(), features().select(rows)
    assert np.array_equal(part.embeddings, f.embeddings[rows])
    assert np.array_equal(part.logits, f.logits[rows])
    assert np.array_equal(part.strengths, f.strengths[rows])
    assert np.array_equal(part.layers["stem"], f.layers["stem"][rows])


def test_select_keeps_missing_strengths_missing():
    assert Features(np.ones((2, 1)), np.ones((2, 2))).select([0]).strengths is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.ones((2, 3)), np.ones((3, 2))), "embeddings must have one row an image, got 2 for 3"),
        ((np.ones(3), np.ones((3, 2))), r"embeddings must have axes \(N, D\)"),
        ((np.ones((3, 1)), np.ones((3, 1))), "logits must have at least two classes, got 1"),
        ((np.full((1, 1), np.nan), np.ones((1, 2))), "embeddings must be finite"),
        ((np.ones((1, 1)), np.full((1, 2), np.inf)), "logits must be finite"),
        ((np.ones((1, 1)), np.ones((1, 2)), np.ones((2, 2))), "strengths must have one row"),
        ((np.ones((1, 1)), np.ones((1, 2)), None, {"a": np.ones((2, 2))}), r"layers\['a'\] must"),
        ((np.ones((1, 1)), np.ones((1, 2)), None, {"a": np.ones(1)}), r"layers\['a'\] must have"),
    ],
)
def test_wrong_input_is_named_at_the_door(arguments, message):
    with pytest.raises(ShapeError, match=message):
        Features(*arguments)


def test_space_returns_points_by_name():
    f = features()
    assert f.space("embeddings") is f.embeddings
    assert f.space("strengths") is f.strengths
    assert f.space("stem") is f.layers["stem"]


def test_an_unknown_space_gets_the_nearest_name():
    with pytest.raises(InputError, match="got 'stam'; did you mean 'stem'"):
        features().space("stam")
    with pytest.raises(InputError, match="strengths must be given"):
        Features(np.ones((1, 1)), np.ones((1, 2))).space("strengths")
