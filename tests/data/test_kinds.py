from pathlib import Path

import pytest

from faultlens.config import RunConfig
from faultlens.data.decode import SUFFIXES
from faultlens.data.images import open_images
from faultlens.data.kinds import anchored, kind_of
from faultlens.errors import InputError
from faultlens.registry import IMAGES


def test_every_kind_loads_and_refuses_what_is_not_there():
    for kind in ("cifar10", "hf", "rival10", "webdataset"):
        assert kind in IMAGES
        with pytest.raises(InputError, match=r"got '\./nowhere', which does not exist"):
            open_images(f"{kind}:./nowhere")


def test_prefixes(tmp_path, monkeypatch):
    assert kind_of("hf:a/b") == ("hf", "a/b")
    assert kind_of("C:/photos") == (None, "C:/photos")
    assert kind_of("~/photos")[1] == str(Path("~/photos").expanduser())
    assert kind_of("cifar10:~/c")[1] == str(Path("~/c").expanduser())
    with pytest.raises(InputError, match="got the kind 'webdatset'; did you mean 'webdataset'"):
        kind_of("webdatset:a.tar")
    monkeypatch.chdir(tmp_path)
    Path("hf:odd").mkdir()
    assert kind_of("hf:odd") == (None, "hf:odd")


def test_paths_in_a_configuration_count_from_its_folder(tmp_path):
    assert anchored("photos", tmp_path) == str(tmp_path / "photos")
    assert anchored("hf:photos", tmp_path) == f"hf:{tmp_path / 'photos'}"
    places = {"photos": "{}/photos", "hf:d": "hf:{}/d", "/p": "/p", "s3://b/p": "s3://b/p"}
    for written, want in places.items():
        path = tmp_path / "faultlens.yaml"
        path.write_text(f"model: onnx:n.onnx\nimages: {written}\nvlm: demo\nconcepts: c\nout: o\n")
        assert RunConfig.read(path).images == want.format(tmp_path)


def test_folders_are_read_as_torchvisions_image_folder_reads_them(tree):
    """`root/class/xxx.ext`, and the same below a folder for each split."""
    root = tree("cat/1.png", "dog/2.JPG", "dog/3.jpg", "dog/notes.txt", "dog/.hidden.png")
    source = open_images(root)
    assert [(n, source.class_names[k]) for n, k in zip(source.names, source.labels, strict=True)] \
        == [("cat/1.png", "cat"), ("dog/2.JPG", "dog"), ("dog/3.jpg", "dog")]  # fmt: skip
    assert source.splits is None


def test_folders_of_splits(tree):
    root = tree("train/cat/1.png", "train/dog/2.png", "val/cat/1.png", "val/dog/a/b/4.png")
    source = open_images(root)
    assert source.splits == ("train", "train", "val", "val")
    assert source.class_names == ("cat", "dog")
    assert source.split("val").names == ("val/cat/1.png", "val/dog/a/b/4.png")
    assert open_images(root / "train").names == ("cat/1.png", "dog/2.png")


def test_endings_of_torchvision_are_known():
    assert {"jpg", "jpeg", "png", "ppm", "bmp", "pgm", "tif", "tiff", "webp"} <= SUFFIXES
