"""Dual encoders of open_clip: the numbers of the library itself."""

import json
import sys

import numpy as np
import pytest

import tiny_clip
from faultlens.arrays import tensor_hashes
from faultlens.errors import InputError, MissingDependencyError, ShapeError
from faultlens.vlm.backend import VlmBackend
from faultlens.vlm.load import load_vlm

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.torch
PREPROCESSING = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3], "interpolation": "bilinear",
                 "resize_mode": "squash"}  # fmt: skip
SHAPE = {
    "embed_dim": 12,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 16, "head_width": 8, "patch_size": 8},
    "text_cfg": {
        "context_length": 20, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def library(torchvision_operators, tmp_path_factory):
    """The package, with a tiny architecture."""
    found = pytest.importorskip("open_clip")
    folder = tmp_path_factory.mktemp("architectures")
    (folder / "tiny-ViT.json").write_text(json.dumps(SHAPE))
    found.add_model_config(folder)
    return found


@pytest.fixture
def file(library, tmp_path):
    """A checkpoint with its preprocessing beside it."""
    from safetensors.torch import save_file

    torch.manual_seed(0)
    path = tmp_path / "tiny.safetensors"
    save_file(library.create_model("tiny-ViT", load_weights=False).state_dict(), path)
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"preprocess_cfg": PREPROCESSING}))
    return path


@pytest.fixture
def vlm(file):
    return load_vlm(f"open_clip:tiny-ViT@{file}")


def test_the_numbers_are_the_librarys(library, file, vlm):
    model, _, transform = library.create_model_and_transforms(
        "tiny-ViT", pretrained=str(file), image_mean=PREPROCESSING["mean"],
        image_std=PREPROCESSING["std"], image_interpolation="bilinear", image_resize_mode="squash",
    )  # fmt: skip
    model.eval()
    pictures = tiny_clip.pictures()
    with torch.inference_mode():
        images = model.encode_image(torch.stack([transform(p) for p in pictures])).numpy()
        texts = model.encode_text(library.get_tokenizer("tiny-ViT")(tiny_clip.TEXTS)).numpy()
    batch = np.stack([vlm.prepare(p) for p in pictures])
    assert np.allclose(vlm.encode(batch)["embedding"], images, atol=1e-6)
    assert np.allclose(vlm.encode_text(tiny_clip.TEXTS), texts, atol=1e-6)


def test_it_is_a_backend(vlm):
    assert isinstance(vlm, VlmBackend)
    assert (vlm.name, vlm.dimension, len(vlm.content_hash)) == ("open_clip:tiny-ViT", 12, 64)
    image = vlm.model.visual.parameters()
    assert vlm.tensor_hashes == tensor_hashes(p.detach().numpy() for p in image)


def test_the_hash_follows_weights_and_preprocessing(library, file, vlm):
    seen = {vlm.content_hash}
    config = file.parent / "open_clip_config.json"
    config.write_text(json.dumps({"preprocess_cfg": PREPROCESSING | {"std": [1, 1, 1]}}))
    seen.add(load_vlm(f"open_clip:tiny-ViT@{file}").content_hash)
    from safetensors.torch import save_file

    torch.manual_seed(1)
    save_file(library.create_model("tiny-ViT", load_weights=False).state_dict(), file)
    seen.add(load_vlm(f"open_clip:tiny-ViT@{file}").content_hash)
    seen.add(load_vlm(f"open_clip:tiny-ViT@{file},dtype=bfloat16").content_hash)
    assert len(seen) == 4


def test_preprocessing_is_never_filled_in(file):
    config = file.parent / "open_clip_config.json"
    config.write_text(json.dumps({"preprocess_cfg": {"mean": [0, 0, 0]}}))
    with pytest.raises(InputError, match=r"open_clip_config\.json must state 'std'"):
        load_vlm(f"open_clip:tiny-ViT@{file}")
    config.write_text(json.dumps({"preprocess_cfg": PREPROCESSING | {"size": 48}}))
    with pytest.raises(InputError, match=r"of shape \(3, 32, 32\) for this model, got \(3, 48, 48"):
        load_vlm(f"open_clip:tiny-ViT@{file}")
    config.unlink()
    with pytest.raises(InputError, match=r"must hold 'open_clip_config\.json', got none"):
        load_vlm(f"open_clip:tiny-ViT@{file}")


def test_wrong_words_are_explained(library, file):
    from safetensors.torch import load_file, save_file

    state = load_file(file)
    del state["visual.proj"]
    save_file(state, part := file.with_name("part.safetensors"))
    cases = {
        "open_clip:tiny-ViT": r"vlm must be 'open_clip:ARCHITECTURE@FILE\.safetensors'",
        f"open_clip:tiny-Vit@{file}": "got 'tiny-Vit'; did you mean 'tiny-ViT'",
        "open_clip:tiny-ViT@absent.safetensors": "checkpoint must be an existing file, got 'absent",
        f"open_clip:tiny-ViT@{part}": r"checkpoint must be one of tiny-ViT, got '.*part\.safet",
        f"open_clip:tiny-ViT@{file},device=gpu": "device must be one that PyTorch can use",
    }
    for spec, message in cases.items():
        with pytest.raises(InputError, match=message):
            load_vlm(spec)


def test_pickled_weights_need_permission(file, vlm):
    from safetensors.torch import load_file

    pickled = file.with_suffix(".pt")
    torch.save(load_file(file), pickled)
    with pytest.raises(InputError, match="can run code when opened"):
        load_vlm(f"open_clip:tiny-ViT@{pickled}")
    same = load_vlm(f"open_clip:tiny-ViT@{pickled},allow_pickle=true")
    assert np.array_equal(same.encode_text(["fur"]), vlm.encode_text(["fur"]))


def test_texts_are_refused_rather_than_cut(vlm):
    fits = "fur " * 17 + "fur"
    assert vlm.encode_text([fits]).shape == (1, 12)
    with pytest.raises(InputError, match="text must have at most 20 tokens, got more in 'fur"):
        vlm.encode_text(["fur", f"{fits} fur"])
    with pytest.raises(ShapeError, match="batch must have axes"):
        vlm.encode(np.zeros((3, 32, 32), np.float32))


def test_a_missing_package_names_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'faultlens\[open-clip\]'"):
        load_vlm("open_clip:ViT-B-16@net.safetensors")
