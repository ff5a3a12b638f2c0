import os
from pathlib import Path

import pytest

from faultlens.data.folders import list_folder
from faultlens.errors import InputError


def test_class_layout(tree):
    root = tree("dog/2.png", "dog/1.JPG", "cat/x.bmp", "README.md", "photos.csv", "dog/notes.txt")
    listing = list_folder(str(root))
    assert listing.names == ["cat/x.bmp", "dog/1.JPG", "dog/2.png"]
    assert listing.classes == ["cat", "dog", "dog"]
    assert listing.splits is None


def test_split_layout_goes_to_any_depth(tree):
    root = tree("train/cat/a/b/1.png", "train/cat/2.png", "test/dog/3.png")
    listing = list_folder(str(root))
    assert listing.names == ["test/dog/3.png", "train/cat/2.png", "train/cat/a/b/1.png"]
    assert listing.classes == ["dog", "cat", "cat"]
    assert listing.splits == ["test", "train", "train"]


def test_hidden_entries_are_ignored(tree):
    root = tree("cat/1.png", "cat/._1.png", ".cache/dog/2.png", "cat/.thumbs/3.png")
    assert list_folder(str(root)).names == ["cat/1.png"]


def test_missing_root_names_the_nearest(tree):
    root = tree("photos/cat/1.png")
    with pytest.raises(InputError, match=r"must be a folder, got .*did you mean 'photos'"):
        list_folder(str(root / "photso"))
    with pytest.raises(InputError, match=r"there is no folder '.*nowhere' either"):
        list_folder(str(root / "nowhere" / "photos"))


def test_a_file_is_no_folder(tree):
    root = tree("cat/1.png")
    with pytest.raises(InputError, match="must be a readable folder, got"):
        list_folder(str(root / "cat" / "1.png"))


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ([], "must hold pictures as root/<class>/image or .* got none; known endings: avif,"),
        (["cat/notes.txt"], "must hold pictures"),
        (["1.png", "cat/2.png"], "got '1.png' directly in it; move them into class folders"),
        (["1.png"], "got '1.png' directly in it"),
        (["cat/1.png", "train/dog/2.png"], "got both: 'cat/1.png' and 'train/dog/2.png'"),
        (["cat/1.png", "cat/deep/2.png"], "got both: 'cat/1.png' and 'cat/deep/2.png'"),
        (["cat/1.png", "dog/"], "every class folder must hold pictures, got none in 'dog'"),
        (["cat/1.png", "dog/x.txt", "emu/"], "got none in 'dog', 'emu'"),
        (["train/cat/1.png", "train/dog/"], "got none in 'train/dog'"),
        (["train/cat/1.png", "val/"], "got none in 'val'"),
    ],
)
def test_bad_layouts(tree, paths, message):
    with pytest.raises(InputError, match=message):
        list_folder(str(tree(*paths)))


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_links_are_followed_but_not_in_circles(tree):
    root = tree("a/cat/1.png", "b/")
    (root / "b" / "dog").symlink_to(root / "a" / "cat", target_is_directory=True)
    assert list_folder(str(root)).classes == ["cat", "dog"]
    (root / "a" / "cat" / "up").symlink_to(root, target_is_directory=True)
    with pytest.raises(InputError, match="is there a link back to a folder above"):
        list_folder(str(root))


def test_order_does_not_depend_on_the_file_system(tree, monkeypatch):
    root = tree(*(f"{c}/{i}.png" for c in "zab" for i in range(5)))
    expected = list_folder(str(root)).names
    scandir = os.scandir

    class Reversed:
        def __init__(self, path):
            self.entries = list(scandir(path))[::-1]

        def __enter__(self):
            return iter(self.entries)

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(os, "scandir", Reversed)
    assert list_folder(str(root)).names == expected == sorted(expected)


def test_names_have_forward_slashes(tree):
    root = tree("train/cat/x/1.png")
    assert list_folder(str(root)).names == [Path("train", "cat", "x", "1.png").as_posix()]
