"""What every adapter promises, tested on all of them."""

import functools
import sys
import types
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from faultlens.errors import InputError, ShapeError
from faultlens.models.classifier import Classifier
from faultlens.models.load import load_model

ADAPTERS = [
    "onnx",
    pytest.param("torch", marks=pytest.mark.torch),
    pytest.param("torch-export", marks=pytest.mark.torch),
    pytest.param("onnx from torch", marks=pytest.mark.torch),
    pytest.param("onnx from torch, legacy", marks=pytest.mark.torch),
]


def onnx_export(torch, net, x, path, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        torch.onnx.export(net, (x,), path, **options)


def legacy_onnx(torch, net, x, path):
    axes = {"x": {0: "n"}}
    onnx_export(torch, net, x, path, dynamo=False, input_names=["x"], dynamic_axes=axes)


def new_onnx(torch, net, x, path):
    pytest.importorskip("onnxscript")
    shapes = {"x": {0: "n"}}
    onnx_export(torch, net, x, path, dynamo=True, dynamic_shapes=shapes, verbose=False)


def program(torch, net, x, path):
    dynamic = ({0: torch.export.Dim("n")},)
    torch.export.save(torch.export.export(net, (x,), dynamic_shapes=dynamic), path)


EXPORTERS = {
    "torch-export": ("torch-export", program),
    "onnx from torch": ("onnx", new_onnx),
    "onnx from torch, legacy": ("onnx", legacy_onnx),
}


@pytest.fixture(scope="module")
def exported(nets, tmp_path_factory) -> Callable[[str, int], str]:
    """Export the same net once for each kind and seed, and return its SPEC."""
    import torch

    @functools.cache
    def export(kind: str, seed: int) -> str:
        prefix, exporter = EXPORTERS[kind]
        path = tmp_path_factory.mktemp("exported") / "net"
        exporter(torch, nets.trained(nets.resnet, seed), torch.randn(2, 3, 8, 8), str(path))
        return f"{prefix}:{path}"

    return export


@pytest.fixture(params=ADAPTERS)
def load(request, about, monkeypatch) -> Callable[..., Classifier]:
    """Load the model of a seed with the given split and preprocessing."""

    def spec(seed: int) -> str:
        if request.param == "onnx":
            conv = request.getfixturevalue("weights")["conv"] + np.float32(seed)
            return f"onnx:{request.getfixturevalue('onnx_file')(stored={'conv': conv})}"
        if request.param != "torch":
            return request.getfixturevalue("exported")(request.param, seed)
        nets = request.getfixturevalue("nets")
        module = types.ModuleType("made_in_test")
        module.make = lambda: nets.trained(nets.resnet, seed)
        monkeypatch.setitem(sys.modules, "made_in_test", module)
        return "torch:made_in_test:make"

    def load(seed: int = 0, split_at: str | None = None, **preprocessing: Any) -> Classifier:
        return load_model(spec(seed), preprocess=about(**preprocessing), split_at=split_at)

    return load


def test_head_of_the_embedding_equals_the_logits(load, pictures):
    model = load()
    result = model.encode(pictures(7))
    assert {k: (v.dtype, len(v)) for k, v in result.items()} == {
        "embedding": (np.float32, 7),
        "logits": (np.float32, 7),
    }
    assert result["embedding"].shape[1] == model.dimension == model.head.dimension
    np.testing.assert_allclose(
        model.head(result["embedding"]), result["logits"], rtol=1e-4, atol=1e-5
    )
    assert np.ptp(result["logits"], axis=0).min() > 0
    assert isinstance(model, Classifier)


def test_encode_is_deterministic_and_row_by_row(load, pictures):
    model = load()
    whole, again = model.encode(pictures(6)), model.encode(pictures(6))
    for key in whole:
        np.testing.assert_array_equal(whole[key], again[key])
        rows = np.concatenate([model.encode(pictures(6)[i : i + 1])[key] for i in range(6)])
        np.testing.assert_allclose(rows, whole[key], rtol=1e-4, atol=1e-5)


def test_the_content_hash(load):
    first = load()
    assert first.content_hash == load().content_hash
    assert len(first.content_hash) == 64
    assert load(interpolation="bicubic").content_hash != first.content_hash
    assert load(mean=(0.4,) * 3).content_hash != first.content_hash
    changed = load(seed=1)
    assert changed.content_hash != first.content_hash
    assert not changed.tensor_hashes & first.tensor_hashes
    assert len(first.tensor_hashes) > 0


def test_prepare_gives_what_encode_takes(load, about):
    model = load()
    picture = Image.fromarray(np.full((20, 30, 3), 128, np.uint8))
    x = model.prepare(picture)
    assert x.dtype == np.float32
    np.testing.assert_array_equal(x, about().preprocessing(picture))
    assert model.encode(x[None])["logits"].shape == (1, 3)


def test_batches_that_do_not_fit_are_refused(load, pictures):
    model = load()
    with pytest.raises(ShapeError, match="batch must have axes"):
        model.encode(pictures()[0])
    with pytest.raises(ShapeError, match="batch must be finite"):
        model.encode(np.full((1, 3, 8, 8), np.nan, np.float32))
    with pytest.raises(InputError):
        model.encode(pictures(2, (5, 8, 8)))


def test_unknown_splits_are_refused(load):
    with pytest.raises(InputError, match="split_at must be a name of the model, got 'no such'"):
        load(split_at="no such")
