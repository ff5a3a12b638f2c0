import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from faultlens.errors import InputError, ShapeError
from faultlens.models.head import Head, predict


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def linear(rng):
    return Head((rng.normal(size=(4, 6)),), (rng.normal(size=4),))


@pytest.fixture
def chain(rng):
    return Head(
        (rng.normal(size=(5, 6)), rng.normal(size=(4, 5))),
        (rng.normal(size=5), rng.normal(size=4)),
    )


def test_linear_head_is_an_affine_map(linear, rng):
    z = rng.normal(size=(9, 6)).astype(np.float32)
    np.testing.assert_allclose(linear(z), z @ linear.weight.T + linear.bias, rtol=1e-6)
    assert linear(z).dtype == np.float32
    assert (linear.n_classes, linear.dimension, linear.is_linear) == (4, 6, True)


def test_chain_puts_a_relu_between_its_layers_only(chain, rng):
    z = rng.normal(size=(9, 6)).astype(np.float32)
    (w0, w1), (b0, b1) = chain.weights, chain.biases
    want = np.array([w1 @ np.maximum(w0 @ row + b0, 0) + b1 for row in z])
    np.testing.assert_allclose(chain(z), want, rtol=1e-5)
    assert chain(z).min() < 0
    assert (chain.n_classes, chain.dimension, chain.is_linear) == (4, 6, False)


def test_double_and_half_precision_embeddings(linear, rng):
    z = rng.normal(size=(3, 6))
    assert linear(z).dtype == np.float64
    assert linear(z.astype(np.float16)).dtype == np.float32


def test_head_keeps_private_read_only_copies(rng):
    weight = rng.normal(size=(2, 3)).astype(np.float32)
    head = Head((weight,), (np.zeros(2, np.float32),))
    weight[:] = 0
    assert np.abs(head.weight).min() > 0
    with pytest.raises(ValueError, match="read-only"):
        head.weight[0, 0] = 1


@pytest.mark.parametrize("name", ["linear", "chain"])
def test_saved_head_is_read_back_identically(name, request, tmp_path, rng):
    head = request.getfixturevalue(name)
    head.save(tmp_path / "head.safetensors")
    back = Head.load(tmp_path / "head.safetensors")
    assert back.content_hash == head.content_hash
    z = rng.normal(size=(3, 6))
    np.testing.assert_array_equal(back(z), head(z))
    assert [p.name for p in tmp_path.iterdir()] == ["head.safetensors"]


def test_saved_names(linear, chain, tmp_path):
    linear.save(tmp_path / "a")
    chain.save(tmp_path / "b")
    assert set(safetensors.numpy.load_file(tmp_path / "a")) == {"weight", "bias"}
    assert set(safetensors.numpy.load_file(tmp_path / "b")) == {
        "weight_0", "bias_0", "weight_1", "bias_1",
    }  # fmt: skip


def test_content_hash_changes_with_any_value(linear):
    other = linear.weight.copy()
    other[0, 0] += 1
    assert linear.replace(other, linear.bias).content_hash != linear.content_hash
    assert linear.replace(linear.weight, linear.bias).content_hash == linear.content_hash


def test_replace_makes_a_linear_head_of_the_same_size(chain, rng):
    head = chain.replace(rng.normal(size=(4, 6)), np.zeros(4))
    assert head.is_linear
    with pytest.raises(ShapeError, match=r"weight must have shape \(4, 6\).*got \(3, 6\)"):
        chain.replace(rng.normal(size=(3, 6)), np.zeros(3))


def test_weight_of_a_chain_is_refused(chain):
    with pytest.raises(InputError, match="head must be linear for this, got 2 layers"):
        _ = chain.weight


@pytest.mark.parametrize(
    ("weights", "biases", "message"),
    [
        ([], [], "at least one layer"),
        ([np.ones((2, 3))], [], "1 weights and 0 biases"),
        ([np.ones((2, 3))], [np.ones(3)], r"weight must have shape \(3, 3\)"),
        (
            [np.ones((2, 3)), np.ones((2, 3))],
            [np.ones(2)] * 2,
            r"weight_1 must have shape \(2, 2\)",
        ),
        ([np.full((2, 3), np.nan)], [np.ones(2)], "weight must be finite, got 6 NaN"),
        ([np.ones((2, 3))], [np.array([0, np.inf])], "bias must be finite"),
        ([np.ones(3)], [np.ones(3)], r"weight must have axes \(K, D\)"),
    ],
)
def test_wrong_layers_are_refused(weights, biases, message):
    with pytest.raises(ShapeError, match=message):
        Head(tuple(weights), tuple(biases))


def test_wrong_embeddings_are_refused(linear):
    with pytest.raises(ShapeError, match="must have 6 columns, as the head does, got 5"):
        linear(np.ones((2, 5)))
    with pytest.raises(ShapeError, match="embeddings must be finite"):
        linear(np.full((2, 6), np.nan))


def test_load_names_what_is_wrong(tmp_path):
    path = tmp_path / "head.safetensors"
    with pytest.raises(InputError, match="head file must exist"):
        Head.load(path)
    path.write_bytes(b"not a tensor file")
    with pytest.raises(InputError, match="must be a safetensors file"):
        Head.load(path)
    safetensors.numpy.save_file({"wieght": np.ones((2, 2)), "bias": np.ones(2)}, path)
    with pytest.raises(InputError, match="did you mean 'weight'"):
        Head.load(path)
    safetensors.numpy.save_file({"weight": np.ones((2, 2))}, path)
    with pytest.raises(InputError, match="add 'bias'"):
        Head.load(path)
    safetensors.numpy.save_file({"weight": np.full((2, 2), np.nan), "bias": np.ones(2)}, path)
    with pytest.raises(ShapeError, match=r"weight must be finite.*head\.safetensors"):
        Head.load(path)
    safetensors.numpy.save_file({"weight": np.ones((2, 2)), "bias": np.ones(3)}, path)
    with pytest.raises(ShapeError, match="weight must have shape"):
        Head.load(path)


def test_predict_counts_ties_and_takes_the_lowest_index():
    labels, n_ties = predict(np.array([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0], [0.0, 0.0, 1.0]]))
    assert labels.tolist() == [1, 0, 2]
    assert n_ties == 2


@given(st.lists(st.lists(st.integers(-2, 2), min_size=3, max_size=3), min_size=1, max_size=20))
def test_predict_agrees_with_a_slow_twin(rows):
    labels, n_ties = predict(np.array(rows))
    assert labels.tolist() == [row.index(max(row)) for row in rows]
    assert n_ties == sum(row.count(max(row)) > 1 for row in rows)


def test_predict_refuses_nan():
    with pytest.raises(ShapeError, match="logits must be finite"):
        predict(np.array([[0.0, np.nan]]))
