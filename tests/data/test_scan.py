import hashlib

import pytest

from faultlens.data.images import ImageSource
from faultlens.data.scan import check_failures, scan_files
from faultlens.errors import ImageError, InputError


def test_digests_and_failures(tree):
    root = tree("cat/1.png", "cat/2.png", "cat/3.png", "cat/4.png")
    source = ImageSource.from_folder(root)
    (root / "cat/2.png").write_text("hello")
    (root / "cat/3.png").write_bytes(b"")
    (root / "cat/4.png").unlink()
    scan = source.scan()
    assert scan.digests[0] == hashlib.sha256((root / "cat/1.png").read_bytes()).hexdigest()
    assert scan.digests[1] == hashlib.sha256(b"hello").hexdigest()
    assert scan.digests[2] == scan.digests[3] == hashlib.sha256().hexdigest()
    assert sorted(scan.failures) == [1, 2, 3]
    assert scan.failures[1].startswith("cat/2.png must be a picture, got bytes of no known format")
    assert "an empty file" in scan.failures[2]
    assert "No such file" in scan.failures[3]


def test_pixels_are_not_decoded(tree, encode, textured):
    root = tree("cat/1.jpg")
    data = encode(textured(0), "JPEG")
    (root / "cat/1.jpg").write_bytes(data[: len(data) // 2])
    assert ImageSource.from_folder(root).scan().failures == {}


def test_a_bomb_stops_the_scan_and_is_named(tree, png_header):
    root = tree("cat/1.png", "cat/2.png")
    (root / "cat/2.png").write_bytes(png_header(50_000, 50_000))
    with pytest.raises(InputError, match=r"^cat/2.png must have at most 178,956,970 pixels") as e:
        ImageSource.from_folder(root).scan()
    assert not isinstance(e.value, ImageError)
    assert ImageSource.from_folder(root).scan(max_pixels=2_500_000_000).failures == {}


def test_the_first_of_two_bombs_is_named(png_header):
    data = png_header(1000, 1000)
    names = [f"{i}.png" for i in range(1000)]
    good = png_header(10, 10)
    with pytest.raises(InputError, match=r"^300.png"):
        scan_files(lambda i: data if i in (300, 999) else good, names, max_pixels=100)


def test_order_is_that_of_the_images_and_progress_ends_at_the_number():
    calls = []
    names = [str(i) for i in range(1000)]
    scan = scan_files(
        lambda i: str(i).encode(), names, 100, progress=lambda done, n: calls.append((done, n))
    )
    assert list(scan.digests) == [hashlib.sha256(n.encode()).hexdigest() for n in names]
    assert calls[-1] == (1000, 1000)
    assert calls == sorted(calls)


def test_failures_up_to_the_fraction_are_allowed():
    failures = {i: f"{i}.png must be a picture" for i in range(10)}
    check_failures({}, 1)
    check_failures(failures, 1000)
    check_failures(failures, 10, max_fraction=1.0)
    with pytest.raises(InputError):
        check_failures(failures, 999)


def test_too_many_failures_name_five_and_the_way_out():
    failures = {i: f"{i}.png must be a picture, got an empty file" for i in (9, 8, 7, 6, 5, 4, 3)}
    with pytest.raises(InputError) as error:
        check_failures(failures, 100, max_fraction=0.025)
    lines = str(error.value).splitlines()
    assert lines[0] == "at most 2.5% of the images may fail to decode, got 7 of 100:"
    assert lines[1:6] == [f"  {i}.png must be a picture, got an empty file" for i in range(3, 8)]
    assert lines[6:] == [
        "  … and 2 more",
        "mend them, or raise max_fraction (now 0.025) to go on without them",
    ]
