"""Asking a model again: about changed pictures, and about what its layers know."""

import numpy as np
import pytest
from PIL import Image

from faultlens import rerun
from faultlens.data.images import ImageSource


class Model:
    """Says 1 where the upper left corner is bright, or, if `is_fragile`, where one pixel is."""

    def __init__(self, is_fragile: bool) -> None:
        self.is_fragile = is_fragile

    def prepare(self, image: Image.Image) -> np.ndarray:
        return np.asarray(image, np.float32).transpose(2, 0, 1) / 255

    def encode(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        seen = batch[:, 0, 7, 9] if self.is_fragile else batch.mean(axis=(1, 2, 3))
        return {"logits": np.stack([np.full(len(seen), 0.5), seen], axis=1) * 9}


def source(n: int = 30) -> ImageSource:
    """Dark pictures with one bright pixel."""
    pixels = np.zeros((n, 24, 24, 3), np.uint8)
    pixels[:, 7, 9] = 255
    return ImageSource.from_arrays(pixels, np.zeros(n, int), ["dark", "bright"])


def test_errors_of_one_pixel_vanish():
    images = source()
    labels, predictions = np.zeros(30, int), np.ones(30, int)
    assert rerun.vanishing(Model(True), images, labels, predictions).tolist() == [1] * 30


def test_errors_of_the_whole_picture_stay():
    images = source()
    labels, predictions = np.ones(30, int), np.zeros(30, int)
    assert rerun.vanishing(Model(False), images, labels, predictions).tolist() == [0] * 30


def test_only_errors_are_asked_about_and_not_too_many(monkeypatch):
    monkeypatch.setattr(rerun, "N_ERRORS", 5)
    images, labels = source(), np.zeros(30, int)
    predictions = np.repeat([0, 1], 15)
    asked = rerun.vanishing(Model(True), images, labels, predictions)
    assert (asked[:15] == -1).all()
    assert (asked >= 0).sum() == 5
    assert (rerun.vanishing(Model(True), images, labels, labels) == -1).all()


def test_a_model_that_does_not_know_its_layers_says_nothing():
    assert rerun.drifts(Model(True), source()) == ()


@pytest.mark.torch
def test_a_live_module_is_asked_on_a_sample():
    torch = pytest.importorskip("torch")
    from faultlens.models.description import ModelDescription
    from faultlens.models.pytorch import from_module

    net = torch.nn.Sequential(
        torch.nn.BatchNorm2d(3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
        torch.nn.Linear(3, 2),
    )  # fmt: skip
    plain = {"resize": 8, "crop": 8, "mean": (0, 0, 0), "std": (0.001,) * 3}
    model = from_module(net, ModelDescription(classes=("dark", "bright"), preprocessing=plain))
    (layer,) = rerun.drifts(model, source(300))
    assert layer.n == rerun.N_IMAGES
    assert layer.size > 0.2


@pytest.mark.torch
def test_channels_are_asked_where_a_layer_breaks_and_nowhere_else():
    torch = pytest.importorskip("torch")
    from faultlens.models.drift import NormDrift
    from faultlens.models.pytorch_channels import channel_scales

    torch.manual_seed(0)
    inner = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Softplus())
    norm = torch.nn.BatchNorm2d(16, momentum=None)
    net = torch.nn.Sequential(inner, torch.nn.Conv2d(4, 16, 3), norm)
    pixels = np.random.default_rng(0).integers(0, 255, (40, 12, 12, 3), dtype=np.uint8)
    images = ImageSource.from_arrays(pixels, np.zeros(40, int), ["a", "b"])

    class Live(Model):
        def channel_scales(self, batches, layer):
            return channel_scales(net, batches, layer)

    net(torch.from_numpy(np.stack([Live(False).prepare(images.load(i)) for i in range(40)])))
    net.eval()
    with torch.no_grad():
        net[1].weight[:, 2] *= 4
    rows, broken = np.arange(10, 40), [NormDrift("2", 1.0, 1.0, 40)]
    found = rerun.channels(Live(False), images, broken, rows)
    assert np.flatnonzero(found.is_off).tolist() == [2]
    assert np.isnan(found.pooled[:10]).all()
    assert np.isfinite(found.pooled[10:]).all()
    assert rerun.channels(Live(False), images, [NormDrift("2", 0.1, 0.1, 40)], rows) is None
    assert rerun.channels(Model(False), images, broken, rows) is None
