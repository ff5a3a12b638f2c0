import pickle

import numpy as np
import pytest

from faultlens.data.cifar10 import open_cifar10
from faultlens.data.images import open_images
from faultlens.errors import InputError

NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
BATCHES = {"data_batch_1": [3, 9], "data_batch_2": [0], "test_batch": [8, 1, 9]}


def pixels(batch, i):
    seed = 10 * list(BATCHES).index(batch) + i
    return np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)


def rows(batch):
    """(n, 3072) uint8: all red, then all green, then all blue values, row by row."""
    pictures = [pixels(batch, i) for i in range(len(BATCHES[batch]))]
    return np.array([[p[:, :, c].ravel() for c in range(3)] for p in pictures]).reshape(-1, 3072)


@pytest.fixture
def binary(tmp_path):
    for batch, labels in BATCHES.items():
        records = np.hstack([np.array(labels, np.uint8)[:, None], rows(batch)])
        (tmp_path / f"{batch}.bin").write_bytes(records.tobytes())
    (tmp_path / "batches.meta.txt").write_text("\n".join(NAMES) + "\n\n")
    (tmp_path / "readme.html").write_text("<a>")
    return tmp_path


@pytest.fixture
def pickled(tmp_path):
    for batch, labels in BATCHES.items():
        content = {b"batch_label": b"x", b"data": rows(batch), b"labels": labels}
        (tmp_path / batch).write_bytes(pickle.dumps(content, protocol=2))
    meta = {b"label_names": [n.encode() for n in NAMES], b"num_vis": 3072}
    (tmp_path / "batches.meta").write_bytes(pickle.dumps(meta, protocol=2))
    return tmp_path


@pytest.mark.parametrize("layout", ["binary", "pickled"])
def test_pictures_and_labels(layout, request):
    root = request.getfixturevalue(layout)
    for path in (root, f"cifar10:{root}"):
        source = open_images(path)
        assert source.class_names == NAMES
        assert source.labels.tolist() == [3, 9, 0, 8, 1, 9]
        assert source.splits == ("train",) * 3 + ("test",) * 3
        assert source.names[1:4] == ("data_batch_1[1]", "data_batch_2[0]", "test_batch[0]")
        test = source.split("test")
        np.testing.assert_array_equal(np.asarray(test.load(2)), pixels("test_batch", 2))
        np.testing.assert_array_equal(np.asarray(source.load(1)), pixels("data_batch_1", 1))
        assert not source.scan().failures


def test_mistakes_in_binary(binary):
    with (binary / "test_batch.bin").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(InputError, match="must hold records of 3073 bytes, got 9220 bytes"):
        open_images(binary)
    (binary / "test_batch.bin").write_bytes(b"")
    with pytest.raises(InputError, match="must hold records of 3073 bytes, got 0 bytes"):
        open_images(binary)
    (binary / "test_batch.bin").write_bytes(bytes([10, *[0] * 3072]))
    with pytest.raises(InputError, match="labels must lie in 0 to 9, got 0 to 10"):
        open_images(binary)
    (binary / "test_batch.bin").unlink()
    assert set(open_images(binary).splits) == {"train"}
    (binary / "batches.meta.txt").write_text("\n")
    with pytest.raises(InputError, match=r"batches\.meta\.txt' must name the classes, got none"):
        open_images(binary)
    (binary / "batches.meta.txt").unlink()
    with pytest.raises(InputError, match=r"batches\.meta\.txt' must be a readable file"):
        open_images(binary)


class Calls:
    def __reduce__(self):
        return print, ("owned",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({b"data": Calls(), b"labels": [1]}, r"got 'builtins\.print'; nothing of it was run"),
        ({b"data": np.zeros((1, 3071), np.uint8), b"labels": [1]}, "one row of 3072 bytes"),
        ({b"data": np.zeros((1, 3072)), b"labels": [1]}, "one row of 3072 bytes"),
        ({b"data": np.zeros((1, 3072), np.uint8)}, "and 'labels', got something else"),
        ([1], "must hold a dictionary, got list"),
    ],
)
def test_mistakes_in_pickles(pickled, content, message, capfd):
    (pickled / "data_batch_2").write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(InputError, match=message):
        open_images(pickled)
    assert capfd.readouterr().out == ""


def test_no_batches(tmp_path):
    with pytest.raises(InputError, match=r"must hold batches of CIFAR-10, data_batch_1\.bin or"):
        open_cifar10(tmp_path)
