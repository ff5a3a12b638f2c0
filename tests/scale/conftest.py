import numpy as np
import pytest


@pytest.fixture(scope="session")
def data():
    """Rows in three parts, of which the last is short: z, v, logits, labels."""
    n, d, e, k = 270_000, 6, 5, 3
    rng = np.random.default_rng(0)
    z = rng.normal(size=(n, d)).astype(np.float32)
    v = (z @ rng.normal(size=(d, e)) + 0.3 * rng.normal(size=(n, e))).astype(np.float32)
    logits = (z[:, :k] + 0.5 * rng.normal(size=(n, k))).astype(np.float32)
    return {"z": z, "v": v, "logits": logits, "labels": z[:, :k].argmax(axis=1)}


@pytest.fixture
def log(tmp_path):
    (tmp_path / "log").mkdir()
    return tmp_path / "log"
