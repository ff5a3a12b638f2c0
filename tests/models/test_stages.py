"""What is watched inside an encoder, in every adapter."""

import functools
import sys
import types
import warnings

import numpy as np
import onnx
import pytest
from onnx import helper

from faultlens.errors import InputError
from faultlens.models.load import load_model
from faultlens.models.stages import Op, block_ends, evenly, pooled, watch


def residual(weights):
    """Nodes of a stem and two residual blocks."""
    rng = np.random.default_rng(1)
    stored = {f"w{i}": rng.normal(size=(6, 6, 3, 3)).astype(np.float32) / 8 for i in range(2)}
    nodes = [
        helper.make_node("Conv", ["x", "conv", "conv_bias"], ["c"], "stem_conv", pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["r"], "stem"),
    ]
    for i, source in enumerate(("r", "out0")):
        nodes += [
            helper.make_node("Conv", [source, f"w{i}"], [f"h{i}"], pads=[1] * 4),
            helper.make_node("Add", [f"h{i}", source], [f"s{i}"]),
            helper.make_node("Relu", [f"s{i}"], [f"out{i}"], f"block{i}"),
        ]
    nodes += [
        helper.make_node("GlobalAveragePool", ["out1"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["z"]),
    ]
    return nodes, stored


@pytest.fixture
def net(onnx_file, weights, about):
    nodes, stored = residual(weights)
    path = onnx_file(encoder=nodes, stored=stored)
    return load_model(f"onnx:{path}", preprocess=about())


def test_blocks_of_a_residual_network_are_its_sums(net):
    assert net.candidates() == ("r", "out0", "out1")
    assert watch(net, ("auto",)).stages == ("r", "out0", "out1")


def test_the_last_block_averaged_is_the_embedding(net, pictures):
    found = watch(net, ("out0", "out1")).encode(pictures(5))
    assert list(found) == ["embedding", "logits", "stage:out0", "stage:out1"]
    np.testing.assert_allclose(found["stage:out1"], found["embedding"], rtol=1e-5)
    assert found["stage:out0"].shape == (5, 6)
    assert not np.allclose(found["stage:out0"], found["stage:out1"])


def test_watching_changes_neither_the_model_nor_its_hash(net, pictures):
    watched = watch(net, ("r",))
    assert (net.stages, watched.stages) == ((), ("r",))
    assert watched.content_hash == net.content_hash
    assert set(net.encode(pictures(2))) == {"embedding", "logits"}


def test_a_node_stands_for_what_it_makes(net, pictures):
    by_node, by_tensor = watch(net, ("block0",)), watch(net, ("out0",))
    a, b = by_node.encode(pictures(3)), by_tensor.encode(pictures(3))
    np.testing.assert_array_equal(a["stage:block0"], b["stage:out0"])


def test_a_fixed_batch_is_filled_up(onnx_file, weights, about, pictures):
    nodes, stored = residual(weights)
    fixed = onnx_file(encoder=nodes, stored=stored, shape=(4, 3, 8, 8), name="fixed.onnx")
    free = onnx_file(encoder=nodes, stored=stored)
    rows = [
        watch(load_model(f"onnx:{p}", preprocess=about()), ("out0",)).encode(pictures(6))
        for p in (fixed, free)
    ]
    np.testing.assert_allclose(rows[0]["stage:out0"], rows[1]["stage:out0"], rtol=1e-5)


def test_unknown_stages_are_refused_with_the_nearest(net):
    with pytest.raises(InputError, match=r"got 'blok0'; did you mean 'block0'.*'r', 'out0'"):
        watch(net, ("blok0",))
    with pytest.raises(InputError, match="stages must all differ, got 'r' twice"):
        watch(net, ("r", "r"))


def test_a_weight_is_no_stage(net):
    with pytest.raises(InputError, match="stages must be names of"):
        watch(net, ("fc",))


def test_a_stage_that_is_no_map_is_refused(onnx_file, weights, about, pictures):
    nodes, stored = residual(weights)
    nodes.append(helper.make_node("Shape", ["r"], ["size"]))
    model = load_model(f"onnx:{onnx_file(encoder=nodes, stored=stored)}", preprocess=about())
    with pytest.raises(InputError, match=r"maps or tokens of 3 pictures, got shape \(4,\)"):
        watch(model, ("size",)).encode(pictures(3))


def test_a_file_that_changed_is_not_watched(net, onnx_file, weights):
    nodes, stored = residual(weights)
    onnx_file(encoder=nodes, stored={**stored, "w0": stored["w0"] * 2})
    with pytest.raises(InputError, match="model must stay as it was loaded"):
        watch(net, ("r",))


def test_other_classifiers_cannot_be_watched():
    import planted

    with pytest.raises(InputError, match="stages must be asked of a model that FaultLens loads"):
        watch(planted.healthy(), ("mix",))


def test_pooling_averages_space_and_tokens():
    maps = np.arange(24.0).reshape(1, 2, 3, 4)
    np.testing.assert_allclose(pooled(maps, 1, "m"), [[5.5, 17.5]])
    tokens = np.arange(6.0).reshape(1, 3, 2)
    np.testing.assert_allclose(pooled(tokens, 1, "t"), [[2.0, 3.0]])
    last = np.arange(12.0).reshape(1, 2, 2, 3)
    np.testing.assert_allclose(pooled(last, 1, "l"), [[4.5, 5.5, 6.5]])
    np.testing.assert_allclose(pooled(np.ones((2, 3)), 2, "f"), np.ones((2, 3)))
    with pytest.raises(InputError, match=r"got shape \(2, 3\) at 'f'"):
        pooled(np.ones((2, 3)), 5, "f")


def test_evenly_keeps_both_ends():
    assert evenly("abcdefghij", 4) == ("a", "d", "g", "j")
    assert evenly("ab", 4) == ("a", "b")


def test_a_chain_has_a_block_for_every_layer():
    ops = [Op("c0", "linear", ("x",)), Op("n0", "other", ("c0",)), Op("a0", "activation", ("n0",)),
           Op("p0", "other", ("a0",)), Op("c1", "linear", ("p0",)), Op("a1", "activation", ("c1",)),
           Op("z", "other", ("a1",)), Op("y", "linear", ("z",))]  # fmt: skip
    assert block_ends(ops, "x", "z") == ("a0", "a1")


def test_constants_and_side_branches_are_no_blocks():
    ops = [
        Op("k", "linear", ("w",)),
        Op("c", "linear", ("x", "w")),
        Op("a", "activation", ("c",)),
        Op("side", "linear", ("a",)),
        Op("d", "linear", ("a",)),
        Op("s", "join", ("d", "k")),
    ]
    assert block_ends(ops, "x", "s") == ("a", "s")


def onnx_export(torch, network, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        torch.onnx.export(
            network, (torch.randn(2, 3, 8, 8),), path, dynamo=False,
            input_names=["x"], dynamic_axes={"x": {0: "n"}},
        )  # fmt: skip


@pytest.fixture
def torch_model(nets, about, monkeypatch):
    def load(kind="resnet", change=lambda network: None):
        network = nets.trained(getattr(nets, kind))
        change(network)
        module = types.ModuleType("made_for_stages")
        module.make = lambda: network
        monkeypatch.setitem(sys.modules, "made_for_stages", module)
        return network, load_model("torch:made_for_stages:make", preprocess=about())

    return load


@pytest.mark.torch
def test_blocks_of_a_torch_network(torch_model):
    assert torch_model("resnet")[1].candidates() == ("stem", "blocks.0", "blocks.1")
    found = torch_model("vit")[1].candidates()
    assert {"patch", "body.layers.0", "body.layers.1"} <= set(found)


@pytest.mark.torch
def test_activations_of_a_torch_module_are_averaged(torch_model, pictures):
    import torch

    network, model = torch_model("resnet")
    found = watch(model, ("stem", "blocks.0")).encode(pictures(4))
    with torch.no_grad():
        stem = network.stem(torch.from_numpy(pictures(4)))
        block = network.blocks[0](stem)
    np.testing.assert_allclose(found["stage:stem"], stem.mean((2, 3)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["stage:blocks.0"], block.mean((2, 3)), rtol=1e-4, atol=1e-6)


@pytest.mark.torch
def test_tokens_of_a_torch_module_are_averaged(torch_model, pictures):
    found = watch(torch_model("vit")[1], ("auto",)).encode(pictures(2))
    assert found["stage:body.layers.0"].shape == (2, 16)


@pytest.mark.torch
def test_a_module_that_does_not_run_is_refused(torch_model, pictures):
    import torch

    def add(network):
        network.spare = torch.nn.Linear(2, 2)

    _, model = torch_model("resnet", add)
    with pytest.raises(InputError, match="stages must run in the encoder, got 'spare'"):
        watch(model, ("spare",)).encode(pictures(2))


@pytest.mark.torch
def test_all_adapters_agree(torch_model, about, pictures, tmp_path):
    import torch

    network, live = torch_model("resnet")
    path = tmp_path / "net.onnx"
    onnx_export(torch, network, str(path))
    batch = torch.randn(2, 3, 8, 8)
    program = torch.export.export(network, (batch,), dynamic_shapes=({0: torch.export.Dim("n")},))
    torch.export.save(program, tmp_path / "net.pt2")
    load = functools.partial(load_model, preprocess=about())
    models = [live, load(f"onnx:{path}"), load(f"torch-export:{tmp_path / 'net.pt2'}")]
    rows = []
    for model in models:
        watched = watch(model, ("auto",))
        assert len(watched.stages) == 3
        found = watched.encode(pictures(5))
        rows.append([found[f"stage:{s}"] for s in watched.stages])
    for other in rows[1:]:
        # The stem's map differs: one adapter reads modules, the others tensors.
        for a, b in zip(rows[0][1:], other[1:], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_onnx_weights_behind_a_transposition_make_a_linear_operator():
    from faultlens.models.onnx_graph import OnnxGraph

    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[N,2] x) => (float[N,2] y) <float[2,2] w = {1, 0, 0, 1}>
        { t = Transpose(w)  h = MatMul(x, t)  g = MatMul(h, h)  y = Add(g, h) }""")
    kinds = {op.name: op.kind for op in OnnxGraph(model).ops()}
    assert kinds == {"t": "other", "h": "linear", "g": "other", "y": "join"}
