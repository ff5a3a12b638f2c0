import io
import json
import pickle
import shutil
import zipfile

import numpy as np
import pytest

from faultlens.errors import InputError
from faultlens.models.chain import SOFTMAX_NOTE

torch = pytest.importorskip("torch")
nn = torch.nn
pytestmark = pytest.mark.torch


def load_export(*args, **kwargs):
    from faultlens.models.pytorch import load_export

    return load_export(*args, **kwargs)


@pytest.fixture
def export(tmp_path):
    """Write a program; `batch` is None for any batch size."""

    def export(net, *, batch=None, shape=(3, 8, 8), name="net.pt2"):
        dynamic = ({0: torch.export.Dim("batch")},) if batch is None else None
        x = torch.randn(batch or 2, *shape)
        path = tmp_path / name
        torch.export.save(torch.export.export(net, (x,), dynamic_shapes=dynamic), path)
        return path

    return export


def own_logits(net, batch):
    with torch.no_grad():
        return net(torch.from_numpy(batch)).numpy()


@pytest.mark.parametrize(("kind", "dimension"), [("resnet", 8), ("vit", 16), ("mlp", 7)])
def test_the_last_linear_layer_is_found(kind, dimension, nets, export, about, pictures):
    net = nets.trained(getattr(nets, kind))
    # The fused attention of torch's own encoder layer fixes the batch size.
    model = load_export(export(net, batch=2 if kind == "vit" else None), description=about())
    result = model.encode(pictures())
    assert (model.name, model.dimension) == ("torch-export:net.pt2", dimension)
    np.testing.assert_allclose(result["logits"], own_logits(net, pictures()), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        model.head(result["embedding"]), result["logits"], rtol=1e-4, atol=1e-5
    )


def test_embedding_is_that_of_the_live_module(nets, export, about, pictures):
    from faultlens.models.pytorch import from_module

    net = nets.trained(nets.resnet)
    live, stored = from_module(net, about()), load_export(export(net), description=about())
    np.testing.assert_allclose(
        stored.encode(pictures())["embedding"],
        live.encode(pictures())["embedding"],
        rtol=1e-5,
        atol=1e-6,
    )
    assert stored.tensor_hashes == live.tensor_hashes
    assert len(stored.tensor_hashes) > 0


def test_a_fixed_batch_is_run_in_padded_pieces(nets, export, about, pictures):
    net = nets.trained(nets.resnet)
    model = load_export(export(net, batch=4), description=about())
    for n in (1, 4, 6):
        got = model.encode(pictures(n))["logits"]
        np.testing.assert_allclose(got, own_logits(net, pictures(n)), rtol=1e-4, atol=1e-5)


def test_a_named_node_gives_a_chain(nets, export, about, pictures):
    net = nets.trained(nets.mlp)
    path = export(net)
    model = load_export(path, description=about(), split_at="flatten")
    assert [w.shape for w in model.head.weights] == [(7, 12), (3, 7)]
    result = model.encode(pictures())
    np.testing.assert_allclose(
        model.head(result["embedding"]), own_logits(net, pictures()), rtol=1e-4, atol=1e-5
    )
    with pytest.raises(InputError, match="got 'flaten'; did you mean 'flatten'"):
        load_export(path, description=about(), split_at="flaten")
    with pytest.raises(InputError, match="got 'linear'; use 'dropout_1' or 'dropout'"):
        load_export(path, description=about(), split_at="linear")


class Forms(nn.Module):
    """The operators that a linear layer may become."""

    def __init__(self, form):
        super().__init__()
        self.form = form
        self.weight = nn.Parameter(torch.randn(3, 12))
        self.bias = nn.Parameter(torch.randn(3))
        self.pool = nn.AdaptiveAvgPool2d(2)

    def forward(self, x):
        z = self.pool(x).flatten(1)
        return {
            "addmm": lambda: torch.addmm(self.bias, z, self.weight.t()),
            "mm and add": lambda: torch.mm(z, self.weight.t()) + self.bias,
            "add and matmul": lambda: self.bias + z @ self.weight.T,
            "softmax": lambda: torch.softmax(nn.functional.linear(z, self.weight), -1),
            "conv": lambda: nn.functional.conv2d(
                z[:, :, None, None], self.weight[:, :, None, None], self.bias
            ).flatten(1),
            "scaled": lambda: torch.addmm(self.bias, z, self.weight.t(), beta=2),
            "tanh": lambda: torch.tanh(nn.functional.linear(z, self.weight)),
        }[self.form]()


@pytest.mark.parametrize("form", ["addmm", "mm and add", "add and matmul"])
def test_every_form_of_a_last_layer_is_found(form, export, about, pictures):
    torch.manual_seed(0)
    net = Forms(form).eval()
    model = load_export(export(net), description=about())
    np.testing.assert_allclose(model.head.weight, net.weight.detach().numpy())
    np.testing.assert_allclose(
        model.encode(pictures())["logits"], own_logits(net, pictures()), rtol=1e-4, atol=1e-5
    )


def test_a_softmax_is_seen_through_and_noted(export, about, pictures):
    net = Forms("softmax").eval()
    model = load_export(export(net), description=about())
    logits = torch.from_numpy(model.encode(pictures())["logits"])
    np.testing.assert_allclose(
        torch.softmax(logits, -1), own_logits(net, pictures()), rtol=1e-4, atol=1e-6
    )
    assert model.notes == (SOFTMAX_NOTE,)


@pytest.mark.parametrize("form", ["scaled", "tanh"])
def test_other_endings_are_refused(form, export, about):
    with pytest.raises(InputError, match="model must end in a linear layer"):
        load_export(export(Forms(form)), description=about())


def test_input_classes_and_weights_are_checked(nets, export, about):
    net = nets.trained(nets.resnet)
    path = export(net)
    with pytest.raises(InputError, match=r"got 2 names for 3 logits of torch-export:net.pt2"):
        load_export(path, description=about(("cat", "dog")))
    with pytest.raises(InputError, match=r"pictures of 8 × 8.*got 4 × 4"):
        load_export(path, description=about(crop=4))
    with pytest.raises(InputError, match="weights must not be given"):
        load_export(path, description=about(), weights="net.safetensors")
    with pytest.raises(InputError, match=r"got none for 'torch-export:net.pt2'"):
        load_export(path)
    with torch.no_grad():
        net.stem.weight[0] = float("inf")
    with pytest.raises(InputError, match="NaN or infinite values in 'stem_weight'"):
        load_export(export(net), description=about())


def test_a_program_in_training_mode_is_refused(about, export):
    net = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(192, 3)).train()
    with pytest.raises(InputError, match="export it in evaluation mode"):
        load_export(export(net), description=about())


def test_two_inputs_are_refused(tmp_path, about):
    class Two(nn.Module):
        def forward(self, x, y):
            return x + y

    x = torch.ones(2, 3, 8, 8)
    torch.export.save(torch.export.export(Two(), (x, x)), tmp_path / "two.pt2")
    with pytest.raises(InputError, match=r"one input, the pictures, got \['x', 'y'\]"):
        load_export(tmp_path / "two.pt2", description=about())


def test_other_files_are_named_for_what_they_are(tmp_path, about, nets, recwarn):
    net = nets.trained(nets.resnet)
    path = tmp_path / "net.pt2"

    def message():
        with pytest.raises(InputError) as caught:
            load_export(path, description=about())
        assert "torch.export.save" in str(caught.value) or "existing file" in str(caught.value)
        return str(caught.value)

    assert "must be an existing file" in message()
    path.write_text("hello")
    assert "got a file that is no archive" in message()
    torch.save(net.state_dict(), path)
    assert "got weights or a pickled module" in message()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/constants.pkl", b"")
        archive.writestr("net/data.pkl", b"")
    assert "got a TorchScript program" in message()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/readme.txt", b"")
    assert "got another archive" in message()
    assert not recwarn.list


def test_a_damaged_program(tmp_path, nets, export, about, capfd):
    path = export(nets.trained(nets.mlp))
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(InputError, match="a file that is no archive, or a damaged one"):
        load_export(path, description=about())
    path = rewritten(export(nets.trained(nets.mlp)), "archive_version", lambda _: b"99")
    with pytest.raises(InputError, match=r"program that torch .* can read.*version"):
        load_export(path, description=about())


def rewritten(path, ending, change):
    """Copy an archive with one record changed."""
    other = path.with_name("changed.pt2")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(other, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, change(data) if name.endswith(ending) else data)
    shutil.move(other, path)
    return path


class Bomb:
    def __reduce__(self):
        return (exec, ("raise SystemExit('the pickle ran')",))


def edited(key, value):
    """Change the first value under `key`, however deep."""

    def walk(node):
        if isinstance(node, dict):
            if isinstance(node.get(key), str):
                node[key] = value
                return True
            node = list(node.values())
        return isinstance(node, list) and any(walk(child) for child in node)

    def change(data):
        content = json.loads(data)
        assert walk(content)
        return json.dumps(content).encode()

    return change


def bomb(_):
    buffer = io.BytesIO()
    torch.save((Bomb(),), buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("ending", "change", "message"),
    [
        ("sample_inputs/model.pt", bomb, "a pickle of more than tensors"),
        ("sample_inputs/model.pt", lambda _: pickle.dumps(Bomb()), "a pickle of more than"),
        ("models/model.json", edited("target", "torch.hub.load"), "operator 'torch.hub.load'"),
        ("models/model.json", edited("target", "torch.ops.load_library"), "the operator"),
        ("models/model.json", edited("expr_str", "exit.__call__()"), "the expression"),
        ("models/model.json", edited("expr_str", "os.system('x y')"), "the expression"),
    ],
)
def test_programs_that_could_run_code_are_refused(ending, change, message, nets, export, about):
    path = rewritten(export(nets.trained(nets.mlp)), ending, change)
    with pytest.raises(InputError, match=f"{message}(.|\n)*pass allow_pickle=True"):
        load_export(path, description=about())


def test_pickled_weights_and_compiled_code_are_refused(nets, export, about):
    def pickled(data):
        content = json.loads(data)
        next(iter(content["config"].values()))["use_pickle"] = True
        return json.dumps(content).encode()

    path = rewritten(export(nets.trained(nets.mlp)), "weights_config.json", pickled)
    with pytest.raises(
        InputError, match=r"a pickle of more than tensors \('data/weights/weight_0'"
    ):
        load_export(path, description=about())
    path = export(nets.trained(nets.mlp))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("net/data/aotinductor/model/x.so", b"")
    with pytest.raises(InputError, match="compiled code or custom objects"):
        load_export(path, description=about())


def test_allow_pickle_lets_an_ordinary_program_through_unscreened(nets, export, about):
    path = export(nets.trained(nets.mlp))
    model = load_export(path, description=about(), allow_pickle=True)
    assert model.content_hash == load_export(path, description=about()).content_hash
