import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

import tiny_rival10
from faultlens.config import RunConfig
from faultlens.data.images import open_images
from faultlens.data.rival10 import ATTRIBUTES, attribute_masks, merged_mask, open_rival10
from faultlens.errors import InputError
from tiny_rival10 import MAPPINGS, PICTURES, WNIDS, half


@pytest.fixture
def rival10(tmp_path):
    """RIVAL10 in its published layout, five pictures of it."""
    tiny_rival10.save(tmp_path / "RIVAL10")
    return tmp_path / "RIVAL10"


def test_pictures_classes_and_attributes(rival10):
    source = open_rival10(rival10)
    assert source.names[:2] == (
        "train/ordinary/n02391049_5.JPEG",
        "train/ordinary/n03796401_7.JPEG",
    )
    assert source.class_names == ("truck", "plane", "dog", "equine", "bird")
    assert [source.class_names[k] for k in source.labels] == [
        "equine", "truck", "truck", "bird", "plane",
    ]  # fmt: skip
    assert source.splits == ("train", "train", "train", "test", "test")
    assert source.subclasses[1:3] == ("moving van", "semi")
    assert tuple(source.attributes) == ATTRIBUTES
    assert source.attributes["wheels"].tolist() == [0, 0, 1, 0, 0]
    assert source.attributes["patterned"].tolist() == [1, 0, 0, 0, 0]
    assert sum(int(v.sum()) for v in source.attributes.values()) == 4
    assert source.load(2).size == (16, 16)


def test_attributes_are_in_the_published_order():
    assert " ".join(ATTRIBUTES) == (
        "long-snout wings wheels text horns floppy-ears ears colored-eyes tail mane beak hairy "
        "metallic rectangular wet long tall patterned"
    )


def test_images_options_that_name_it(rival10, tmp_path, monkeypatch):
    names = open_rival10(rival10).names
    assert open_images(rival10).names == names
    assert open_images(f"rival10:{rival10}").names == names
    monkeypatch.chdir(tmp_path)
    assert open_images("rival10:RIVAL10").split("test").names == names[3:]
    settings = "model: onnx:n.onnx\nimages: rival10:RIVAL10\nvlm: demo\nconcepts: c.yaml\nout: o\n"
    (tmp_path / "faultlens.yaml").write_text(settings)
    config = RunConfig.read(tmp_path / "faultlens.yaml")
    monkeypatch.chdir("/")
    assert open_images(config.images).names == names


def test_one_split_alone_and_mappings_beside(rival10):
    (rival10 / "meta" / "wnid_to_class.json").rename(rival10 / "wnid_to_class.json")
    (rival10 / "meta" / "label_mappings.json").rename(rival10.parent / "label_mappings.json")
    (rival10 / "train").rename(rival10 / "kept")
    assert set(open_images(rival10).splits) == {"test"}


def test_label_files_of_one_row(rival10):
    path = rival10 / "test/ordinary/n02690373_9_attr_labels.npy"
    np.save(path, np.array([a == "wings" for a in ATTRIBUTES]))
    assert open_rival10(rival10).attributes["wings"].tolist() == [0, 0, 0, 0, 1]


def test_masks(rival10):
    source = open_rival10(rival10)
    masks = attribute_masks(source, 2)
    assert list(masks) == ["wheels", "metallic", "entire-object"]
    want = half() > 0
    assert all(np.array_equal(mask, want) for mask in masks.values())
    assert np.array_equal(merged_mask(source, 2), want)


def test_masks_as_arrays(rival10):
    path = rival10 / "train/ordinary/n02391049_5_attr_dict.pkl"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        content = {"mane": np.asfortranarray(half()), "tail": half()[:, :, None] > 0}
        path.write_bytes(pickle.dumps(content, protocol=protocol))
        masks = attribute_masks(open_rival10(rival10), 0)
        assert np.array_equal(masks["mane"], half() > 0)
        assert np.array_equal(masks["tail"], half() > 0)


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_malicious_pickle_is_refused_and_does_nothing(rival10, tmp_path):
    path = rival10 / "train/ordinary/n02391049_5_attr_dict.pkl"
    path.write_bytes(pickle.dumps({"mane": Malicious(tmp_path / "owned")}))
    with pytest.raises(InputError, match=r"plain containers, got '(posix|nt)\.mkdir'; nothing of"):
        attribute_masks(open_rival10(rival10), 0)
    assert not (tmp_path / "owned").exists()
    pickle.loads(path.read_bytes())  # what it would have done
    assert (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps([1]), "must hold a mask for each attribute, got list"),
        (pickle.dumps({"wheel": half()}), "got 'wheel'; did you mean 'wheels'"),
        (pickle.dumps({"wheels": 3}), "mask 'wheels' of .* must be an array or a picture, got int"),
        (pickle.dumps({"wheels": "%"}), "mask 'wheels' of .* must be a picture"),
        (pickle.dumps({"wheels": half()})[:40], "got a damaged one"),
        (b"", "got a damaged one"),
    ],
)
def test_masks_that_are_wrong(rival10, content, message):
    (rival10 / "train/ordinary/n02391049_5_attr_dict.pkl").write_bytes(content)
    with pytest.raises(InputError, match=message):
        attribute_masks(open_rival10(rival10), 0)


def change(root: Path, what: str) -> None:
    labels = root / "train/ordinary/n02391049_5_attr_labels.npy"
    if what == "no mapping":
        (root / "meta" / "wnid_to_class.json").unlink()
    elif what == "bad mapping":
        (root / "meta" / "label_mappings.json").write_text(json.dumps(MAPPINGS | {"zebra": 3}))
    elif what == "not json":
        (root / "meta" / "label_mappings.json").write_text("{")
    elif what == "unknown id":
        (root / "train/ordinary/n02391048_1.JPEG").write_bytes(b"")
    elif what == "unmapped class":
        (root / "meta" / "wnid_to_class.json").write_text(json.dumps(WNIDS | {"n1": "quagga"}))
        (root / "train/ordinary/n1_1.JPEG").write_bytes(b"")
    elif what == "no labels":
        labels.unlink()
    elif what == "pickled labels":
        np.save(labels, np.array([{}] * 18), allow_pickle=True)
    elif what == "short labels":
        np.save(labels, np.zeros((2, 17)))
    elif what == "other labels":
        np.save(labels, np.full((2, 18), 2))
    elif what == "nothing":
        for split in PICTURES:
            (root / split).rename(root / f"{split}2")


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("no mapping", "must come with wnid_to_class.json, got none in"),
        ("bad mapping", "label_mappings.json must map a class to a name and a number"),
        ("not json", "label_mappings.json must be valid JSON"),
        ("unknown id", "got 'n02391048'; did you mean 'n02391049'"),
        ("unmapped class", "class 'quagga' of train/ordinary/n1_1.JPEG must be in label_mapp"),
        ("no labels", "n02391049_5_attr_labels.npy must be an array of numbers"),
        ("pickled labels", "n02391049_5_attr_labels.npy must be an array of numbers"),
        ("short labels", "must hold 18 attributes as 0 or 1, .* got shape \\(2, 17\\)"),
        ("other labels", "must hold 18 attributes as 0 or 1, .* with '2'; restore"),
        ("nothing", "must hold pictures as train/ordinary"),
    ],
)
def test_what_is_wrong_is_said(rival10, what, message):
    change(rival10, what)
    with pytest.raises(InputError, match=message):
        open_images(f"rival10:{rival10}")
