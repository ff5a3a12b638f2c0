"""Small stand-ins: an encoder that counts words, and a classifier that reads colours."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

SHARED = Path(__file__).resolve().parents[3] / "shared"


class WordEncoder:
    """Each distinct word is a direction of its own; equal texts are equal, others share words."""

    content_hash = "words"
    dimension = 512  # so many that no two words of a test share one

    def __init__(self):
        self.calls = []

    def encode_text(self, texts):
        self.calls.append(list(texts))
        out = np.zeros((len(texts), self.dimension), np.float32)
        for row, text in zip(out, texts, strict=True):
            for word in text.split():
                row[int(hashlib.sha256(word.encode()).hexdigest(), 16) % self.dimension] += 1
        return out


class ColourClassifier:
    """Logits are ten times the mean of the red, green and blue channel."""

    name = "colours"
    content_hash = "colours-1"
    class_names = ("red", "green", "blue")
    tensor_hashes = frozenset({"abc"})

    def prepare(self, image):
        return np.asarray(image, np.float32).transpose(2, 0, 1) / 255

    def encode(self, batch):
        return {"embedding": batch.mean(axis=(2, 3)), "logits": 10 * batch.mean(axis=(2, 3))}


@pytest.fixture
def encoder():
    return WordEncoder()


@pytest.fixture
def classifier():
    return ColourClassifier()


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """No test reads or leaves anything in the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def shared():
    """The shared data folder, or a skip."""
    if not SHARED.is_dir():
        pytest.skip("the shared data folder is not beside the checkout")
    return SHARED
