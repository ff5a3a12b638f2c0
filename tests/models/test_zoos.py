"""The adapters of timm and torchvision, which few test environments have."""

import json

import numpy as np
import pytest
from PIL import Image

from faultlens.errors import InputError, MissingDependencyError
from faultlens.models.load import load_model

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def timm(torchvision_operators):
    return pytest.importorskip("timm")


@pytest.fixture(scope="module")
def torchvision(torchvision_operators):
    return pytest.importorskip("torchvision")


def photos(n=4, side=40):
    rng = np.random.default_rng(4)
    return [
        Image.fromarray(rng.integers(0, 256, (side, side + 9, 3), dtype=np.uint8)) for _ in range(n)
    ]


def shaken(module):
    """The module with weights that are none of the usual first ones."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return module.eval()


def check(model, module, split):
    """Inputs by the model's own preprocessing, logits by the library."""
    batch = np.stack([model.prepare(p) for p in photos()])
    with torch.no_grad():
        want = module(torch.from_numpy(batch)).numpy()
    found = model.encode(batch)
    np.testing.assert_allclose(found["logits"], want, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model.head(found["embedding"]), want, rtol=1e-3, atol=1e-4)
    assert model.split == split
    assert model.candidates()


def safe(module, path):
    safetensors = pytest.importorskip("safetensors.torch")
    safetensors.save_model(module, str(path))
    return path


TIMM = [
    ("resnet18", {}, "fc"),
    ("efficientnet_b0", {}, "classifier"),
    ("convnext_atto", {}, "head.fc"),
    ("vit_tiny_patch16_224", {"img_size": 32}, "head"),
    ("deit_tiny_patch16_224", {"img_size": 32}, "head"),
    ("swin_tiny_patch4_window7_224", {"img_size": 56, "embed_dim": 24}, "head.fc"),
]


@pytest.mark.parametrize(("name", "arguments", "split"), TIMM, ids=[t[0] for t in TIMM])
def test_timm_folders(timm, tmp_path, name, arguments, split):
    module = shaken(timm.create_model(name, num_classes=3, **arguments))
    side = arguments.get("img_size", 64)
    cfg = {
        "input_size": [3, side, side], "interpolation": "bicubic", "crop_pct": 0.9,
        "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3],
    }  # fmt: skip
    config = {
        "architecture": name, "num_classes": 3, "model_args": arguments,
        "label_names": ["cat", "dog", "lorry"], "pretrained_cfg": cfg,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    safe(module, tmp_path / "model.safetensors")
    model = load_model(f"timm:{tmp_path}")
    check(model, module, split)
    assert model.class_names == ("cat", "dog", "lorry")
    from timm.data import create_transform

    size = cfg["input_size"]
    own = create_transform(**(cfg | {"input_size": size}), is_training=False)
    want = np.stack([own(p).numpy() for p in photos()])
    np.testing.assert_allclose(np.stack([model.prepare(p) for p in photos()]), want, atol=1e-5)


def test_timm_names(timm, tmp_path, about):
    module = shaken(timm.create_model("resnet10t", num_classes=3))
    file = safe(module, tmp_path / "w.safetensors")
    check(load_model("timm:resnet10t", weights=file, preprocess=about()), module, "fc")


def test_timm_mistakes(timm, tmp_path, about):
    with pytest.raises(InputError, match="weights must be given for timm:resnet10t"):
        load_model("timm:resnet10t", preprocess=about())
    with pytest.raises(InputError, match="must have a description"):
        load_model("timm:resnet10t", weights="w.safetensors")
    with pytest.raises(InputError, match=r"got 'resnet10x' .*did you mean 'resnet10t'"):
        load_model("timm:resnet10x", weights="w.safetensors", preprocess=about())
    with pytest.raises(InputError, match=r"must hold a readable config\.json"):
        load_model(f"timm:{tmp_path}")
    config = {"architecture": "resnet10t", "num_classes": 2, "pretrained_cfg": {"mean": [0, 0, 0]}}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    with pytest.raises(InputError, match="must name its 2 classes in 'label_names'"):
        load_model(f"timm:{tmp_path}")
    path.write_text(json.dumps(config | {"label_names": ["a", "b"]}))
    with pytest.raises(InputError, match="must state input_size, std, interpolation in 'pretr"):
        load_model(f"timm:{tmp_path}")
    module = timm.create_model("resnet10t", num_classes=4)
    file = safe(module, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match="weights must fit the module"):
        load_model("timm:resnet10t", weights=file, preprocess=about())


def test_timm_with_two_heads_names_the_modules(timm, tmp_path, about):
    module = timm.create_model("deit_tiny_distilled_patch16_224", num_classes=3)
    file = safe(module, tmp_path / "w.safetensors")
    message = "must end in a linear layer whose output is its logits.*'head', 'head_dist'"
    with pytest.raises(InputError, match=message):
        load_model(
            "timm:deit_tiny_distilled_patch16_224",
            weights=file,
            preprocess=about(resize=224, crop=224),
        )


TORCHVISION = [
    ("resnet18", 64, "fc"),
    ("efficientnet_b0", 64, "classifier.1"),
    ("convnext_tiny", 64, "classifier.2"),
    ("vit_b_16", 224, "heads.head"),
    ("swin_t", 64, "head"),
]


@pytest.mark.parametrize(("name", "side", "split"), TORCHVISION, ids=[t[0] for t in TORCHVISION])
def test_torchvision(torchvision, tmp_path, about, name, side, split):
    module = shaken(torchvision.models.get_model(name, num_classes=3))
    file = safe(module, tmp_path / "w.safetensors")
    given = about(resize=side, crop=side)
    model = load_model(f"torchvision:{name}", weights=file, preprocess=given)
    check(model, module, split)


def test_torchvision_mistakes(torchvision, tmp_path, about):
    with pytest.raises(InputError, match=r"got 'resnet17'; did you mean .*'resnet18'"):
        load_model("torchvision:resnet17", preprocess=about())
    with pytest.raises(InputError, match="weights must be given for torchvision:resnet18"):
        load_model("torchvision:resnet18", preprocess=about())
    module = torchvision.models.resnet18(num_classes=3)
    torch.save(module.state_dict(), tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"(?s)must be a \.safetensors file, .* allow_pickle=True"):
        load_model("torchvision:resnet18", weights=tmp_path / "w.pth", preprocess=about())
    model = load_model(
        "torchvision:resnet18", weights=tmp_path / "w.pth", preprocess=about(), allow_pickle=True
    )
    assert model.dimension == 512


@pytest.mark.parametrize("kind", ["timm", "torchvision"])
def test_without_the_package_the_extra_is_named(kind, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, kind, None)
    with pytest.raises(MissingDependencyError, match=rf"pip install 'faultlens\[{kind}\]'"):
        load_model(f"{kind}:resnet18")


def only_classes(tmp_path, names=("cat", "dog", "ship")):
    path = tmp_path / "classes.yaml"
    path.write_text(f"classes: [{', '.join(names)}]\n")
    return path


def same_pictures(model, own):
    want = np.stack([own(p).numpy() for p in photos()])
    np.testing.assert_allclose(np.stack([model.prepare(p) for p in photos()]), want, atol=1e-5)


def test_timm_preprocessing_comes_from_the_record_of_a_tag(timm, tmp_path):
    name = "resnet50.a1_in1k"
    module = shaken(timm.create_model(name, pretrained=False, num_classes=3))
    file = safe(module, tmp_path / "w.safetensors")
    model = load_model(f"timm:{name}", weights=file, preprocess=only_classes(tmp_path))
    data = timm.data.resolve_model_data_config(module)
    same_pictures(model, timm.data.create_transform(**data, is_training=False))
    assert model.preprocessing.source == f"timm's record of {name}"
    assert model.preprocessing.interpolation == "bicubic"


def test_timm_without_a_tag_still_needs_the_preprocessing(timm, tmp_path):
    message = r"'preprocessing' must be given; timm:resnet50 does not say .*timm:resnet50\.a1_in1k"
    with pytest.raises(InputError, match=message):
        load_model("timm:resnet50", weights="w.safetensors", preprocess=only_classes(tmp_path))
    with pytest.raises(InputError, match=r"got 'resnet50\.a1_in2k'; did you mean 'a1_in1k'"):
        load_model("timm:resnet50.a1_in2k", weights="w", preprocess=only_classes(tmp_path))
    with pytest.raises(InputError, match="must have a description"):
        load_model("timm:resnet50.a1_in1k", weights="w.safetensors")  # it names no classes
    with pytest.raises(InputError, match="did you mean 'resnet10t'"):
        load_model("timm:resnet10x", weights="w", preprocess=only_classes(tmp_path))
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("classes: [a, b]\npreprocesing: {}\n")
    with pytest.raises(InputError, match="unknown key 'preprocesing'; did you mean"):
        load_model("timm:resnet50.a1_in1k", weights="w.safetensors", preprocess=wrong)


def test_a_timm_folder_gives_what_the_file_leaves_out(timm, tmp_path):
    module = shaken(timm.create_model("resnet10t", num_classes=3))
    cfg = {"input_size": [3, 64, 64], "interpolation": "bilinear", "crop_pct": 1.0,
           "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3]}  # fmt: skip
    config = {"architecture": "resnet10t", "num_classes": 3, "pretrained_cfg": cfg}
    (tmp_path / "config.json").write_text(json.dumps(config))
    safe(module, tmp_path / "model.safetensors")
    model = load_model(f"timm:{tmp_path}", preprocess=only_classes(tmp_path))
    assert model.class_names == ("cat", "dog", "ship")
    assert (model.preprocessing.crop, model.preprocessing.mean) == (64, (0.4, 0.5, 0.6))
    assert model.preprocessing.source == str(tmp_path / "config.json")


def test_torchvision_preprocessing_comes_from_the_preset_of_a_tag(torchvision, tmp_path):
    models = torchvision.models
    module = shaken(models.get_model("resnet50", num_classes=3))
    file = safe(module, tmp_path / "w.safetensors")
    for tag, resize in (("IMAGENET1K_V1", 256), ("IMAGENET1K_V2", 232)):
        model = load_model(
            f"torchvision:resnet50.{tag}", weights=file, preprocess=only_classes(tmp_path)
        )
        same_pictures(model, models.ResNet50_Weights[tag].transforms())
        assert model.preprocessing.resize == resize
        assert model.preprocessing.source == f"torchvision's ResNet50_Weights.{tag}"
        check(model, module, "fc")


def test_torchvision_names_its_classes_too(torchvision, tmp_path):
    module = shaken(torchvision.models.get_model("shufflenet_v2_x0_5"))
    file = safe(module, tmp_path / "w.safetensors")
    model = load_model("torchvision:shufflenet_v2_x0_5.IMAGENET1K_V1", weights=file)
    assert len(model.class_names) == 1000
    assert model.class_names[0] == "tench"


def test_torchvision_knows_a_file_that_it_published_by_its_hash(torchvision, tmp_path, monkeypatch):
    from faultlens.files import sha256_file

    path = tmp_path / "w.pth"
    torch.save(torchvision.models.get_model("shufflenet_v2_x0_5").state_dict(), path)
    known = torchvision.models.ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1
    with pytest.raises(InputError, match="must have a description"):
        load_model("torchvision:shufflenet_v2_x0_5", weights=path, allow_pickle=True)
    url = f"https://download.pytorch.org/models/shufflenet-{sha256_file(path)[:8]}.pth"
    monkeypatch.setattr(type(known), "url", property(lambda self: url))
    model = load_model("torchvision:shufflenet_v2_x0_5", weights=path, allow_pickle=True)
    assert model.preprocessing.source == f"torchvision's {known}"


def test_torchvision_without_a_tag_still_needs_the_preprocessing(torchvision, tmp_path):
    classes = only_classes(tmp_path)
    with pytest.raises(InputError, match=r"name them \(torchvision:resnet50\.IMAGENET1K_V1, "):
        load_model("torchvision:resnet50", weights=tmp_path / "w", preprocess=classes)
    with pytest.raises(InputError, match=r"got 'resnet50\.IMAGENET1K_V3'; did you mean"):
        load_model("torchvision:resnet50.IMAGENET1K_V3", weights="w", preprocess=classes)
    with pytest.raises(InputError, match=r"got 'resnet51'; did you mean .*'resnet50'"):
        load_model("torchvision:resnet51.DEFAULT", weights="w", preprocess=classes)
