"""The loop gives the same values however it is cut, and ends cleanly however it ends."""

import tempfile
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faultlens.data.images import ImageSource
from faultlens.data.preprocess import Preprocessing
from faultlens.embeddings.extract import Encoder, Source, extract
from faultlens.embeddings.store import EmbeddingStore
from faultlens.errors import InputError, ShapeError


def flatten(batches):
    return [row for batch in batches for row in batch]


def test_every_row_is_in_its_place_under_many_workers(open_store, pictures, encoder, embedding_of):
    class Uneven(pictures):
        def load(self, index):
            time.sleep(0.004 * (index % 3 == 0))
            return super().load(index)

    store = open_store(300, shard_rows=64)
    extract(encoder, Uneven(300), store, batch_size=5, n_workers=8)
    np.testing.assert_array_equal(store.column("embedding"), embedding_of(300), strict=True)
    np.testing.assert_array_equal(store.column("logits"), embedding_of(300)[:, :2] * 2)
    assert flatten(encoder.batches) == list(range(300))
    assert store.failures == {}


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    n=st.integers(1, 40),
    shard_rows=st.integers(1, 45),
    cut=st.fixed_dictionaries({"batch_size": st.integers(1, 45), "n_workers": st.integers(1, 4)}),
    data=st.data(),
)
def test_values_and_failures_do_not_depend_on_how_the_work_is_cut(
    pictures, encoder_type, embedding_of, **drawn
):
    n, shard_rows, cut = drawn["n"], drawn["shard_rows"], drawn["cut"]
    broken = sorted(drawn["data"].draw(st.sets(st.integers(0, n - 1))))
    truth = embedding_of(n)
    truth[broken] = 0
    source, encoder = pictures(n, broken), encoder_type()
    with tempfile.TemporaryDirectory() as folder:
        columns = {"embedding": (3, "float32")}
        store = EmbeddingStore.create_or_open(folder, "key", n, columns, shard_rows)
        extract(encoder, source, store, **cut)
        np.testing.assert_array_equal(store.column("embedding"), truth, strict=True)
        assert list(store.failures) == broken
    assert flatten(encoder.batches) == [row for row in range(n) if row not in broken]
    assert all(len({row // shard_rows for row in batch}) == 1 for batch in encoder.batches)
    assert all(0 < len(batch) <= cut["batch_size"] for batch in encoder.batches)
    assert sorted(source.loaded) == list(range(n))


def test_a_broken_picture_is_a_row_of_zeros_with_its_reason(open_store, pictures, encoder):
    store = open_store(10)
    extras = {"size": lambda image: np.array(image.size, np.uint8)}
    columns = {"embedding": (3, "float32"), "size": (2, "uint8")}
    store = open_store(10, columns=columns, folder=store.folder / "other")
    extract(encoder, pictures(10, {4, 5, 6, 7, 9}), store, extras=extras)
    assert store.failures[9] == "9.png must be a picture, got mud; repair it"
    assert list(store.failures) == [4, 5, 6, 7, 9]
    assert store.rows("embedding", [4, 9]).tolist() == [[0, 0, 0]] * 2
    assert store.rows("size", [3, 4, 8]).tolist() == [[2, 2], [0, 0], [2, 2]]
    assert encoder.batches == [[0, 1, 2, 3], [8]]


def test_only_missing_shards_are_loaded(open_store, fill, pictures, encoder, embedding_of):
    store = open_store(10)
    fill(store, [1])
    source = pictures(10)
    extract(encoder, source, store)
    assert sorted(source.loaded) == [0, 1, 2, 3, 8, 9]
    np.testing.assert_array_equal(store.column("embedding"), embedding_of(10))
    extract(encoder, source, store)
    assert len(source.loaded) == 6


def test_progress_counts_rows_of_earlier_runs_at_once(open_store, fill, pictures, encoder):
    store = open_store(10)
    fill(store, [1])
    seen = []
    extract(encoder, pictures(10, {0}), store, batch_size=3, progress=lambda *now: seen.append(now))
    assert seen == [(4, 10), (7, 10), (8, 10), (10, 10)]
    seen.clear()
    extract(encoder, pictures(10), store, progress=lambda *now: seen.append(now))
    assert seen == [(10, 10)]


def test_extras_see_the_picture_and_may_run_in_any_thread(open_store, pictures, encoder):
    columns = {"embedding": (3, "float32"), "pixel": (1, "int64")}
    store = open_store(9, columns=columns)
    extras = {"pixel": lambda image: np.array([image.getpixel((0, 0))[0]])}
    extract(encoder, pictures(9), store, batch_size=2, n_workers=3, extras=extras)
    assert store.column("pixel").ravel().tolist() == list(range(9))


@pytest.mark.parametrize("n_workers", [1, 3])
def test_no_more_pictures_are_held_than_promised(open_store, pictures, encoder, n_workers):
    held, most = 0, 0
    count = threading.Lock()
    prepare, encode = encoder.prepare, encoder.encode

    def counting_prepare(image):
        nonlocal held, most
        with count:
            held += 1
            most = max(most, held)
        return prepare(image)

    def counting_encode(batch):
        nonlocal held
        time.sleep(0.005)
        with count:
            held -= len(batch)
        return encode(batch)

    encoder.prepare, encoder.encode = counting_prepare, counting_encode
    store = open_store(120, shard_rows=20)
    extract(encoder, pictures(120), store, batch_size=4, n_workers=n_workers)
    assert held == 0
    assert most <= 3 * 4  # two batches ahead, and the one in the encoder


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), KeyboardInterrupt()])
@pytest.mark.parametrize("place", ["load", "prepare", "encode", "extra", "progress"])
def test_any_other_error_ends_the_run_and_keeps_what_was_finished(
    open_store, pictures, encoder, embedding_of, error, place
):
    columns = {"embedding": (3, "float32"), "extra": (1, "float32")}
    store = open_store(400, shard_rows=8, columns=columns)
    source = pictures(400)
    is_armed = True

    def trap(name, result, row):
        if is_armed and name == place and row >= 20:
            raise error
        return result

    load, prepare, encode = source.load, encoder.prepare, encoder.encode
    source.load = lambda i: trap("load", load(i), i)
    encoder.prepare = lambda x: trap("prepare", prepare(x), x.getpixel((0, 0))[0])
    encoder.encode = lambda x: trap("encode", encode(x), x[-1, 0, 0, 0])
    arguments = {
        "batch_size": 4,
        "n_workers": 3,
        "progress": lambda done, total: trap("progress", None, done),
        "extras": {"extra": lambda x: trap("extra", np.zeros(1), x.getpixel((0, 0))[0])},
    }
    with pytest.raises(type(error)):
        extract(encoder, source, store, **arguments)
    assert list(store.missing()) == list(range(2, 50))
    assert len(source.loaded) < 60
    assert [t for t in threading.enumerate() if t.name.startswith("faultlens")] == []
    is_armed = False
    extract(encoder, source, store, **arguments)
    rows = np.arange(200)  # beyond 255 the pixel of the trap counts anew
    np.testing.assert_array_equal(store.rows("embedding", rows), embedding_of(200))


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e9])
def test_the_first_picture_with_a_bad_number_is_named(open_store, pictures, encoder, value):
    encode = encoder.encode

    def spoiled(batch):
        outputs = encode(batch)
        outputs["embedding"][outputs["embedding"][:, 0] >= 6, 1] = value
        return outputs

    encoder.encode = spoiled
    store = open_store(12, columns={"embedding": (3, "float16")})
    message = r"'embedding' .*finite in float16, got .* for 6\.png; check the model's weights"
    with pytest.raises(InputError, match=message):
        extract(encoder, pictures(12), store)
    assert list(store.missing()) == [1, 2]


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({"embeding": np.zeros((4, 3))}, "must return 'embedding', got none; did you mean 'embed"),
        ({"embedding": np.zeros((4, 5))}, r"float32 of shape \(4, 3\), got float64 of .*\(4, 5\)"),
        ({"embedding": np.zeros((1, 3))}, r"shape \(4, 3\), got float64 of shape \(1, 3\)"),
        ({"embedding": np.zeros((4, 3), complex)}, "got complex128"),
    ],
)
def test_an_encoder_that_does_not_fit_the_store_is_refused(
    open_store, pictures, encoder, outputs, message
):
    store = open_store(10, columns={"embedding": (3, "float32")})
    encoder.encode = lambda batch: outputs
    with pytest.raises(InputError, match=message):
        extract(encoder, pictures(10), store)
    assert len(store.missing()) == 3


def test_the_wrong_shape_is_a_shape_error(open_store, pictures, encoder):
    encoder.encode = lambda batch: {"embedding": batch}
    with pytest.raises(ShapeError, match="'embedding' of the encoder"):
        extract(encoder, pictures(10), open_store(10, columns={"embedding": (3, "float32")}))


def test_inputs_of_two_shapes_name_the_picture(open_store, pictures, encoder):
    encoder.prepare = lambda image: np.zeros(3 if image.getpixel((0, 0))[0] == 2 else 4)
    message = r"one shape, got \(4,\) and, for 2\.png, \(3,\); set an exact resize"
    with pytest.raises(InputError, match=message):
        extract(encoder, pictures(10), open_store(10))


@pytest.mark.parametrize(
    ("n", "change", "message"),
    [
        (10, {"batch_size": 0}, "batch_size must be at least 1, got 0"),
        (10, {"n_workers": 0}, "n_workers must be at least 1, got 0"),
        (9, {}, "source must have 10 pictures, as the store has rows, got 9"),
    ],
)
def test_impossible_requests_are_refused(open_store, pictures, encoder, n, change, message):
    with pytest.raises(InputError, match=message):
        extract(encoder, pictures(n), open_store(10), **change)


def test_the_real_source_and_preprocessing_fit(open_store, encoder):
    pixels = np.arange(6, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 3), np.uint8)
    source = ImageSource.from_arrays(pixels, np.zeros(6, int), ["grey"])
    preprocessing = Preprocessing(resize=None, scale=1, mean=(0,) * 3, std=(1,) * 3)
    encoder.prepare = preprocessing
    encoder.encode = lambda batch: {"embedding": batch.mean(axis=(2, 3))}
    assert isinstance(source, Source)
    assert isinstance(encoder, Encoder)
    store = open_store(6, columns={"embedding": (3, "float32")})
    extract(encoder, source, store)
    np.testing.assert_allclose(store.column("embedding"), np.arange(6)[:, None] * np.ones(3))
