"""Folders and files behind URLs behave as those on a disk."""

import io
import uuid

import numpy as np
import pytest
from PIL import Image

from faultlens.data.images import ImageSource, open_images
from faultlens.embeddings.extract import extract
from faultlens.embeddings.store import EmbeddingStore
from faultlens.errors import ImageError, InputError, StoreError
from faultlens.files import load_arrays, read_json, save_arrays, write_json
from faultlens.remote import RemotePath, place

pytest.importorskip("fsspec")
COLUMNS = {"mean": (1, "float32")}


@pytest.fixture
def url():
    """An empty folder in memory."""
    return f"memory://{uuid.uuid4().hex}"


def png(shade):
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (shade,) * 3).save(buffer, "PNG")
    return buffer.getvalue()


def photos(url):
    root = place(url)
    for i in range(10):
        (root / ("cat" if i < 5 else "dog") / f"{i}.png").write_bytes(png(i))
    return root


class Grey:
    def prepare(self, image):
        return np.asarray(image.convert("L"), np.float32)

    def encode(self, batch):
        return {"mean": batch.mean((1, 2))[:, None]}


def test_arrays_and_json_come_back(url):
    save_arrays(f"{url}/a.safetensors", {"w": np.eye(2)}, {"unit": "m"})
    digest = write_json(f"{url}/a.json", {"n": 3})
    arrays, metadata = load_arrays(f"{url}/a.safetensors")
    assert (arrays["w"].tolist(), metadata) == (np.eye(2).tolist(), {"unit": "m"})
    assert read_json(f"{url}/a.json", digest) == {"n": 3}
    with pytest.raises(StoreError, match=r"b\.json must be a readable file"):
        read_json(f"{url}/b.json")


def test_a_file_whose_writing_fails_is_not_there(url, monkeypatch):
    from fsspec.implementations import memory

    def fail(self, data):
        raise OSError("no more room")

    save_arrays(f"{url}/a.safetensors", {"w": np.zeros(2)})
    with monkeypatch.context() as patch:
        patch.setattr(memory.MemoryFile, "write", fail, raising=False)
        for name in ("a", "b"):
            with pytest.raises(StoreError, match="must be writable, got no more room"):
                save_arrays(f"{url}/{name}.safetensors", {"w": np.ones(2)})
    assert load_arrays(f"{url}/a.safetensors")[0]["w"].tolist() == [0, 0]
    assert [p.name for p in place(url).glob("*")] == ["a.safetensors"]


def test_a_store_behind_a_url_is_filled_resumed_and_read(url):
    photos(f"{url}/photos")
    source = open_images(f"{url}/photos")
    folder = f"{url}/store"
    with EmbeddingStore.create_or_open(folder, "key", 10, COLUMNS, 4) as store:
        store.write(1, {"mean": np.full((4, 1), 77.0)})
    with EmbeddingStore.create_or_open(folder, "key", 10, COLUMNS, 4) as store:
        assert list(store.missing()) == [0, 2]
        extract(Grey(), source, store)
    store = EmbeddingStore.open(folder)
    assert store.column("mean").ravel().tolist() == [0, 1, 2, 3, 77, 77, 77, 77, 8, 9]
    assert store.between("mean", 3, 9).ravel().tolist() == [3, 77, 77, 77, 77, 8]
    assert store.rows("mean", [9, 0]).ravel().tolist() == [9, 0]
    assert store.verify() == []


def test_a_shard_behind_a_url_is_held_against_its_hash_when_it_is_read(url):
    with EmbeddingStore.create_or_open(url, "key", 4, COLUMNS, 2) as store:
        for shard in (0, 1):
            store.write(shard, {"mean": np.ones((2, 1))})
    path = place(url) / "shard-00001.safetensors"
    good = path.read_bytes()
    path.write_bytes(good[:-1] + b"!")
    store = EmbeddingStore.open(url)
    assert store.between("mean", 0, 2).ravel().tolist() == [1, 1]
    with pytest.raises(StoreError, match="shard-00001"):
        store.between("mean", 1, 3)
    assert store.verify() == [1]
    path.write_bytes(good[:-1])
    with pytest.raises(StoreError, match="1 of 2 shards missing or damaged"):
        EmbeddingStore.open(url)


def test_a_file_url_is_an_ordinary_folder(tmp_path):
    with EmbeddingStore.create_or_open(f"file://{tmp_path}/s t", "key", 2, COLUMNS) as store:
        store.write(0, {"mean": np.ones((2, 1))})
    assert (tmp_path / "s t" / "manifest.json").is_file()
    assert not isinstance(place(f"file://{tmp_path}"), RemotePath)


def test_pictures_behind_a_url_are_those_of_a_folder(url):
    photos(url)
    source = open_images(url)
    assert source.names[5:7] == ("dog/5.png", "dog/6.png")
    assert source.class_names == ("cat", "dog")
    assert source.load(7).getpixel((0, 0)) == (7, 7, 7)
    assert source.select([9]).load(0).getpixel((0, 0)) == (9, 9, 9)
    assert len(source.scan().digests) == 10


def test_a_table_behind_a_url_names_pictures_beside_it(url):
    root = photos(url)
    (root / "images.csv").write_bytes(
        b"path,class,wheels\ncat/1.png,feline,0\ndog/7.png,canine,1\n"
    )
    source = open_images(f"{url}/images.csv")
    assert source.class_names == ("canine", "feline")
    assert source.attributes["wheels"].tolist() == [0, 1]
    assert source.load(1).getpixel((0, 0)) == (7, 7, 7)
    (root / "dog" / "7.png").unlink()
    with pytest.raises(ImageError, match=r"dog/7\.png must be a readable file"):
        source.load(1)


def test_a_wrong_url_is_told_in_one_line(url):
    with pytest.raises(InputError, match="nonsense://x must be a URL that fsspec can open, got: "):
        open_images("nonsense://x")
    with pytest.raises(InputError, match=r"got memory://.*absent\.csv"):
        open_images(f"{url}/absent.csv")


def test_errors_of_a_storage_of_its_own_kind_are_told(url, monkeypatch):
    from fsspec.implementations import memory

    class NoCredentialsError(Exception):
        pass

    def refuse(self, *args, **kwargs):
        raise NoCredentialsError("unable to locate credentials")

    photos(url)
    source = open_images(url)
    monkeypatch.setattr(memory.MemoryFileSystem, "cat_file", refuse)
    monkeypatch.setattr(memory.MemoryFileSystem, "find", refuse)
    with pytest.raises(InputError, match=r"got memory://.*: unable to locate cred.*lets you in"):
        open_images(url)
    with pytest.raises(ImageError, match=r"cat/0\.png must be .*unable to locate credentials"):
        source.load(0)


def test_a_source_behind_a_url_can_be_sent_to_a_worker(url):
    import pickle

    photos(url)
    source = pickle.loads(pickle.dumps(open_images(url)))
    assert isinstance(source, ImageSource)
    assert source.load(3).getpixel((0, 0)) == (3, 3, 3)
