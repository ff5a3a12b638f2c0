"""Dual encoders of Hugging Face: the numbers of the library itself, and every file asked for."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

import tiny_clip
from faultlens.arrays import tensor_hashes
from faultlens.errors import InputError, MissingDependencyError, ShapeError
from faultlens.vlm.backend import VlmBackend
from faultlens.vlm.load import load_vlm

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers", minversion="5")
pytestmark = pytest.mark.torch

SAVERS = {
    "clip": tiny_clip.save_clip,
    "siglip": tiny_clip.save_siglip,
    "siglip2": tiny_clip.save_siglip2,
}


@pytest.fixture(autouse=True)
def no_hub(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {k: save(tmp_path_factory.mktemp("vlm") / k) for k, save in SAVERS.items()}


@pytest.fixture(scope="module")
def backends(folders):
    return {k: load_vlm(f"clip:{folder}") for k, folder in folders.items()}


@pytest.fixture(params=SAVERS)
def kind(request):
    return request.param


@pytest.fixture
def folder(folders, tmp_path):
    """A copy of the CLIP checkpoint that a test may damage."""
    return shutil.copytree(folders["clip"], tmp_path / "clip")


def batch(vlm, pictures):
    return np.stack([vlm.prepare(p) for p in pictures])


def by_hand(folder, kind):
    """The library's own embeddings and logits, as its pages show."""
    model = transformers.AutoModel.from_pretrained(folder).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    padding = {"padding": True}
    if kind != "clip":
        padding = {"padding": "max_length", "max_length": tiny_clip.LENGTH}
    inputs = {
        **processor(images=tiny_clip.pictures(), return_tensors="pt"),
        **tokenizer(tiny_clip.TEXTS, return_tensors="pt", **padding),
    }
    with torch.inference_mode():
        return model(**inputs)


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_it_is_a_backend(backends, folders, kind):
    vlm = backends[kind]
    assert isinstance(vlm, VlmBackend)
    assert vlm.name == f"clip:{folders[kind]}"
    assert (vlm.dimension, len(vlm.content_hash)) == (12 if kind == "clip" else 16, 64)


def test_the_numbers_are_the_librarys(backends, folders, kind):
    vlm, out = backends[kind], by_hand(folders[kind], kind)
    images = vlm.encode(batch(vlm, tiny_clip.pictures()))["embedding"]
    texts = vlm.encode_text(tiny_clip.TEXTS)
    assert images.dtype == texts.dtype == np.float32
    assert np.allclose(unit(images), out.image_embeds.numpy(), atol=1e-6)
    assert np.allclose(unit(texts), out.text_embeds.numpy(), atol=1e-6)
    logits = vlm.logit_scale * unit(images) @ unit(texts).T + vlm.logit_bias
    assert np.allclose(logits, out.logits_per_image.numpy(), atol=1e-4)


def test_siglip_has_its_own_scale_and_bias_and_fills_its_rows(backends):
    vlm = backends["siglip"]
    assert (vlm.logit_scale, vlm.logit_bias) == (pytest.approx(np.exp(2.3)), -7.5)
    assert vlm.texts(["fur"])["input_ids"].tolist() == [[9, 1] + [0] * (tiny_clip.LENGTH - 2)]
    assert backends["clip"].logit_bias == 0


def test_rows_do_not_depend_on_their_neighbours(backends, kind):
    vlm = backends[kind]
    x = batch(vlm, tiny_clip.pictures())
    assert np.allclose(vlm.encode(x[2:3])["embedding"], vlm.encode(x)["embedding"][2:3], atol=1e-6)
    texts = vlm.encode_text(tiny_clip.TEXTS)
    assert np.allclose(vlm.encode_text(tiny_clip.TEXTS[2:3]), texts[2:3], atol=1e-6)
    many = tiny_clip.TEXTS * 20
    assert np.allclose(vlm.encode_text(many)[-4:], texts, atol=1e-6)


def test_pictures_are_prepared_alike_in_threads(backends, kind):
    vlm, pictures = backends[kind], tiny_clip.pictures(40)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(vlm.prepare, pictures))
    assert all(np.array_equal(vlm.prepare(p), x) for p, x in zip(pictures, found, strict=True))


def test_tensor_hashes_are_those_of_the_image_tower(backends, folders):
    model = transformers.CLIPModel.from_pretrained(folders["clip"])
    image = [*model.vision_model.parameters(), *model.visual_projection.parameters()]
    assert backends["clip"].tensor_hashes == tensor_hashes(p.detach().numpy() for p in image)


def test_half_precision_is_close_and_another_model_to_the_cache(backends, folders):
    whole = backends["clip"]
    half = load_vlm(f"clip:{folders['clip']},dtype=bfloat16,device=cpu")
    x = batch(half, tiny_clip.pictures())
    assert next(half.model.parameters()).dtype == torch.bfloat16
    a, b = half.encode(x)["embedding"], whole.encode(x)["embedding"]
    assert a.dtype == np.float32
    assert 0 < np.abs(unit(a) - unit(b)).max() < 0.05
    assert half.content_hash != whole.content_hash
    assert half.tensor_hashes == whole.tensor_hashes
    assert half.logit_scale == whole.logit_scale


def test_a_checkpoint_in_half_precision_runs_in_full(tmp_path):
    vlm = load_vlm(f"clip:{tiny_clip.save_clip(tmp_path / 'half', dtype='float16')}")
    assert {p.dtype for p in vlm.model.parameters()} == {torch.float32}


def test_the_hash_follows_every_file(folder):
    seen = {load_vlm(f"clip:{folder}").content_hash}
    (folder / "README.md").write_text("not part of the model")
    assert {load_vlm(f"clip:{folder}").content_hash} == seen
    tiny_clip.edit_json(folder / "preprocessor_config.json", image_mean=[0.5, 0.5, 0.5])
    seen.add(load_vlm(f"clip:{folder}").content_hash)
    tiny_clip.edit_json(folder / "tokenizer_config.json", model_max_length=20)
    seen.add(load_vlm(f"clip:{folder}").content_hash)
    tiny_clip.save_model(
        transformers.CLIPModel(transformers.AutoConfig.from_pretrained(folder)), folder
    )
    seen.add(load_vlm(f"clip:{folder}").content_hash)
    assert len(seen) == 4


def test_preprocessing_may_be_part_of_the_processors_file(folder, backends):
    inner = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").unlink()
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": inner}))
    vlm, (picture,) = load_vlm(f"clip:{folder}"), tiny_clip.pictures(1)
    assert np.array_equal(vlm.prepare(picture), backends["clip"].prepare(picture))


def test_the_form_of_older_checkpoints_is_read(folder, backends):
    tiny_clip.edit_json(
        folder / "preprocessor_config.json", size=tiny_clip.SIDE, crop_size=tiny_clip.SIDE,
        image_processor_type=None, feature_extractor_type="CLIPFeatureExtractor",
        do_rescale=None, rescale_factor=None,
    )  # fmt: skip
    vlm, (picture,) = load_vlm(f"clip:{folder}"), tiny_clip.pictures(1)
    assert np.allclose(vlm.prepare(picture), backends["clip"].prepare(picture))


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("preprocessor_config.json", r"must hold 'preprocessor_config\.json', got none in '.*no"),
        ("config.json", r"must hold 'config\.json', got none"),
        ("tokenizer.json", r"must hold 'tokenizer\.json', got none"),
        ("model.safetensors", r"must hold 'model\.safetensors', got none"),
    ],
)
def test_a_missing_file_is_named(folder, file, message):
    (folder / file).unlink()
    with pytest.raises(InputError, match=message):
        load_vlm(f"clip:{folder}")


@pytest.mark.parametrize("file", ["preprocessor_config.json", "config.json", "tokenizer.json"])
def test_a_damaged_file_is_an_error(folder, file):
    (folder / file).write_text("{")
    with pytest.raises(InputError, match=f"{file}|must hold a|config"):
        load_vlm(f"clip:{folder}")


@pytest.mark.parametrize("key", ["size", "crop_size", "image_mean", "image_std"])
def test_preprocessing_is_never_filled_in(folder, key):
    tiny_clip.edit_json(folder / "preprocessor_config.json", **{key: None})
    with pytest.raises(InputError, match=rf"preprocessor_config\.json must state '{key}', got no"):
        load_vlm(f"clip:{folder}")


def test_preprocessing_of_another_model_is_refused(folder):
    tiny_clip.edit_json(
        folder / "preprocessor_config.json",
        size={"shortest_edge": 48}, crop_size={"height": 48, "width": 40},
    )  # fmt: skip
    message = r"preprocessor_config\.json must prepare pictures of 32 x 32 pixels.*got 48 x 40"
    with pytest.raises(InputError, match=message):
        load_vlm(f"clip:{folder}")


def test_a_resize_without_a_crop_is_refused(folder):
    tiny_clip.edit_json(folder / "preprocessor_config.json", do_center_crop=False)
    with pytest.raises(InputError, match="of 32 x 32 pixels for this model, got 32 x"):
        load_vlm(f"clip:{folder}")


def test_the_tokenizer_of_another_model_is_refused(folders, tmp_path):
    folder = shutil.copytree(folders["siglip"], tmp_path / "mixed")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folders["clip"] / file, folder / file)
    with pytest.raises(InputError, match=r"which knows 14 tokens, got token \d+ for 'a photo'"):
        load_vlm(f"clip:{folder}")


def test_weights_that_are_missing_are_no_random_numbers(folder):
    from safetensors.torch import load_file, save_file

    state = load_file(folder / "model.safetensors")
    del state["visual_projection.weight"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"every weight.*1 missing \(visual_projection\.weight\)"):
        load_vlm(f"clip:{folder}")


def test_pickled_weights_need_permission(folder, backends):
    state = transformers.CLIPModel.from_pretrained(folder).state_dict()
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"can run code when opened.*',allow_pickle=true' if you"):
        load_vlm(f"clip:{folder}")
    vlm = load_vlm(f"clip:{folder},allow_pickle=true")
    texts = tiny_clip.TEXTS
    assert np.array_equal(vlm.encode_text(texts), backends["clip"].encode_text(texts))


def test_weights_may_be_in_several_files(folder, backends):
    model = transformers.CLIPModel.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="20KB")
    parts = sorted(folder.glob("model-*.safetensors"))
    assert len(parts) > 1
    vlm = load_vlm(f"clip:{folder}")
    texts = tiny_clip.TEXTS
    assert np.array_equal(vlm.encode_text(texts), backends["clip"].encode_text(texts))
    parts[0].unlink()
    with pytest.raises(InputError, match=rf"must hold '{parts[0].name}', got none"):
        load_vlm(f"clip:{folder}")


def test_a_classifier_is_no_dual_encoder(tmp_path, folder):
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        image_size=32, patch_size=8,
    )  # fmt: skip
    tiny_clip.save_model(transformers.ViTForImageClassification(config), folder)
    with pytest.raises(InputError, match=r"clip must be a dual encoder.*got ViTModel in '"):
        load_vlm(f"clip:{folder}")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("clip", "vlm must be 'clip:FOLDER or clip:ID', got 'clip:'"),
        ("clip:./absent", r"clip must be a folder, but '\./absent' is none; check the path"),
        ("clip:absent", "clip must be a folder, but 'absent' is none"),
        ("clip:some/model", r"id that the Hugging Face hub delivers, got 'some/model'.*pass a fol"),
        ("clip:{folder}/config.json", r"config\.json' is a file; give its folder"),
        ("clip:{folder},devise=cpu", "known settings, got 'devise'; did you mean 'device'"),
        ("clip:{folder},dtype=half", "dtype must be 'float32', 'float16' or 'bfloat16', got 'half"),
        ("clip:{folder},device=gpu", r"device must be one that PyTorch can use here, got 'gpu'"),
        ("clip:{folder},device=cuda:7", r"PyTorch can use here, got 'cuda:7' \(.*use device=cpu"),
    ],
)
def test_wrong_words_are_explained(folders, spec, message):
    with pytest.raises(InputError, match=message):
        load_vlm(spec.format(folder=folders["clip"]))


def test_a_missing_package_names_its_extra(folders, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'faultlens\[clip\]'"):
        load_vlm(f"clip:{folders['clip']}")


def test_texts_are_refused_rather_than_cut(backends):
    vlm = backends["siglip"]
    long = "long " * (tiny_clip.LENGTH - 1)
    assert vlm.encode_text([long.strip()]).shape == (1, 16)
    with pytest.raises(InputError, match="text must have at most 24 tokens, got 25 in 'fur long"):
        vlm.encode_text(["fur", f"fur {long}".strip()])
    with pytest.raises(InputError, match="text must have a word, got ' '"):
        vlm.encode_text(["fur", " "])
    with pytest.raises(InputError, match="texts must be a list of at least one text"):
        vlm.encode_text([])


def test_wrong_batches_are_refused(backends):
    with pytest.raises(ShapeError, match=r"batch must have axes \(N, C, H, W\)"):
        backends["clip"].encode(np.zeros((3, 32, 32), np.float32))
    with pytest.raises(ShapeError, match=r"batch must have axes \(N, P, F\)"):
        backends["siglip2"].encode(np.zeros((1, 3, 32, 32), np.float32))


def test_batches_are_halved_until_they_fit(backends, monkeypatch):
    vlm, sizes = backends["clip"], []
    whole = vlm.encode(x := batch(vlm, tiny_clip.pictures(7)))["embedding"]
    original = vlm.model.get_image_features

    def small(pixel_values):
        sizes.append(len(pixel_values))
        if len(pixel_values) > 2:
            raise torch.OutOfMemoryError("no memory")
        return original(pixel_values)

    monkeypatch.setattr(vlm.model, "get_image_features", small)
    monkeypatch.setattr(vlm._run_pictures, "limit", None)
    assert np.allclose(vlm.encode(x)["embedding"], whole, atol=1e-6)
    assert sizes == [7, 3, 1, 1, 1, 1, 1, 1, 1]
    assert np.allclose(vlm.encode(x)["embedding"], whole, atol=1e-6)


def test_a_grey_picture_is_coloured_first(backends):
    picture = Image.new("L", (40, 40), 99)
    colour = backends["clip"].prepare(picture.convert("RGB"))
    assert np.allclose(backends["clip"].prepare(picture), colour)
