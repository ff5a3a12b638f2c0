import pytest
import yaml

from faultlens.errors import InputError
from faultlens.models.classifier import Classifier
from faultlens.models.load import load_model


def test_onnx_with_a_description(onnx_file, about):
    model = load_model(f"onnx:{onnx_file()}", preprocess=about())
    assert isinstance(model, Classifier)
    assert (model.name, model.dimension) == ("onnx:net.onnx", 6)


def test_a_path_alone_may_be_onnx(onnx_file, about, tmp_path):
    assert load_model(str(onnx_file()), preprocess=about()).name == "onnx:net.onnx"
    path = onnx_file(name="a:b.onnx")
    assert load_model(str(path), preprocess=about()).name == "onnx:a:b.onnx"


def test_yaml_and_split(onnx_file, about, tmp_path):
    path = tmp_path / "net.yaml"
    path.write_text(yaml.safe_dump(about().model_dump(mode="json")))
    model = load_model(f"onnx:{onnx_file()}", preprocess=path, split_at="pooled")
    assert model.class_names == ("cat", "dog", "ship")
    assert model.split == "pooled"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("onx:net.onnx", "got 'onx'; did you mean 'onnx'"),
        ("tensorflow:net", "known: 'hf', 'onnx', 'timm', 'torch', 'torch-export', 'torchvision'"),
        (
            "net.pt",
            "must be written KIND:TARGET, got 'net.pt'; kinds are hf:…, onnx:…, timm:…, torch:…, "
            "torch-export:…",
        ),
        ("onnx:", "must be written KIND:TARGET"),
        ("", "must be written KIND:TARGET"),
        ("absent.onnx", "must be an existing file, got 'absent.onnx'"),
    ],
)
def test_every_mistake_is_named(spec, message, about):
    with pytest.raises(InputError, match=message):
        load_model(spec, preprocess=about())


@pytest.mark.torch
def test_torch_kinds_get_their_arguments(about, tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "made_for_load.py").write_text(
        "from torch import nn\nmake = lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 3))\n"
    )
    state = {"1.weight": torch.zeros(3, 192), "1.bias": torch.ones(3)}
    torch.save(state, "net.pt")
    given = {"preprocess": about(), "weights": "net.pt"}
    with pytest.raises(InputError, match="pickles"):
        load_model("torch:made_for_load:make", **given)
    model = load_model("torch:made_for_load:make", **given, allow_pickle=True, split_at="1")
    assert model.head.bias.tolist() == [1, 1, 1]
    with pytest.raises(InputError, match="must be an existing file"):
        load_model("torch-export:absent.pt2", preprocess=about())
