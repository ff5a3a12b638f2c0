import json

import numpy as np
import pytest

from faultlens.errors import InputError, StoreError
from faultlens.files import load_arrays, save_arrays
from faultlens.monitor import store
from faultlens.monitor.detector import DETECTORS, load_detector
from faultlens.monitor.features import Features


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.safetensors"


def draw(n=120):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, n)
    z = 2 * np.eye(6)[labels] + rng.normal(size=(n, 6))
    layers = {"stage:low": z, "squeeze:flip": z[:, :3], "vlm": z[:, 2::-1]}
    layers["attacked"] = np.arange(n)[:, None] % 4 == 0
    return Features(z, 2 * z[:, :3], z[:, ::-1].copy(), layers), labels


@pytest.mark.parametrize("name", list(DETECTORS))
def test_every_detector_comes_back_as_it_was(name, path):
    features, labels = draw()
    fitted = load_detector(name).fit(features, labels)
    digest = store.save_detector(path, fitted)
    again = store.open_detector(path)
    assert again.name == name
    np.testing.assert_array_equal(again.score(features), fitted.score(features))
    assert store.save_detector(path, again) == digest


def test_facts_and_arrays_come_back(path):
    store.save(path, "note", {"x": np.arange(3), "flag": np.array(True)}, {"told": "ü", "n": [1]})
    state, facts = store.load(path, "note")
    assert (state["x"].tolist(), bool(state["flag"]), facts) == ([0, 1, 2], True, {"told": "ü", "n": [1]})  # fmt: skip  # noqa: E501


def test_a_changed_byte_is_noticed_and_the_file_named(path):
    store.save(path, "note", {"x": np.arange(50.0)}, {})
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreError, match=r"a\.safetensors must be as it was written"):
        store.load(path, "note")


@pytest.mark.parametrize("key", ["facts", "kind", "schema", "format", "sha256"])
def test_changed_metadata_is_noticed(path, key):
    store.save(path, "note", {"x": np.arange(5.0)}, {"n": 1})
    arrays, metadata = load_arrays(path)
    save_arrays(path, {k: v.copy() for k, v in arrays.items()}, metadata | {key: "2"})
    with pytest.raises(StoreError, match=r"a\.safetensors must be"):
        store.load(path, "note")


def test_a_cut_or_absent_or_foreign_file_is_named(path):
    store.save(path, "note", {"x": np.arange(50.0)}, {})
    with pytest.raises(StoreError, match="must be a monitor, got note"):
        store.load(path, "monitor")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(StoreError, match=r"a\.safetensors must be an undamaged"):
        store.load(path, "note")
    with pytest.raises(StoreError, match="must be a readable file"):
        store.load(path.with_name("none"), "note")
    save_arrays(path, {"x": np.arange(3)})
    with pytest.raises(StoreError, match="must be a note, got another file"):
        store.load(path, "note")


def test_facts_must_be_json(path):
    with pytest.raises(InputError, match="facts must hold JSON values"):
        store.save(path, "note", {}, {"x": float("nan")})
    assert not path.exists()


def test_the_file_holds_no_code(path):
    features, labels = draw()
    store.save_detector(path, load_detector("msp").fit(features, labels))
    header = path.read_bytes()[8:]
    size = int.from_bytes(path.read_bytes()[:8], "little")
    assert json.loads(header[:size])["__metadata__"]["kind"] == "detector"
