"""Is the network fed as it was trained? A network that knows colours is fed in wrong ways."""

import io

import numpy as np
import pytest
from PIL import Image

from faultlens.analysis import N_FOLDS, Measurements
from faultlens.data.images import ImageSource
from faultlens.data.preprocess import Preprocessing
from faultlens.input_check import check_inputs

COLOURS = ["red", "green", "blue"]
TRAINED = Preprocessing(resize=(16, 16), mean=(0.4,) * 3, std=(0.25,) * 3)
N = 360


class Network:
    """Says the colour that is strongest, if it is fed normalised RGB of 16 x 16."""

    def __init__(self, stated: Preprocessing) -> None:
        self.preprocessing = stated
        self.n_asked = 0

    def prepare(self, image: Image.Image) -> np.ndarray:
        return self.preprocessing(image)

    def encode(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        self.n_asked += len(batch)
        mean = batch.mean(axis=(2, 3))
        # Values far from those of training saturate it.
        return {"logits": 8 * np.tanh(mean + 0.2)}


def pictures(quality: int | None = None):
    """Noisy pictures of one colour; as JPEG of a quality if asked."""
    rng, labels = np.random.default_rng(0), np.arange(N) % 3
    pixels = rng.integers(0, 120, (N, 16, 16, 3))
    pixels[np.arange(N), :, :, labels] += 100
    pixels = pixels.astype(np.uint8)
    if quality is not None:
        pixels = np.stack([_damaged(p, quality) for p in pixels])
    return ImageSource.from_arrays(pixels, labels, COLOURS)


def _damaged(pixels: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def measured(network: Network, source: ImageSource, reference: int = 0) -> Measurements:
    """What a run measured of the pictures; the first ones are of the reference part."""
    batch = np.stack([network.prepare(source.load(i)) for i in range(N)])
    logits = network.encode(batch)["logits"]
    network.n_asked = 0
    rows = np.arange(N)
    return Measurements(logits, logits, source.labels, logits, rows % N_FOLDS, rows < reference)


def check(stated: Preprocessing, source: ImageSource | None = None, reference: int = 0):
    """The check of a network that is said to be fed so."""
    network, source = Network(stated), source or pictures()
    return check_inputs(network, source, measured(network, source, reference))


def with_changes(**changes) -> Preprocessing:
    return TRAINED.model_copy(update=changes)


def test_a_network_that_is_fed_well_is_not_asked_again():
    network, source = Network(TRAINED), pictures()
    assert check_inputs(network, source, measured(network, source)) is None
    assert network.n_asked == 0


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        (with_changes(channel_order="bgr"), "RGB channel order"),
        (with_changes(mean=(3.0, 0.0, 0.0)), "mean 0.5 and deviation 0.25"),
    ],
)
def test_the_way_that_repairs_is_chosen_on_other_images_than_it_is_measured_on(wrong, name):
    found = check(wrong)
    assert found.chosen.name == name
    assert found.chosen.gain.gained > 0.3 * len(found.chosen.rows)
    assert found.chosen.gain.lost == 0
    chosen_by = next(t for t in found.tried if t.name == name)
    assert not set(chosen_by.rows) & set(found.chosen.rows)


def test_reference_images_are_never_used():
    found = check(with_changes(channel_order="bgr"), reference=120)
    assert min(found.chosen.rows) >= 120
    assert min(min(t.rows) for t in found.tried) >= 120


def test_errors_that_no_way_repairs_choose_none():
    source = pictures()
    shuffled = np.random.default_rng(1).permutation(source.labels)
    pixels = np.stack([np.asarray(source.load(i)) for i in range(N)])
    found = check(TRAINED, ImageSource.from_arrays(pixels, shuffled, COLOURS))
    assert found.chosen is None
    assert len(found.tried) > 3


def test_two_mistakes_are_undone_one_by_one():
    found = check(with_changes(channel_order="bgr", mean=(3.0, 0.0, 0.0)))
    assert " and " in found.chosen.name
    assert found.chosen.gain.gained > 0.3 * len(found.chosen.rows)


def test_statistics_are_those_of_the_inputs():
    wrong = with_changes(channel_order="bgr")
    found, source = check(wrong), pictures()
    batch = np.stack([wrong(source.load(i)) for i in range(N)])
    np.testing.assert_allclose(found.statistics.mean, batch.mean(axis=(0, 2, 3)), atol=1e-3)
    np.testing.assert_allclose(found.statistics.std, batch.std(axis=(0, 2, 3)), atol=1e-3)
