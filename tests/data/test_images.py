from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from faultlens.data.images import ImageSource, open_images
from faultlens.errors import ImageError, InputError, ShapeError

PHOTOS = Path(__file__).parents[3] / "shared" / "photos"


def make(n=6):
    return ImageSource(
        names=tuple(f"{i}.png" for i in range(n)),
        labels=np.arange(n) % 3,
        class_names=("a", "b", "c"),
        splits=tuple("train" if i % 2 else "test" for i in range(n)),
        subclasses=tuple(f"s{i}" if i % 3 else "" for i in range(n)),
        attributes={"red": (np.arange(n) % 3 - 1).astype(np.int8)},
    )


def rows(source):
    return list(
        zip(
            source.names,
            [source.class_names[k] for k in source.labels],
            source.splits,
            source.subclasses,
            source.attributes["red"].tolist(),
            strict=True,
        )
    )


def test_folder(tree):
    root = tree("train/class10/1.png", "train/class2/2.png", "test/class2/3.png")
    source = ImageSource.from_folder(root)
    assert source.class_names == ("class2", "class10")
    assert source.names == ("test/class2/3.png", "train/class10/1.png", "train/class2/2.png")
    assert source.labels.tolist() == [0, 1, 0]
    assert source.labels.dtype == np.int64
    assert source.splits == ("test", "train", "train")
    assert source.root == str(root)
    assert source.load(1).getpixel((0, 0)) == (0, 100, 200)
    assert source.read(0) == (root / "test/class2/3.png").read_bytes()


def test_csv(tree):
    root = tree("pictures/1.png", "pictures/2.png")
    path = root / "images.csv"
    path.write_text("path,class,red\npictures/1.png,dog,1\npictures/2.png,cat,\n")
    source = ImageSource.from_csv(path)
    assert source.class_names == ("cat", "dog")
    assert source.labels.tolist() == [1, 0]
    assert source.attributes["red"].tolist() == [1, -1]
    assert source.load(1).getpixel((0, 0)) == (1, 100, 200)
    ordered = ImageSource.from_csv(path, class_names=["dog", "emu", "cat"])
    assert ordered.labels.tolist() == [0, 2]
    assert ordered.classes_without_images == ("emu",)


def test_csv_with_its_own_root(tree):
    root = tree("pictures/1.png")
    path = root / "images.csv"
    path.write_text("path,class\n1.png,dog\n")
    assert ImageSource.from_csv(path, root / "pictures").load(0).size == (4, 3)
    with pytest.raises(InputError, match=r"got 1 of 1 missing: '1.png'"):
        ImageSource.from_csv(path)


def test_csv_beside_its_images_from_the_working_directory(tree, monkeypatch):
    root = tree("1.png")
    (root / "images.csv").write_text("path,class\n1.png,dog\n")
    monkeypatch.chdir(root)
    assert open_images("images.csv").load(0).size == (4, 3)


def test_open_images_picks_the_reader(tree):
    root = tree("cat/1.png", "notes.txt")
    (root / "images.CSV").write_text("path,class\ncat/1.png,dog\n")
    assert open_images(root).class_names == ("cat",)
    assert open_images(root / "images.CSV").class_names == ("dog",)
    with pytest.raises(InputError, match=r"got the file '.*notes.txt'; give the folder"):
        open_images(root / "notes.txt")
    with pytest.raises(InputError, match=r"which does not exist; did you mean 'notes.txt'"):
        open_images(root / "notes.tx")


def test_home_is_expanded(tree, monkeypatch):
    monkeypatch.setenv("HOME", str(tree("photos/cat/1.png")))
    monkeypatch.setenv("USERPROFILE", str(Path.home()))
    assert open_images("~/photos").names == ("cat/1.png",)


@pytest.mark.parametrize("shape", [(4, 5, 6, 3), (4, 5, 6)])
def test_arrays(shape):
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    source = ImageSource.from_arrays(
        images,
        [1, 0, 1, 0],
        ["a", "b"],
        splits=["x", "x", "y", "y"],
        attributes={"red": [1, 0, -1, 1]},
    )
    assert source.names == ("array[0]", "array[1]", "array[2]", "array[3]")
    part = source.split("y").select([1, 0])
    assert part.names == ("array[3]", "array[2]")
    assert part.attributes["red"].tolist() == [1, -1]
    pixels = np.asarray(part.load(0))
    assert pixels.shape == (5, 6, 3)
    assert np.array_equal(
        pixels, images[3] if images.ndim == 4 else images[3][..., None].repeat(3, 2)
    )
    assert part.read(0) == source.read(3)
    assert len({source.read(i) for i in range(4)}) == 4


def test_arrays_are_neither_copied_nor_changed():
    images, labels = np.zeros((3, 4, 4), np.uint8), np.array([0, 0, 0])
    source = ImageSource.from_arrays(images, labels, ["a"])
    assert np.shares_memory(source.select([2, 0]).pixels, images)
    assert images.flags.writeable
    assert labels.flags.writeable
    assert not source.labels.flags.writeable
    assert not source.pixels.flags.writeable


def test_attributes_of_arrays_may_be_masks():
    images = np.zeros((2, 4, 4), np.uint8)
    source = ImageSource.from_arrays(images, [0, 0], ["a"], attributes={"red": [True, False]})
    assert source.attributes["red"].tolist() == [1, 0]
    with pytest.raises(InputError, match="attribute red must hold 1, 0 or -1, got"):
        ImageSource.from_arrays(images, [0, 0], ["a"], attributes={"red": [2, 0]})


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((2, 4, 4)), [0, 0], "must be uint8 from 0 to 255, got float64"),
        (np.zeros((2, 3, 4, 4), np.uint8), [0, 0], "move the channels last"),
        (np.zeros((0, 4, 4), np.uint8), [], "must not be empty"),
        (np.zeros((2, 4, 4), np.uint8), [0], r"labels must have one value an image \(2\), got 1"),
        (np.zeros((2, 4, 4), np.uint8), [0.0, 1.0], "labels must hold integers"),
        (np.zeros((2, 4, 4), np.uint8), [0, 2], "labels must lie in 0 to 1, got 0 to 2"),
        (np.zeros((2, 4, 4), np.uint8), [-1, 0], "labels must lie in 0 to 1, got -1 to 0"),
    ],
)
def test_bad_arrays(images, labels, message):
    with pytest.raises(InputError, match=message):
        ImageSource.from_arrays(images, labels, ["a", "b"])


@pytest.mark.parametrize("column", ["splits", "subclasses"])
def test_columns_of_another_length(column):
    with pytest.raises(ShapeError, match=f"{column} must have one value an image"):
        ImageSource(("1.png",), np.array([0]), ("a",), **{column: ("x", "y")})


def test_names_that_cannot_be_written_are_refused():
    with pytest.raises(InputError, match=r"file names must be UTF-8, got 'cat/\\udcff.png'"):
        ImageSource(("tab\t.png", "cat/\udcff.png"), np.array([0, 0]), ("cat",))


indices = st.lists(st.integers(0, 5), max_size=8)


@given(indices, st.data())
def test_select_composes(first, data):
    source = make()
    second = data.draw(st.lists(st.integers(0, max(0, len(first) - 1)), max_size=8 * bool(first)))
    twice = source.select(first).select(second)
    assert rows(twice) == rows(source.select([first[i] for i in second]))
    assert rows(twice) == [rows(source)[first[i]] for i in second]


def test_select_keeps_what_belongs_to_all():
    part = make().select([5])
    assert part.class_names == ("a", "b", "c")
    assert part.classes_without_images == ("a", "b")
    assert not part.labels.flags.writeable
    assert not part.attributes["red"].flags.writeable
    assert len(make().select([])) == 0


def test_splits_divide_the_images():
    source = make()
    parts = rows(source.split("train")) + rows(source.split("test"))
    assert sorted(parts) == sorted(rows(source))
    assert set(source.split("test").splits) == {"test"}


def test_wrong_split():
    with pytest.raises(InputError, match=r"split must be known, got 'tset'; did you mean 'test'?"):
        make().split("tset")
    with pytest.raises(InputError, match="without splits, got 'test'; leave it out"):
        ImageSource(("1.png",), np.array([0]), ("a",)).split("test")


def test_limit_is_nested_stratified_and_in_order():
    names = tuple(f"{i:03}.png" for i in range(100))
    source = ImageSource(names, np.repeat([0, 1, 2], [80, 18, 2]), ("a", "b", "c", "none"))
    few, more = source.limit(10), source.limit(50)
    assert set(few.names) < set(more.names)
    assert list(more.names) == sorted(more.names)
    assert np.bincount(few.labels).tolist() == [7, 2, 1]
    assert np.bincount(more.labels).tolist() == [40, 9, 1]
    assert source.limit(100).names == source.limit(1000).names == names
    with pytest.raises(InputError, match="limit must be at least 3, one image a class, got 2"):
        source.limit(2)


def test_match_classes():
    source = make().match_classes(["z", "c", "b", "a"])
    assert source.class_names == ("z", "c", "b", "a")
    assert [source.class_names[k] for k in source.labels] == list("abcabc")
    assert source.classes_without_images == ("z",)
    assert rows(source) == rows(make())
    assert source.match_classes(["a", "b", "c"]).labels.tolist() == make().labels.tolist()


def test_match_classes_only_minds_classes_with_images():
    part = make().select([0, 3])
    assert part.match_classes(["x", "a"]).labels.tolist() == [1, 1]
    assert len(part.select([]).match_classes(["x"])) == 0
    with pytest.raises(InputError, match="'c': known: 'a', 'b'"):
        make().match_classes(["a", "b"])


def test_unreadable_and_undecodable_files_are_named(tree):
    root = tree("cat/1.png", "cat/2.png")
    source = ImageSource.from_folder(root)
    (root / "cat/1.png").unlink()
    (root / "cat/2.png").write_text("hello")
    with pytest.raises(ImageError, match=r"cat/1.png must be a readable file, got No such file"):
        source.load(0)
    with pytest.raises(ImageError, match=r"cat/2.png must be a picture"):
        source.load(1)


def test_repr_is_short():
    assert repr(make()) == "ImageSource(6 images, 3 classes, splits test/train)"


@pytest.mark.shared
def test_photographs_by_folder_and_by_table():
    if not PHOTOS.is_dir():
        pytest.skip("the shared photographs are not beside the checkout")
    folder, table = open_images(PHOTOS), open_images(PHOTOS / "photos.csv")
    assert len(folder) == len(table) == 1539
    assert len(folder.class_names) == 13
    assert len(set(table.subclasses)) == 30
    by_name = dict(zip(table.names, zip(table.labels, table.splits, strict=True), strict=True))
    assert by_name == dict(
        zip(folder.names, zip(folder.labels, folder.splits, strict=True), strict=True)
    )
    assert folder.class_names == table.class_names
    assert folder.load(0).mode == "RGB"
