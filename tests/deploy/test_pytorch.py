import copy
import dataclasses
import json

import numpy as np
import onnx
import pytest

from faultlens.deploy.onnx_monitor import export_monitor
from faultlens.errors import InputError, NotFittedError, ShapeError
from faultlens.models.description import ModelDescription
from faultlens.monitor.features import Features
from faultlens.monitor.runtime import RuntimeMonitor, Settings
from faultlens.monitor.verdict import ConceptMap
from faultlens.onnx_session import open_session

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch
nn = torch.nn
CLASSES = ("a", "b", "c")
PLAIN = {"resize": 8, "crop": 8, "mean": (0, 0, 0), "std": (1, 1, 1)}


class Net(nn.Module):
    """An encoder with a norm and a dropout, and a head of one layer or two."""

    def __init__(self, deep=False):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(2)
        )
        head = [nn.Linear(24, 12), nn.ReLU()] if deep else []
        self.head = nn.Sequential(
            nn.Flatten(), nn.Dropout(0.5), *head, nn.Linear(12 if deep else 24, 3)
        )

    def forward(self, x):
        return self.head(self.stem(x))


def pictures(n, seed=0):
    return torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def net():
    return Net().eval()


def features_of(net, x):
    with torch.no_grad():
        return Features(net.stem(x).flatten(1).numpy(), net(x).numpy())


@pytest.fixture(scope="module")
def monitor(net):
    features = features_of(net, pictures(600))
    rng = np.random.default_rng(0)
    labels = np.where(rng.random(600) < 0.9, features.predictions, rng.integers(3, size=600))
    mapped = ConceptMap(
        rng.normal(size=(4, 24)).astype(np.float32), np.zeros(4, np.float32), ("p", "q", "r", "s")
    )
    return RuntimeMonitor.fit_features(
        features, labels, settings=Settings(alpha=0.2, detector="refit"), classes=CLASSES,
        concept_map=mapped,
    )  # fmt: skip


def test_the_verdict_is_that_of_the_cached_features(net, monitor):
    with monitor.wrap(net) as guard, torch.no_grad():
        for seed, n in enumerate((1, 7, 40)):
            net(pictures(n, seed))
            want = monitor(features_of(net, pictures(n, seed)))
            # The last call of the module was that of `features_of`, on the same pictures.
            np.testing.assert_array_equal(guard.verdict.score, want.score)
            np.testing.assert_array_equal(guard.verdict.accept, want.accept)
            assert guard.verdict.reasons == want.reasons
    assert not want.accept.all()


@pytest.mark.parametrize("mode", ["no_grad", "inference_mode", "enable_grad"])
def test_the_output_is_the_same_to_the_last_bit(net, monitor, mode):
    x = pictures(5, 3)
    with getattr(torch, mode)():
        plain = net(x)
        guard = monitor.wrap(net)
        guarded = [net(x) for _ in range(2)]
        guard.remove()
        after = net(x)
    for output in (*guarded, after):
        assert torch.equal(output, plain)
    assert guarded[0].requires_grad == plain.requires_grad
    assert guard.verdict.accept.shape == (5,)


def test_nothing_runs_twice_and_nothing_stays_behind(net, monitor):
    calls = []
    counter = net.stem[0].register_forward_hook(lambda *_: calls.append(1))
    with monitor.wrap(net), torch.no_grad():
        net(pictures(2))
        net(pictures(2))
    counter.remove()
    assert len(calls) == 2
    for module in net.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


def test_training_mode_is_judged_and_gradients_flow(monitor):
    net = Net().train()
    with monitor.wrap(net) as guard:
        net(pictures(6)).sum().backward()
    assert guard.verdict.score.shape == (6,)
    assert net.stem[0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_number_types(net, monitor, dtype):
    other = copy.deepcopy(net).to(dtype)
    x = pictures(30, 2)
    with monitor.wrap(other) as guard, torch.no_grad():
        other(x.to(dtype))
    want = monitor(features_of(net, x))
    tolerance = 1e-4 if dtype == torch.float64 else 0.1
    np.testing.assert_allclose(guard.verdict.score, want.score, rtol=tolerance, atol=tolerance)


def test_rejections_call_back(net, monitor):
    seen = []
    x = pictures(40, 2)
    verdict = monitor(features_of(net, x))
    good = torch.from_numpy(np.flatnonzero(verdict.accept))
    with monitor.wrap(net, on_reject=seen.append) as guard, torch.no_grad():
        net(x[good])
        assert not seen
        net(x)
    assert seen == [guard.verdict]


@pytest.mark.parametrize("head", ["head", "head.2"])
def test_a_named_head_may_have_several_layers(head):
    net = Net(deep=True).eval()
    x = pictures(300)
    with torch.no_grad():
        features = Features(net.stem(x).flatten(1).numpy(), net(x).numpy())
    monitor = RuntimeMonitor.fit_features(
        features, features.predictions, settings=Settings(detector="mahalanobis"), classes=CLASSES
    )
    with monitor.wrap(net, head) as guard, torch.no_grad():
        net(x[:20])
    np.testing.assert_allclose(
        guard.verdict.score, monitor(features.select(slice(20))).score, rtol=1e-6
    )
    with monitor.wrap(net), torch.no_grad(), pytest.raises(ShapeError, match="24 wide as in fit"):
        net(x[:2])


@pytest.mark.parametrize("end", ["softmax", "tuple", "mapping"])
def test_other_outputs(net, monitor, end):
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = net

        def forward(self, x):
            y = self.inner(x)
            forms = {"softmax": y.softmax(-1), "tuple": (x, y), "mapping": {"logits": y}}
            return forms[end]

    module = Wrapped().eval()
    x = pictures(9, 4)
    with monitor.wrap(module) as guard, torch.no_grad():
        module(x)
    np.testing.assert_array_equal(guard.verdict.score, monitor(features_of(net, x)).score)


def test_mistakes_are_told(net, monitor):
    with monitor.wrap(net) as guard:
        with pytest.raises(NotFittedError, match="the module was not called; run it first"):
            _ = guard.verdict
        with pytest.raises(InputError, match="NaN"):
            net(pictures(2) * float("nan"))
    with pytest.raises(InputError, match="got 'haed'; did you mean 'head'"):
        monitor.wrap(net, "haed")
    other = nn.Sequential(nn.Flatten(), nn.Linear(192, 5))
    with monitor.wrap(other), pytest.raises(ShapeError, match=r"must give 3 logits, .* got 5"):
        other(pictures(2))
    doubled = nn.Sequential(net, nn.Threshold(100.0, 0.0))
    with monitor.wrap(doubled), pytest.raises(InputError, match="must end in a linear layer"):
        doubled(pictures(2))


def test_a_monitor_of_full_mode_is_refused_before_the_first_batch(net, monitor):
    full = dataclasses.replace(monitor, facts={**monitor.facts, "layers": ["squeeze:flip"]})
    with pytest.raises(InputError, match="got one fitted in full mode"):
        full.wrap(net)


@pytest.mark.parametrize("kind", ["torch", "torch-export"])
def test_a_torch_network_is_exported_with_its_monitor(tmp_path, net, monitor, kind):
    from faultlens.models.pytorch import from_module, load_export

    about = ModelDescription(classes=CLASSES, preprocessing=PLAIN)
    if kind == "torch":
        model = from_module(net, about)
    else:
        batch = torch.export.Dim("batch", min=1, max=64)
        program = torch.export.export(net, (pictures(2),), dynamic_shapes=({0: batch},))
        torch.export.save(program, tmp_path / "net.pt2")
        model = load_export(tmp_path / "net.pt2", description=about)
    export_monitor(monitor, model, tmp_path / "both.onnx")
    session = open_session((tmp_path / "both.onnx").read_bytes())
    for n in (1, 11):
        x = pictures(n, 8)
        logits, score, accept = session.run(["logits", "score", "accept"], {"input": x.numpy()})
        want = monitor(features_of(net, x))
        np.testing.assert_allclose(logits, net(x).detach().numpy(), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(score, want.score, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(accept, want.accept)
    told = {e.key: e.value for e in onnx.load(tmp_path / "both.onnx").metadata_props}
    assert json.loads(told["faultlens.classes"]) == list(CLASSES)
    assert not net.training
    assert not any(module._forward_hooks for module in net.modules())
