import subprocess
import sys

import numpy as np
import pytest
import safetensors.torch

from faultlens.errors import InputError
from faultlens.models.chain import SOFTMAX_NOTE

torch = pytest.importorskip("torch")
nn = torch.nn
pytestmark = pytest.mark.torch


def from_module(*args, **kwargs):
    from faultlens.models.pytorch import from_module

    return from_module(*args, **kwargs)


def load_factory(*args, **kwargs):
    from faultlens.models.pytorch import load_factory

    return load_factory(*args, **kwargs)


def own_logits(net, batch):
    with torch.no_grad():
        output = net.eval()(torch.from_numpy(batch))
    return getattr(output, "logits", output).numpy()


class Wrapped(nn.Module):
    """A net with something done to its output."""

    def __init__(self, net, change):
        super().__init__()
        self.net = net
        self.change = change

    def forward(self, x):
        return self.change(self.net(x))


@pytest.mark.parametrize(
    ("kind", "split", "dimension"),
    [("resnet", "fc", 8), ("vit", "head", 16), ("mlp", "classifier.4", 7)],
)
def test_the_last_linear_layer_is_found(kind, split, dimension, nets, about, pictures):
    net = nets.trained(getattr(nets, kind))
    model = from_module(net, about())
    result = model.encode(pictures())
    assert (model.split, model.dimension) == (split, dimension)
    assert model.name == f"torch:{type(net).__name__}"
    np.testing.assert_allclose(result["logits"], own_logits(net, pictures()), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        model.head(result["embedding"]), result["logits"], rtol=1e-4, atol=1e-5
    )


def test_the_embedding_is_what_the_layer_reads(nets, about, pictures):
    net = nets.trained(nets.resnet)
    with torch.no_grad():
        x = torch.from_numpy(pictures())
        want = net.blocks(net.stem(x)).mean((2, 3)).numpy()
    got = from_module(net, about()).encode(pictures())["embedding"]
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("architecture", ["ResNet", "ViT"])
def test_models_of_transformers(architecture, about, pictures):
    transformers = pytest.importorskip("transformers")
    sizes = (
        {"embedding_size": 8, "hidden_sizes": [8, 12], "depths": [1, 1], "num_channels": 3}
        if architecture == "ResNet"
        else {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
              "intermediate_size": 32, "image_size": 16, "patch_size": 8}
    )  # fmt: skip
    config = getattr(transformers, f"{architecture}Config")(num_labels=3, **sizes)
    torch.manual_seed(0)
    net = getattr(transformers, f"{architecture}ForImageClassification")(config)
    model = from_module(net, about(resize=16, crop=16))
    batch = pictures(4, (3, 16, 16))
    np.testing.assert_allclose(
        model.encode(batch)["logits"], own_logits(net, batch), rtol=1e-4, atol=1e-5
    )
    assert model.split.startswith("classifier")
    assert model.dimension == (12 if architecture == "ResNet" else 16)


def test_a_named_module_gives_a_chain(nets, about, pictures):
    net = nets.trained(nets.mlp)
    whole = from_module(net, about(), split_at="classifier")
    assert [w.shape for w in whole.head.weights] == [(7, 12), (3, 7)]
    assert whole.content_hash == from_module(net, about(), split_at="classifier.0").content_hash
    result = whole.encode(pictures())
    np.testing.assert_allclose(
        whole.head(result["embedding"]), own_logits(net, pictures()), rtol=1e-4, atol=1e-5
    )
    one = from_module(net, about(), split_at="classifier.1")
    np.testing.assert_array_equal(one.encode(pictures())["embedding"], result["embedding"])


def test_a_split_that_no_head_follows_lists_what_would_do(nets, about):
    net = nets.trained(nets.mlp)
    with pytest.raises(InputError, match=r"got 'pool'; use 'classifier.4' or 'classifier.1'"):
        from_module(net, about(), split_at="pool")
    with pytest.raises(InputError, match=r"got 'classifier.2'; use 'classifier.4' or"):
        from_module(net, about(), split_at="classifier.2")
    with pytest.raises(InputError, match="got 'clasifier'; did you mean 'classifier'"):
        from_module(net, about(), split_at="clasifier")


def test_a_module_that_does_not_run_cannot_be_the_split(nets, about):
    net = nets.trained(nets.mlp)
    net.spare = nn.Linear(2, 2)
    with pytest.raises(InputError, match="a module that runs before the logits, got 'spare'"):
        from_module(net, about(), split_at="spare")


def test_hidden_functions_in_the_head_are_noticed(about):
    class Hidden(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(192, 5), nn.Linear(5, 3)

        def forward(self, x):
            return self.b(torch.tanh(self.a(x.flatten(1))))

    torch.manual_seed(0)
    assert from_module(Hidden(), about()).split == "b"
    with pytest.raises(
        InputError, match=r"head must give the model's logits.*at 'a' of torch:Hidd"
    ):
        from_module(Hidden(), about(), split_at="a")


@pytest.mark.parametrize(
    "change",
    [
        lambda y: (y, torch.ones(len(y), 9)),
        lambda y: {"logits": y, "feature": None},
        lambda y: [torch.ones(()), y],
        nn.Identity(),
    ],
)
def test_outputs_in_a_wrapping(change, nets, about, pictures):
    net = nets.trained(nets.resnet)
    model = from_module(Wrapped(net, change), about())
    np.testing.assert_allclose(
        model.encode(pictures())["logits"], own_logits(net, pictures()), rtol=1e-5, atol=1e-6
    )
    assert model.notes == ()


@pytest.mark.parametrize("change", [nn.Softmax(-1), nn.LogSoftmax(-1)])
def test_a_softmax_is_seen_through_and_noted(change, nets, about, pictures):
    net = nets.trained(nets.resnet)
    model = from_module(Wrapped(net, change), about())
    np.testing.assert_allclose(
        model.encode(pictures())["logits"], own_logits(net, pictures()), rtol=1e-5, atol=1e-6
    )
    assert model.notes == (SOFTMAX_NOTE,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (torch.tanh, r"got another end after the linear layers \['net.fc'\]"),
        (lambda y: (y, y), "got tuple with 2 such tensors"),
        (lambda y: {"scores": y}, "got dict with 0 such tensors"),
        (lambda y: None, "got NoneType with 0"),
    ],
)
def test_outputs_that_are_no_logits(change, message, nets, about):
    with pytest.raises(InputError, match=message):
        from_module(Wrapped(nets.trained(nets.resnet), change), about())


def test_a_one_by_one_convolution_as_classifier(about, pictures):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Conv2d(6, 3, 1), nn.Flatten()
    )
    model = from_module(net, about())
    assert (model.split, model.dimension) == ("2", 6)
    np.testing.assert_allclose(
        model.encode(pictures())["logits"], own_logits(net, pictures()), rtol=1e-4, atol=1e-6
    )


def test_a_live_module_is_left_as_it_was(nets, about, pictures):
    net = nets.resnet()
    net.train()
    net.blocks[0].eval()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    modes = [m.training for m in net.modules()]
    model = from_module(net, about())
    model.encode(pictures())
    assert [m.training for m in net.modules()] == modes
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
    assert torch.is_grad_enabled()
    assert all(p.grad is None and p.requires_grad for p in net.parameters())


def test_hooks_are_removed_after_a_failure(nets, about, pictures):
    net = nets.trained(nets.vit).train()
    model = from_module(net, about())
    with pytest.raises(InputError, match=r"torch:ViT can take, got shape \(2, 3, 16, 16\)"):
        model.encode(pictures(2, (3, 16, 16)))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
    assert net.training


def test_a_size_that_nobody_states_is_tried_out(nets, about):
    net = nets.trained(nets.vit)
    net.position = nn.Parameter(torch.randn(1, 50, 16))  # 28 × 28 pictures
    assert from_module(net, about(resize=None, crop=None)).dimension == 16
    net.position = nn.Parameter(torch.randn(1, 3, 16))
    with pytest.raises(InputError, match="no usual size works, so state resize or crop"):
        from_module(net, about(resize=None, crop=None))
    with pytest.raises(InputError, match=r"check layout, resize and crop of the preprocessing$"):
        from_module(net, about())


def test_a_model_that_is_random_in_evaluation_is_refused(about):
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(192, 3)

        def forward(self, x):
            return self.fc(nn.functional.dropout(x.flatten(1)))

    with pytest.raises(InputError, match=r"same embedding alone as in a batch.*dropout off"):
        from_module(Noisy(), about())


def test_half_and_double_precision(nets, about, pictures):
    want = own_logits(nets.trained(nets.resnet), pictures())
    for dtype, rtol in ((torch.float64, 1e-4), (torch.bfloat16, 0.1)):
        model = from_module(nets.trained(nets.resnet).to(dtype), about())
        got = model.encode(pictures())
        assert got["logits"].dtype == got["embedding"].dtype == np.float32
        np.testing.assert_allclose(got["logits"], want, rtol=rtol, atol=0.05)


def test_bad_weights_wrong_classes_and_device(nets, about):
    net = nets.trained(nets.resnet)
    with pytest.raises(InputError, match="got 2 names for 3 logits of torch:ResNet"):
        from_module(net, about(("cat", "dog")))
    with pytest.raises(InputError, match=r"device must be where the weights .* 'cpu', got 'cuda'"):
        from_module(net, about(), device="cuda")
    net.blocks[1].norm.running_var[2] = float("nan")
    with pytest.raises(
        InputError, match=r"1 NaN or infinite values in 'blocks.1.norm.running_var'"
    ):
        from_module(net, about())


def test_the_hash_follows_weights_split_preprocessing_and_structure(nets, about):
    def digest(change=lambda net: None, split_at=None, **preprocessing):
        net = nets.trained(nets.mlp)
        change(net)
        return from_module(net, about(**preprocessing), split_at=split_at).content_hash

    assert digest() == digest()
    others = {
        digest(lambda net: net.classifier[1].bias.data.add_(1)),
        digest(lambda net: setattr(net, "pool", nn.AdaptiveMaxPool2d(2))),
        digest(split_at="classifier"),
        digest(interpolation="bicubic"),
        digest(),
    }
    assert len(others) == 5


def test_tensor_hashes_cover_the_encoder_only(nets, about):
    import hashlib

    def sha(tensor):
        return hashlib.sha256(tensor.detach().numpy().tobytes()).hexdigest()

    net = nets.trained(nets.mlp)
    net.extra = nn.Parameter(torch.randn(9, 9))
    first, last = net.classifier[1].weight, net.classifier[4].weight
    assert from_module(net, about()).tensor_hashes == {sha(first), sha(net.extra)}
    assert from_module(net, about(), split_at="classifier").tensor_hashes == {sha(net.extra)}
    assert last.numel() < 64


# Factories and weights.

FACTORY = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 3))

def broken(): raise RuntimeError("no such file")
def number(): return 7
def needs(width): return nn.Linear(width, 2)
ready = make()
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets_for_tests").mkdir()
    (tmp_path / "nets_for_tests" / "small.py").write_text(FACTORY)
    (tmp_path / "nets_for_tests" / "bad.py").write_text("import surely_not_installed\n")
    (tmp_path / "nets_for_tests" / "typo.py").write_text("def make(:\n")
    yield tmp_path
    for name in [n for n in sys.modules if n.startswith("nets_for_tests")]:
        del sys.modules[name]


def test_a_factory_in_the_current_folder(project, about):
    path = list(sys.path)
    model = load_factory("nets_for_tests.small:make", description=about())
    assert model.name == "torch:nets_for_tests.small:make"
    assert sys.path == path
    assert load_factory("nets_for_tests.small:ready", description=about()).split == "2"


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("nets_for_tests.small:mke", "in nets_for_tests.small, got 'mke'; did you mean 'make'"),
        ("nets_for_test.small:make", "got 'nets_for_test.small'; did you mean 'nets_for_tests'"),
        ("nets_for_tests.smal:make", "importable module, got 'nets_for_tests.smal'"),
        ("nets_for_tests.bad:make", "needs 'surely_not_installed', which is not installed"),
        ("nets_for_tests.typo:make", "importing it failed: SyntaxError"),
        ("nets_for_tests.small:broken", "but it failed: RuntimeError: no such file"),
        ("nets_for_tests.small:needs", "must work without arguments.*'width'"),
        ("nets_for_tests.small:number", "must return an nn.Module, got int"),
        ("nets_for_tests.small", "must be written torch:MODULE.PATH:FACTORY"),
        (":make", "must be written torch:MODULE.PATH:FACTORY"),
    ],
)
def test_every_mistake_in_a_factory_is_named(target, message, project, about):
    with pytest.raises(InputError, match=message):
        load_factory(target, description=about())


def test_a_factory_needs_a_description(project):
    with pytest.raises(InputError, match=r"got none for 'torch:nets_for_tests.small:make'"):
        load_factory("nets_for_tests.small:make")


@pytest.fixture
def state():
    return {"2.weight": torch.full((3, 12), 0.5), "2.bias": torch.arange(3.0)}


def head_with(path, about, **kwargs):
    return load_factory(
        "nets_for_tests.small:make", description=about(), weights=path, **kwargs
    ).head


def test_weights_are_loaded(project, about, state):
    safetensors.torch.save_file(state, "net.safetensors")
    head = head_with("net.safetensors", about)
    assert head.weight.tolist() == [[0.5] * 12] * 3
    assert head.bias.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"2.bias": None}, r"1 missing \('2.bias'\) and 0 unexpected;"),
        ({"module.x": torch.ones(1)}, r"0 missing and 1 unexpected \('module.x'\)"),
        ({f"k{i}": torch.ones(1) for i in range(9)}, r"9 unexpected \('k0', 'k1', 'k2', …\)"),
        ({"2.weight": torch.ones(3, 11)}, r"other shapes .*2.weight.*\[3, 11\]"),
    ],
)
def test_weights_that_do_not_fit(change, message, project, about, state):
    state = {k: v for k, v in (state | change).items() if v is not None}
    safetensors.torch.save_file(state, "net.safetensors")
    with pytest.raises(InputError, match=message):
        head_with("net.safetensors", about)


def test_tied_weights_may_be_stored_once():
    from faultlens.models.pytorch_weights import load_weights

    net = nn.ModuleDict({"a": nn.Linear(2, 2, bias=False), "b": nn.Linear(2, 2, bias=False)})
    net["b"].weight = net["a"].weight
    import tempfile
    from pathlib import Path

    path = Path(tempfile.mkdtemp()) / "net.safetensors"
    safetensors.torch.save_file({"a.weight": torch.eye(2)}, path)
    load_weights(net, path)
    assert net["b"].weight.tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin"])
def test_pickles_are_refused_with_a_way_out(suffix, project, about, state):
    torch.save(state, f"net{suffix}")
    with pytest.raises(
        InputError, match=r"(?s)can run any code when opened.*save_file\(torch.load"
    ):
        head_with(f"net{suffix}", about)
    assert head_with(f"net{suffix}", about, allow_pickle=True).bias.tolist() == [0, 1, 2]


def test_the_way_out_that_the_message_shows_works(project, about, state):
    torch.save(state, "net.pt")
    with pytest.raises(InputError) as caught:
        head_with("net.pt", about)
    lines = [line.strip() for line in str(caught.value).splitlines() if line.startswith("  ")]
    exec("\n".join(lines))
    assert head_with("net.safetensors", about).bias.tolist() == [0, 1, 2]


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
def test_checkpoints_with_a_state_dict_inside(key, project, about, state):
    torch.save({key: state, "epoch": 3}, "net.pt")
    assert head_with("net.pt", about, allow_pickle=True).bias.tolist() == [0, 1, 2]


def test_a_whole_pickled_module(project, about):
    head = head_with(None, about)
    torch.save(sys.modules["nets_for_tests.small"].make(), "net.pt")
    np.testing.assert_array_equal(head_with("net.pt", about, allow_pickle=True).weight, head.weight)


def test_files_that_hold_no_weights(project, about, state):
    with pytest.raises(InputError, match="weights must be an existing file"):
        head_with("absent.safetensors", about)
    (project / "text.safetensors").write_text("hello")
    with pytest.raises(InputError, match="must be a valid safetensors file"):
        head_with("text.safetensors", about)
    (project / "text.pt").write_text("hello")
    with pytest.raises(InputError, match=r"must be a file of torch.save"):
        head_with("text.pt", about, allow_pickle=True)
    torch.save([1, 2], "list.pt")
    with pytest.raises(InputError, match="must hold a state dict, got list"):
        head_with("list.pt", about, allow_pickle=True)


def test_missing_torch_shows_the_extra():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from faultlens.errors import MissingDependencyError\n"
        "from faultlens.models.load import load_model\n"
        "try: load_model('torch:nets:make')\n"
        "except MissingDependencyError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'faultlens[torch]'" in done.stdout
