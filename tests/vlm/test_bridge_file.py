"""`bridge:FILE.yaml`: what it may say, and a bridge over a real ONNX classifier."""

import numpy as np
import onnx
import pytest
from PIL import Image

from faultlens.errors import InputError
from faultlens.vlm import bridge_file
from faultlens.vlm.bridge_file import BridgeFile, read_label_texts
from faultlens.vlm.load import load_vlm

# The mean red, green and blue of a picture are its logits.
NET = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[N,3,H,W] x) => (float[N,3] y)
<float[3,3] w = {9, 0, 0, 0, 9, 0, 0, 0, 9}, float[3] b = {0, 0, 0}>
{ p = GlobalAveragePool(x)  z = Flatten(p)  y = Gemm<transB=1>(z, w, b) }
"""
DESCRIPTION = """
classes: [red, green, blue]
preprocessing: {resize: 8, crop: 8, mean: [0, 0, 0], std: [1, 1, 1]}
"""
LABELS = """
red: [red, like fire]
green: [green, like grass]
blue: [blue, like water]
"""


@pytest.fixture
def folder(tmp_path, encoder, monkeypatch):
    """A classifier with all its files, and the word encoder in place of the real one."""
    monkeypatch.setattr(bridge_file, "SentenceEncoder", lambda: encoder)
    onnx.save(onnx.parser.parse_model(NET), tmp_path / "net.onnx")
    (tmp_path / "net.yaml").write_text(DESCRIPTION)
    (tmp_path / "labels.yaml").write_text(LABELS)
    return tmp_path


def load(folder, text):
    (folder / "bridge.yaml").write_text(text)
    return load_vlm(f"bridge:{folder / 'bridge.yaml'}")


def cosines(bridge, colour, texts):
    batch = bridge.prepare(Image.new("RGB", (9, 9), colour))[None]
    vector, words = bridge.encode(batch)["embedding"][0], bridge.encode_text(texts)
    return words @ vector / np.linalg.norm(words, axis=1) / np.linalg.norm(vector)


FILES = "classifier: onnx:net.onnx\npreprocess: net.yaml\n"


def test_paths_start_from_the_folder_of_the_file(folder):
    bridge = load(folder, FILES + "labels: labels.yaml\ntop: 2\ntemperature: 0.5\n")
    assert bridge.name == "labels of onnx:net.onnx"
    found = cosines(bridge, "lime", ["like fire", "like grass", "like water"])
    assert found.argmax() == 1


def test_labels_may_stand_in_the_file_and_mean_the_same(folder):
    apart = load(folder, FILES + "labels: labels.yaml\n")
    inside = load(folder, FILES + "labels:" + LABELS.replace("\n", "\n  ").rstrip() + "\n")
    assert inside.content_hash == apart.content_hash
    default = load(folder, FILES + "labels: labels.yaml\ntop: 10\ntemperature: 1.0\n")
    assert default.content_hash == apart.content_hash
    other = load(folder, FILES + "labels: labels.yaml\ntop: 1\n")
    assert other.content_hash != apart.content_hash


def test_labels_may_be_left_out(folder):
    assert cosines(load(folder, FILES), "blue", ["red", "green", "blue"]).argmax() == 2


def test_a_label_that_the_classifier_lacks_gets_the_nearest(folder):
    with pytest.raises(InputError, match=r"got 'gren'; did you mean 'green'\?"):
        load(folder, FILES + "labels: {gren: [grass]}\n")


def test_an_unknown_classifier_gets_the_nearest(folder):
    with pytest.raises(InputError, match=r"got 'onx'; did you mean 'onnx'\?"):
        load(folder, "classifier: onx:net.onnx\n")


def test_a_file_without_a_classifier_serves_stored_logits_only(tmp_path):
    (tmp_path / "bridge.yaml").write_text("labels: {ship: [ship, hull], truck: [truck, wheels]}")
    file = BridgeFile.read(tmp_path / "bridge.yaml")
    assert file.label_texts()["ship"] == ("ship", "hull")
    with pytest.raises(InputError, match="'classifier' must be given"):
        file.load_classifier()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("clasifier: onnx:a", r"unknown key 'clasifier'; did you mean 'classifier'\?"),
        ("classifier: onnx:a\ntemprature: 2", r"did you mean 'temperature'\?"),
        ("classifier: onnx:a\nfolder: b", "unknown key 'folder'"),
        ("classifier: onnx:a\ntop: 0", "'top' is wrong: .*got 0"),
        ("classifier: onnx:a\ntemperature: .inf", "'temperature' is wrong"),
        ("classifier: onnx:a\ntext: onlin", "'text' is wrong: .*'offline'.*got 'onlin'"),
        ("classifier: onnx:a\nlabels: {ship: hull}", "'labels' must map each label to a list"),
        ("classifier: onnx:a\nlabels: [ship]", "'labels' must map each label to a list"),
        ("- classifier", "must be a YAML mapping, got list"),
        ("classifier: [", "must be a readable YAML file"),
    ],
)
def test_mistakes_are_explained(tmp_path, text, message):
    (tmp_path / "bridge.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        BridgeFile.read(tmp_path / "bridge.yaml")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"got '.*none\.yaml' \(.*No such file"):
        BridgeFile.read(tmp_path / "none.yaml")


@pytest.mark.parametrize("text", ["no: [nothing]", "ship: hull", "ship: []", "ship: [1]"])
def test_label_texts_must_be_lists_of_text(tmp_path, text):
    (tmp_path / "labels.yaml").write_text(text)
    with pytest.raises(InputError, match="each label must have a list of texts"):
        read_label_texts(tmp_path / "labels.yaml")
