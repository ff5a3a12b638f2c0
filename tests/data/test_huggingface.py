import pickle

import pytest
from PIL import Image

from faultlens.data.huggingface import _Stored, open_huggingface
from faultlens.data.images import open_images
from faultlens.errors import ImageError, InputError, MissingDependencyError

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def silent():
    datasets.disable_progress_bars()


def pictures(n):
    return [Image.new("RGB", (4, 3), (10 * i, 0, 0)) for i in range(n)]


def dataset(n=5, label=None, **more):
    label = label or datasets.ClassLabel(names=["dog", "cat", "emu"])
    features = {"image": datasets.Image(), "label": label}
    values = {"image": pictures(n), "label": [i % 2 for i in range(n)]}
    for name, (feature, column) in more.items():
        features[name], values[name] = feature, column
    return datasets.Dataset.from_dict(values, features=datasets.Features(features))


def test_one_part(tmp_path):
    wet = [True, False, None, True, False]
    dataset(wet=(datasets.Value("bool"), wet)).save_to_disk(tmp_path)
    source = open_images(tmp_path)
    assert source.names == ("0", "1", "2", "3", "4")
    assert source.class_names == ("dog", "cat", "emu")
    assert source.labels.tolist() == [0, 1, 0, 1, 0]
    assert source.splits is None
    assert source.root == str(tmp_path)
    assert source.attributes["wet"].tolist() == [1, 0, -1, 1, 0]
    assert source.load(3).getpixel((0, 0)) == (30, 0, 0)
    assert source.select([4, 2]).load(0).getpixel((0, 0)) == (40, 0, 0)
    assert not source.scan().failures
    assert pickle.loads(pickle.dumps(source)).read(1) == source.read(1)


def test_bytes_are_those_that_the_library_stores(tmp_path):
    dataset(2).save_to_disk(tmp_path)
    raw = datasets.load_from_disk(str(tmp_path)).cast_column("image", datasets.Image(decode=False))
    source = open_huggingface(tmp_path)
    assert [source.read(i) for i in range(2)] == [row["bytes"] for row in raw["image"]]


def test_parts_are_splits(tmp_path):
    whole = dataset(6)
    parts = {"train": whole.select([5, 0, 2]), "test": whole.select([1, 3])}
    datasets.DatasetDict(parts).save_to_disk(tmp_path)
    for path in (tmp_path, f"hf:{tmp_path}"):
        source = open_images(path)
        assert source.splits == ("train",) * 3 + ("test",) * 2
        assert source.names[2:4] == ("train/2", "test/0")
        test = source.split("test")
        assert test.load(1).getpixel((0, 0)) == (30, 0, 0)
        assert source.load(0).getpixel((0, 0)) == (50, 0, 0)


def test_labels_that_are_words_or_bare_numbers(tmp_path):
    words = dataset(2, datasets.Value("string")).map(lambda row: {"label": "ab"[int(row["label"])]})
    words.save_to_disk(tmp_path / "words")
    assert open_images(tmp_path / "words").class_names == ("a", "b")
    dataset(3, datasets.Value("int64")).save_to_disk(tmp_path / "numbers")
    source = open_images(tmp_path / "numbers")
    assert [source.class_names[k] for k in source.labels] == ["0", "1", "0"]


def test_files_beside(tmp_path):
    pictures(2)[1].save(tmp_path / "a.png")
    cells = [{"bytes": None, "path": str(tmp_path / n)} for n in ("a.png", "b.png")]
    part = [{"image": cell} for cell in (*cells, None)]
    stored = _Stored((part[:1], part[1:]), "image", ("0", "1", "2"), str(tmp_path))
    assert stored(0) == (tmp_path / "a.png").read_bytes()
    with pytest.raises(ImageError, match=r"1 must be a readable file, got '.*b\.png'"):
        stored(1)
    with pytest.raises(ImageError, match="2 must be a picture, got none"):
        stored(2)


def change(folder, what):
    whole = dataset(3)
    if what == "no images":
        whole = whole.remove_columns("image")
    elif what == "two images":
        whole = dataset(3, other=(datasets.Image(), pictures(3)))
    elif what == "no classes":
        whole = whole.remove_columns("label")
    elif what == "two classes":
        kind = datasets.ClassLabel(names=["a"])
        whole = dataset(3, kind=(kind, [0] * 3)).rename_column("label", "species")
    elif what == "kept back":
        whole = whole.map(lambda row, i: {"label": -1 if i == 1 else 0}, with_indices=True)
    elif what == "several":
        whole = whole.remove_columns("label").add_column("label", [[1, 2]] * 3)
    elif what == "other parts":
        parts = {"a": whole, "b": whole.cast_column("label", datasets.Value("int64"))}
        whole = datasets.DatasetDict()
        for name, part in parts.items():
            whole[name] = part
    whole.save_to_disk(folder)
    if what == "damaged":
        file = next(folder.glob("*.arrow"))
        file.write_bytes(file.read_bytes()[:40])


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("no images", "must have one column of images, got 0 among 'label'"),
        ("two images", "must have one column of images, got 2 among 'image', 'label', 'other'"),
        ("no classes", "must have one column of classes, got 0 among 'image'; name it 'label'"),
        ("two classes", "must have one column of classes, got 2"),
        ("kept back", "must have one class, got -1 in row 1"),
        ("several", r"must have one class, got \[1, 2\] in row 0"),
        ("other parts", "must have the same columns, got others: 'b'"),
        ("damaged", "got one that cannot be read"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, what, message):
    change(tmp_path / "d", what)
    with pytest.raises(InputError, match=message):
        open_images(f"hf:{tmp_path / 'd'}")


def test_without_the_package_the_extra_is_named(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'faultlens\[datasets\]'"):
        open_images(f"hf:{tmp_path}")
