"""A full run on features as large as a ResNet-18's on 10,000 images, timed."""

import shutil
import time

import numpy as np

from faultlens.data.world.names import CLASSES
from faultlens.files import save_arrays
from faultlens.session import DebugSession
from planting import nets, subjects
from planting.instances import instance
from planting.observe import observe

N, D = 10_000, 512


def seconds() -> float:
    """Spread the embeddings of a faulty network over 512 dimensions, and debug them."""
    seen = observe(instance("D1", 0), N)
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(seen.embedding.shape[1], D)).astype(np.float32)
    # The head goes along: its logits stay as they are.
    weight = seen.weight @ np.linalg.pinv(mixing).T
    folder = nets.WORK / "large"
    shutil.rmtree(folder, ignore_errors=True)
    arrays = {
        "embedding": seen.embedding @ mixing,
        "logits": seen.logits,
        "label": seen.labels,
        "vlm_embedding": seen.vlm,
    }
    import json

    save_arrays(folder / "features.safetensors", arrays, {"class_names": json.dumps(CLASSES)})
    save_arrays(folder / "head.safetensors", {"weight": weight, "bias": seen.bias})
    start = time.perf_counter()
    DebugSession.run(
        features=folder / "features.safetensors", head=folder / "head.safetensors",
        vlm="demo", concepts=subjects.CONCEPTS, out=folder / "session",
    )  # fmt: skip
    return time.perf_counter() - start
