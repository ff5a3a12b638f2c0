import json
import shutil

import numpy as np
import pytest
from PIL import Image

from faultlens.errors import InputError
from faultlens.models.load import load_model

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.torch

CLASSES = ("cat", "dog", "lorry")
SMALL = {
    "num_labels": 3, "image_size": 32, "hidden_size": 16, "num_hidden_layers": 1,
    "num_attention_heads": 2, "intermediate_size": 24, "patch_size": 8,
}  # fmt: skip
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]


def vit():
    t = transformers
    return t.ViTForImageClassification(t.ViTConfig(**SMALL)), t.ViTImageProcessorPil(
        size={"height": 32, "width": 32}, image_mean=MEAN, image_std=STD
    )


def deit():
    t = transformers
    return t.DeiTForImageClassification(t.DeiTConfig(**SMALL)), t.DeiTImageProcessorPil(
        size={"height": 41, "width": 41}, crop_size={"height": 32, "width": 32},
        image_mean=MEAN, image_std=STD,
    )  # fmt: skip


def resnet():
    t = transformers
    config = t.ResNetConfig(
        num_labels=3, embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic"
    )
    return t.ResNetForImageClassification(config), t.ConvNextImageProcessorPil(
        size={"shortest_edge": 32}, crop_pct=0.875, image_mean=MEAN, image_std=STD
    )


def convnext():
    t = transformers
    config = t.ConvNextConfig(num_labels=3, hidden_sizes=[8, 12], depths=[1, 1], num_stages=2)
    return t.ConvNextForImageClassification(config), t.ConvNextImageProcessorPil(
        size={"shortest_edge": 384}, image_mean=MEAN, image_std=STD
    )


def efficientnet():
    t = transformers
    config = t.EfficientNetConfig(
        num_labels=3, width_coefficient=1.0, depth_coefficient=1.0, hidden_dim=1280,
        depth_divisor=4, in_channels=[32, 8], out_channels=[8, 12], kernel_sizes=[3, 3],
        strides=[1, 2], num_block_repeats=[1, 1], expand_ratios=[1, 2], depthwise_padding=[],
        image_size=32,
    )  # fmt: skip
    return t.EfficientNetForImageClassification(config), t.EfficientNetImageProcessorPil(
        size={"height": 32, "width": 32}, resample=0, image_mean=MEAN, image_std=STD
    )


def swin():
    t = transformers
    config = t.SwinConfig(
        num_labels=3, image_size=32, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[1, 2],
        window_size=4,
    )  # fmt: skip
    return t.SwinForImageClassification(config), t.ViTImageProcessorPil(
        size={"height": 32, "width": 32}, resample=3, rescale_factor=1 / 127.5,
        image_mean=MEAN, image_std=STD,
    )  # fmt: skip


def bit():
    """The processor of DINOv2, FocalNet and others: shortest edge, then an odd centre crop."""
    t = transformers
    return t.ViTForImageClassification(t.ViTConfig(**SMALL)), t.BitImageProcessorPil(
        size={"shortest_edge": 37}, crop_size={"height": 32, "width": 32},
        image_mean=MEAN, image_std=STD,
    )  # fmt: skip


KINDS = [vit, deit, resnet, convnext, efficientnet, swin, bit]


def save(folder, make, seed=0):
    torch.manual_seed(seed)
    model, processor = make()
    with torch.no_grad():
        for parameter in model.parameters():  # some start as zeros, which would hide mistakes
            parameter.add_(0.2 * torch.randn_like(parameter))
        model.train()(torch.randn(8, 3, 32, 32))  # gives batch norm something to remember
    model.config.id2label = dict(enumerate(CLASSES))
    model.config.label2id = {c: k for k, c in enumerate(CLASSES)}
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return save(tmp_path_factory.mktemp("vit"), vit)


@pytest.fixture
def copied(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copy")


def photos():
    rng = np.random.default_rng(4)
    sizes = ((50, 60), (64, 33), (40, 40))
    return [Image.fromarray(rng.integers(0, 256, (*s, 3), dtype=np.uint8)) for s in sizes]


def by_hand(folder, pictures):
    """What the library itself gives."""
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    model = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
    inputs = processor(pictures, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        return inputs.numpy(), model(inputs).logits.numpy()


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
def test_inputs_and_logits_are_the_librarys(make, tmp_path):
    folder = save(tmp_path / "checkpoint", make)
    model = load_model(f"hf:{folder}")
    inputs, logits = by_hand(folder, photos())
    batch = np.stack([model.prepare(p) for p in photos()])
    np.testing.assert_allclose(batch, inputs, atol=1e-5)
    found = model.encode(batch)
    np.testing.assert_allclose(found["logits"], logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model.head(found["embedding"]), logits, rtol=1e-4, atol=1e-5)
    assert model.class_names == CLASSES
    assert model.head.is_linear
    assert len(np.unique(logits.round(4))) > 3
    assert model.candidates()


def test_splits_are_at_the_classifier(saved):
    model = load_model(f"hf:{saved}")
    assert (model.split, model.dimension) == ("classifier", 16)
    assert load_model(f"hf:{saved}", split_at="classifier").content_hash == model.content_hash


def test_a_wrong_split_names_the_one_to_give(saved):
    with pytest.raises(InputError, match=r"got 'vit\.layernorm'; use 'classifier'"):
        load_model(f"hf:{saved}", split_at="vit.layernorm")
    with pytest.raises(InputError, match="got 'clasifier'; did you mean 'classifier'"):
        load_model(f"hf:{saved}", split_at="clasifier")


def test_two_heads_that_are_averaged_are_an_error_with_the_modules(tmp_path):
    t = transformers
    model = t.DeiTForImageClassificationWithTeacher(t.DeiTConfig(**SMALL))
    model.save_pretrained(tmp_path)
    vit()[1].save_pretrained(tmp_path)
    message = "must end in a linear layer .*'cls_classifier', 'distillation_classifier'"
    with pytest.raises(InputError, match=message):
        load_model(f"hf:{tmp_path}")


def test_half_precision_checkpoints_are_computed_in_float32(tmp_path):
    model, processor = vit()
    model.half().save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    found = load_model(f"hf:{tmp_path}")
    assert found.head.weight.dtype == np.float32
    assert found.tolerance == 1e-4


def test_a_description_wins(copied, about):
    (copied / "preprocessor_config.json").unlink()
    given = about(resize=32, crop=32)
    model = load_model(f"hf:{copied}", preprocess=given)
    assert model.class_names == given.classes
    assert model.preprocessing == given.preprocessing


def edit(folder, name, **values):
    path = folder / name
    content = json.loads(path.read_text())
    content.update(values)
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))


def test_a_missing_preprocessing_file_is_an_error(copied):
    (copied / "preprocessor_config.json").unlink()
    with pytest.raises(InputError, match=r"must hold preprocessor_config.json, got none; save"):
        load_model(f"hf:{copied}")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": None}, "must state 'size', got nothing"),
        ({"image_std": None}, "must state 'image_std', got nothing"),
        ({"image_processor_type": "NoSuchProcessor"}, "must be that of an image processor"),
        ({"resample": 5}, "ViTImageProcessorPil with 5; state what it does with --preprocess"),
        ({"size": {"shortest_edge": 9, "longest_edge": 20}}, "with a longest edge"),
    ],
)
def test_preprocessing_that_is_incomplete_or_cannot_be_stated(copied, values, message):
    edit(copied, "preprocessor_config.json", **values)
    with pytest.raises(InputError, match=message):
        load_model(f"hf:{copied}")


def test_what_a_processor_does_beyond_its_settings_is_noticed(saved):
    from faultlens.models.huggingface_inputs import preprocessing_of

    class Brighter(transformers.ViTImageProcessorPil):
        def normalize(self, image, mean, std, **kwargs):
            return super().normalize(image, mean, std, **kwargs) + 0.01

    stated = json.loads((saved / "preprocessor_config.json").read_text())
    with pytest.raises(InputError, match="got Brighter with other numbers for 61 × 47"):
        preprocessing_of(Brighter.from_pretrained(saved), stated, "hf:x")


def test_pickled_weights_only_when_allowed(copied):
    state = transformers.ViTForImageClassification.from_pretrained(copied).state_dict()
    want = load_model(f"hf:{copied}").head.weight
    (copied / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"must hold model.safetensors, got none; copy the whole"):
        load_model(f"hf:{copied}")
    torch.save(state, copied / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"pytorch_model.bin is a pickle, .* pass allow_pickle"):
        load_model(f"hf:{copied}")
    np.testing.assert_array_equal(load_model(f"hf:{copied}", allow_pickle=True).head.weight, want)


def test_an_encoder_alone_is_no_classifier(tmp_path):
    model, processor = vit()
    model.vit.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"got none for 'classifier\.bias', 'classifier\.w"):
        load_model(f"hf:{tmp_path}")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("./nowhere", "must be a folder, got './nowhere', which does not exist"),
        ("a/b/c", "must be a folder, got 'a/b/c', which does not exist"),
    ],
)
def test_no_such_folder(target, message):
    with pytest.raises(InputError, match=message):
        load_model(f"hf:{target}")


def test_the_hub_out_of_reach(monkeypatch):
    import huggingface_hub

    def fail(*_, **__):
        raise OSError("no network here")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(InputError, match=r"got 'a/b' \(no network here\); pass a folder"):
        load_model("hf:a/b")


def test_other_mistakes(copied, tmp_path):
    with pytest.raises(InputError, match="weights must not be given for hf:"):
        load_model(f"hf:{copied}", weights="w.safetensors")
    with pytest.raises(InputError, match=r"must hold config\.json, got none"):
        load_model(f"hf:{tmp_path}")
    edit(copied, "config.json", id2label={"0": "cat", "1": "cat", "2": "dog"})
    with pytest.raises(InputError, match=r"class names of hf:.* must all differ, got 1 twice"):
        load_model(f"hf:{copied}")
    edit(copied, "config.json", model_type="no-such-model")
    with pytest.raises(InputError, match="must be a checkpoint that AutoModelForImageClass"):
        load_model(f"hf:{copied}")


def test_loading_says_nothing(saved, capfd):
    load_model(f"hf:{saved}")
    assert capfd.readouterr() == ("", "")
