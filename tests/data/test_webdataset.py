import io
import json
import tarfile

import pytest
from PIL import Image

from faultlens.data.images import open_images
from faultlens.data.webdataset import open_webdataset
from faultlens.errors import ImageError, InputError


def picture(value, kind="PNG"):
    buffer = io.BytesIO()
    Image.new("RGB", (4, 3), (value, 0, 0)).save(buffer, kind)
    return buffer.getvalue()


def write(path, files, mode="w"):
    """A tar archive of (name, bytes), as the webdataset package writes them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:
        for name, data in files:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def samples(*rows):
    return [
        (f"{key}.{ending}", data)
        for key, value, label in rows
        for ending, data in (("cls", str(label).encode()), ("png", picture(value)))
    ]


def test_archives(tmp_path):
    write(tmp_path / "001.tar", samples(("c", 30, "dog")))
    write(tmp_path / "000.tar", samples(("a", 10, "dog"), ("b", 20, "cat")))
    source = open_images(tmp_path)
    assert source.names == ("000.tar/a.png", "000.tar/b.png", "001.tar/c.png")
    assert source.class_names == ("cat", "dog")
    assert source.labels.tolist() == [1, 0, 1]
    assert source.splits is None
    assert [source.load(i).getpixel((0, 0))[0] for i in (2, 0, 1)] == [30, 10, 20]
    assert source.read(1) == picture(20)
    assert source.select([2]).read(0) == picture(30)
    assert not source.scan().failures
    assert open_images(tmp_path / "001.tar").names == ("001.tar/c.png",)


def test_splits_and_class_names(tmp_path):
    (tmp_path / "classnames.txt").write_text("emu\ndog\ncat\n")
    write(tmp_path / "test" / "0.tar", samples(("a", 10, 2)))
    write(tmp_path / "train" / "0.tar", samples(("a", 20, 1), ("b", 30, 2)))
    source = open_images(f"webdataset:{tmp_path}")
    assert source.names == ("test/0.tar/a.png", "train/0.tar/a.png", "train/0.tar/b.png")
    assert source.splits == ("test", "train", "train")
    assert source.class_names == ("emu", "dog", "cat")
    assert source.labels.tolist() == [2, 1, 2]
    assert source.split("train").load(0).getpixel((0, 0))[0] == 20
    alone = open_images(tmp_path / "train" / "0.tar")
    assert alone.class_names == ("emu", "dog", "cat")


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"label": 3}, "3"),
        ({"class_name": "cat", "width": 4}, "cat"),
        ({"cls": "dog", "class_name": "cat"}, "dog"),
    ],
)
def test_classes_in_json(tmp_path, values, name):
    files = [("d/x.jpg", picture(1, "JPEG")), ("d/x.json", json.dumps(values).encode())]
    source = open_images(write(tmp_path / "a.tar", files))
    assert source.names == ("a.tar/d/x.jpg",)
    assert source.class_names == (name,)


def test_what_else_is_in_an_archive(tmp_path):
    files = [
        ("README.md", b"notes"),
        ("./a.cls", b"1\n"),
        ("./a.jpg", picture(9, "JPEG")),
        ("./a.seg.png", picture(0)),
        ("./._a.jpg", b"from another system"),
    ]
    path = write(tmp_path / "a.tar", files)
    with tarfile.open(path, "a") as tar:
        link = tarfile.TarInfo("b.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    assert open_images(path).names == ("a.tar/a.jpg",)


def broken(path, what):  # noqa: PLR0912 (one branch a mistake)
    rows = (("a", 10, "dog"), ("b", 20, "cat"))
    if what == "cut in a file":
        data = write(path, samples(*rows)).read_bytes()
        path.write_bytes(data[:2300])
    elif what == "cut between files":
        data = write(path, samples(*rows)).read_bytes()
        path.write_bytes(data[:2048])
    elif what == "header":
        data = bytearray(write(path, samples(*rows)).read_bytes())
        data[2048:2060] = b"?" * 12
        path.write_bytes(data)
    elif what == "first header":
        path.write_bytes(b"?" * 4096)
    elif what == "empty":
        path.write_bytes(b"")
    elif what == "compressed":
        write(path, samples(*rows), "w:gz")
    elif what == "nothing":
        write(path, [])
    elif what == "no class":
        write(path, [("a.png", picture(1))])
    elif what == "no class in json":
        write(path, [("a.png", picture(1)), ("a.json", b'{"caption": "a cat"}')])
    elif what == "bad json":
        write(path, [("a.png", picture(1)), ("a.json", b"{")])
    elif what == "no picture":
        write(path, [*samples(*rows), ("c.cls", b"1")])
    elif what == "two pictures":
        write(path, [*samples(*rows), ("b.jpg", picture(1, "JPEG"))])
    elif what == "twice":
        write(path, samples(*rows, rows[0]))
    elif what == "few names":
        (path.parent / "classes.txt").write_text("cat\n")
        write(path, samples(("a", 1, 0), ("b", 2, 1)))


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("cut in a file", "must be a tar archive, neither damaged|breaks off"),
        ("cut between files", "must be a complete tar archive, .* at byte 2048; restore it"),
        ("header", "must be a complete tar archive, .* at byte 2048; restore it"),
        ("first header", "must be a tar archive, neither damaged nor compressed"),
        ("empty", "must be a tar archive, neither damaged nor compressed"),
        ("compressed", "must be a tar archive, neither damaged nor compressed"),
        ("nothing", "must hold pictures in tar archives, got none"),
        ("no class", r"a\.tar/a\.png must have a class in \.cls, or in \.json under"),
        ("no class in json", r"a\.tar/a\.png must have a class in \.cls"),
        ("bad json", r"the \.json of a\.tar/a\.png must be readable"),
        ("no picture", "sample 'c' of .* must have one picture, got 0 among 'cls'"),
        ("two pictures", "sample 'b' of .* must have one picture, got 2"),
        ("twice", r"must hold every file once, got 'a\.cls' twice"),
        ("few names", r"a\.tar/b\.png must be below 1, the number of class names, got 1"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, what, message):
    path = tmp_path / "a.tar"
    broken(path, what)
    with pytest.raises(InputError, match=message):
        open_webdataset(path)


def test_archives_in_both_places_or_none(tmp_path):
    (tmp_path / "x").mkdir()
    with pytest.raises(InputError, match="one folder a split, got none"):
        open_webdataset(tmp_path)
    write(tmp_path / "a.tar", samples(("a", 1, 1)))
    write(tmp_path / "x" / "a.tar", samples(("a", 1, 1)))
    with pytest.raises(InputError, match="one folder a split, got both"):
        open_webdataset(tmp_path)


def test_an_archive_that_is_gone(tmp_path):
    source = open_images(write(tmp_path / "a.tar", samples(("a", 1, 1))))
    (tmp_path / "a.tar").unlink()
    with pytest.raises(ImageError, match=r"a\.tar/a\.png must be in a readable archive"):
        source.read(0)


def test_an_archive_beside_class_folders_is_left_alone(tree):
    root = tree("cat/1.png", "dog/2.png")
    write(root / "copy.tar", samples(("a", 1, 1)))
    write(root / "cat" / "copy.tar", samples(("a", 1, 1)))
    assert open_images(root).names == ("cat/1.png", "dog/2.png")
