"""A tiny encoder, and pictures that know their row."""

import threading

import numpy as np
import pytest
from PIL import Image

from faultlens.embeddings.store import EmbeddingStore
from faultlens.errors import ImageError

COLUMNS = {"embedding": (3, "float32"), "logits": (2, "float32")}


class Pictures:
    """Row i is a picture whose pixels say i; rows in `broken` cannot be read."""

    def __init__(self, n, broken=()):
        self.names = [f"{i}.png" for i in range(n)]
        self.broken = broken
        self.loaded = []

    def __len__(self):
        return len(self.names)

    def load(self, index):
        self.loaded.append(index)
        if index in self.broken:
            raise ImageError(f"{self.names[index]} must be a picture, got mud; repair it")
        return Image.new("RGB", (2, 2), (index % 256, index // 256, 0))


class Encoder:
    """Each row depends on its picture alone, bit for bit."""

    def __init__(self):
        self.batches = []

    def prepare(self, image):
        return np.asarray(image, dtype=np.float32).transpose(2, 0, 1)

    def encode(self, batch):
        row = batch[:, 0, 0, 0] + 256 * batch[:, 1, 0, 0]
        self.batches.append(row.astype(int).tolist())
        embedding = np.stack([row, np.sin(row), 1 / (row + 1)], axis=1)
        return {"embedding": embedding, "logits": embedding[:, :2] * 2, "unused": row}


def expected(n):
    """Return the embedding of the first n pictures."""
    row = np.arange(n, dtype=np.float32)
    return np.stack([row, np.sin(row), 1 / (row + 1)], axis=1)


@pytest.fixture(scope="session")
def pictures():
    return Pictures


@pytest.fixture(scope="session")
def encoder_type():
    return Encoder


@pytest.fixture
def encoder():
    return Encoder()


@pytest.fixture(scope="session")
def embedding_of():
    return expected


@pytest.fixture
def open_store(tmp_path):
    """Return a function that makes or opens a small store; all are closed at the end."""
    stores = []

    def make(n, shard_rows=4, **changes):
        arguments = {"folder": tmp_path / "store", "key": "key", "columns": COLUMNS} | changes
        stores.append(EmbeddingStore.create_or_open(n_rows=n, shard_rows=shard_rows, **arguments))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


@pytest.fixture
def fill():
    """Return a function that writes shards (all that are missing unless told) of known values."""

    def write(store, shards=None, notes=None):
        for shard in store.missing() if shards is None else shards:
            rows = store.layout.rows(shard)
            embedding = expected(rows.stop)[rows.start :]
            store.write(shard, {"embedding": embedding, "logits": embedding[:, :2]}, notes)

    return write


@pytest.fixture(autouse=True)
def _no_thread_stays_behind():
    yield
    assert [t.name for t in threading.enumerate() if t.name.startswith("faultlens")] == []
