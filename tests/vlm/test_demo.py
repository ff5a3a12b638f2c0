"""Dual encoders in ONNX files, with towers made by hand that are easy to predict."""

import hashlib
import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from faultlens.arrays import tensor_hashes
from faultlens.errors import InputError, ShapeError, StoreError
from faultlens.registry import VLMS
from faultlens.vlm import demo
from faultlens.vlm.backend import VlmBackend
from faultlens.vlm.demo import OnnxDualEncoder
from faultlens.vlm.load import load_vlm
from faultlens.vlm.words import WordTokenizer

WORDS = ("a", "photo", "of", "red", "green", "blue", "wheels")
E = 32


def save(path, nodes, given, stored, output="embedding"):
    """Write a graph with one input."""
    graph = helper.make_graph(
        nodes,
        "tower",
        [given],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, (None, None))],
        [numpy_helper.from_array(value, key) for key, value in stored.items()],
    )
    onnx.save(
        helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), path
    )


def save_image(path, weight, name="image", output="embedding"):
    """The mean of each channel, times a matrix."""
    nodes = [
        helper.make_node("GlobalAveragePool", [name], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weight"], [output]),
    ]
    given = helper.make_tensor_value_info(name, TensorProto.FLOAT, ("N", 3, 64, 64))
    save(path, nodes, given, {"weight": weight}, output)


def save_text(path, table):
    """The sum of a text's word vectors; padding has none."""
    nodes = [
        helper.make_node("Gather", ["table", "tokens"], ["vectors"]),
        helper.make_node("ReduceSum", ["vectors", "axis"], ["embedding"], keepdims=0),
    ]
    given = helper.make_tensor_value_info("tokens", TensorProto.INT64, ("P", 5))
    save(path, nodes, given, {"table": table, "axis": np.array([1])})


@pytest.fixture
def weight():
    """Red, green and blue are the first three directions."""
    weight = np.zeros((3, E), np.float32)
    weight[:, :3] = np.eye(3)
    return weight


@pytest.fixture
def table():
    """The words red, green and blue are the first three directions, others nothing."""
    table = np.zeros((len(WORDS) + 1, E), np.float32)
    table[4:7, :3] = np.eye(3)
    return table


@pytest.fixture
def folder(tmp_path, weight, table):
    save_image(tmp_path / "image.onnx", weight)
    save_text(tmp_path / "text.onnx", table)
    WordTokenizer(WORDS, 5).write(tmp_path / "words.json")
    return tmp_path


@pytest.fixture
def vlm(folder):
    return OnnxDualEncoder(folder, "tiny")


def test_it_is_a_backend(vlm):
    assert isinstance(vlm, VlmBackend)
    assert (vlm.name, vlm.dimension, len(vlm.content_hash)) == ("tiny", E, 64)


def test_a_picture_is_nearest_to_its_own_word(vlm):
    pictures = [Image.new("RGB", (90, 70), color) for color in ("red", "lime", "blue")]
    batch = np.stack([vlm.prepare(p) for p in pictures])
    images = vlm.encode(batch)["embedding"]
    texts = vlm.encode_text(["a photo of red", "Green!", "blue wheels"])
    assert images.dtype == texts.dtype == np.float32
    assert np.allclose(images @ texts.T, np.eye(3), atol=1e-6)


def test_pictures_arrive_scaled_but_not_normalised(vlm):
    x = vlm.prepare(Image.new("RGB", (10, 20), (255, 0, 51)))
    assert x.shape == (3, 64, 64)
    assert np.allclose(x.mean(axis=(1, 2)), (1, 0, 0.2))


@pytest.mark.parametrize("n", [1, 2, 17])
def test_batches_of_any_length_give_the_same_rows(vlm, n):
    batch = np.random.default_rng(0).random((17, 3, 64, 64), np.float32)
    assert np.allclose(
        vlm.encode(batch[:n])["embedding"], vlm.encode(batch)["embedding"][:n], atol=1e-6
    )


def test_an_unknown_word_names_the_nearest(vlm):
    with pytest.raises(InputError, match=r"got 'weels' in 'a photo of weels'; did you mean 'whe"):
        vlm.encode_text(["a photo of red", "a photo of weels"])
    with pytest.raises(InputError, match=r"got 'xylophone' in 'xylophone'; known: "):
        vlm.encode_text(["xylophone"])


def test_wrong_batches_are_refused(vlm):
    with pytest.raises(ShapeError, match=r"batch must have axes \(N, C, H, W\)"):
        vlm.encode(np.zeros((3, 64, 64), np.float32))
    with pytest.raises(InputError, match=r"image must be an input that tiny can take.*32, 32"):
        vlm.encode(np.zeros((1, 3, 32, 32), np.float32))


def test_tensor_hashes_are_those_of_the_model_adapters(vlm, weight):
    assert vlm.tensor_hashes == tensor_hashes([weight])
    assert vlm.tensor_hashes == {hashlib.sha256(weight.tobytes()).hexdigest()}


def test_half_precision_weights_hash_as_float32(folder, weight):
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Cast", ["half"], ["weight"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["flat", "weight"], ["embedding"]),
    ]
    given = helper.make_tensor_value_info("image", TensorProto.FLOAT, ("N", 3, 64, 64))
    save(folder / "image.onnx", nodes, given, {"half": weight.astype(np.float16)})
    vlm = OnnxDualEncoder(folder, "half")
    assert vlm.tensor_hashes == tensor_hashes([weight])


def test_the_hash_follows_every_file(folder, vlm, weight, table):
    seen = {vlm.content_hash, OnnxDualEncoder(folder, "other name").content_hash}
    assert len(seen) == 1
    save_image(folder / "image.onnx", 2 * weight)
    seen.add(OnnxDualEncoder(folder, "tiny").content_hash)
    save_text(folder / "text.onnx", 2 * table)
    seen.add(OnnxDualEncoder(folder, "tiny").content_hash)
    WordTokenizer(WORDS[::-1], 5).write(folder / "words.json")
    seen.add(OnnxDualEncoder(folder, "tiny").content_hash)
    assert len(seen) == 4


@pytest.mark.parametrize("file", ["image.onnx", "text.onnx", "words.json"])
def test_a_missing_file_is_named(folder, file):
    (folder / file).unlink()
    with pytest.raises(InputError, match=f"folder of tiny must hold '{file}', got none in '"):
        OnnxDualEncoder(folder, "tiny")


@pytest.mark.parametrize("file", ["image.onnx", "text.onnx"])
def test_a_damaged_tower_is_named(folder, file):
    (folder / file).write_bytes(b"no network")
    with pytest.raises(InputError, match=rf"{file} must be an ONNX file that can be run"):
        OnnxDualEncoder(folder, "tiny")


def test_a_damaged_vocabulary_is_named(folder):
    (folder / "words.json").write_text("{")
    with pytest.raises(StoreError, match=r"words\.json must be an undamaged JSON file"):
        OnnxDualEncoder(folder, "tiny")


def test_weights_in_another_file_are_refused(folder):
    model = onnx.load(folder / "image.onnx")
    onnx.save(
        model, folder / "image.onnx", save_as_external_data=True, location="w", size_threshold=0
    )
    with pytest.raises(InputError, match="export it with its weights inside"):
        OnnxDualEncoder(folder, "tiny")


def test_other_names_of_inputs_and_outputs_are_refused(folder, weight):
    save_image(folder / "image.onnx", weight, name="x")
    with pytest.raises(InputError, match=r"must turn 'image' into 'embedding', got \['x'\]"):
        OnnxDualEncoder(folder, "tiny")
    save_image(folder / "image.onnx", weight, output="y")
    with pytest.raises(InputError, match=r"got \['image'\] and \['y'\]"):
        OnnxDualEncoder(folder, "tiny")


def test_towers_of_different_length_are_refused(folder, table):
    save_text(folder / "text.onnx", table[:, :8])
    with pytest.raises(InputError, match=r"one length, got \(1, 32\) for a picture and \(1, 8\)"):
        OnnxDualEncoder(folder, "tiny")


def test_a_vocabulary_of_another_model_is_refused(folder):
    WordTokenizer([*WORDS, "beak"], 5).write(folder / "words.json")
    with pytest.raises(InputError, match=r"words\.json of the same model"):
        OnnxDualEncoder(folder, "tiny")
    WordTokenizer(WORDS, 6).write(folder / "words.json")
    with pytest.raises(InputError, match=r"words\.json of the same model"):
        OnnxDualEncoder(folder, "tiny")


def test_the_registry_loads_it(folder, monkeypatch):
    monkeypatch.setattr(demo, "_FOLDER", folder)
    assert "demo" in VLMS
    vlm = load_vlm("demo")
    assert (vlm.name, vlm.dimension) == ("demo", E)


def test_nothing_may_follow_its_name():
    with pytest.raises(InputError, match="vlm must be 'demo' alone, got 'demo:large'; leave out"):
        load_vlm("demo:large")


def test_an_incomplete_installation_is_explained(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "_FOLDER", tmp_path / "assets")
    with pytest.raises(InputError, match=r"folder of demo must hold 'image\.onnx', got none"):
        load_vlm("demo")


def test_the_vocabulary_file_is_plain_json(folder):
    assert json.loads((folder / "words.json").read_text()) == {"words": list(WORDS), "length": 5}
