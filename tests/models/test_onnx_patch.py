import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import parser

import planted
from faultlens.errors import InputError
from faultlens.models import onnx as adapter
from faultlens.models.description import ModelDescription
from faultlens.models.head import Head
from faultlens.models.onnx_patch import patch_head

PLAIN = {"resize": 8, "crop": 8, "mean": (0, 0, 0), "std": (1, 1, 1)}
ABOUT = ModelDescription(classes=("dark", "bright"), preprocessing=PLAIN)
NEW = Head((np.array([[2.0, -1.0, 0.5], [0.25, 3.0, -2.0]]),), (np.array([0.5, -4.0]),))

FORMS = {
    "gemm": "p = GlobalAveragePool(x)  z = Flatten(p)  y = Gemm<transB=1>(z, w, b)",
    "scaled gemm": "p = GlobalAveragePool(x)  z = Flatten(p)"
    "  y = Gemm<alpha=0.5, beta=2.0, transB=0>(z, v, b)",
    "gemm without bias": "p = GlobalAveragePool(x)  z = Flatten(p)  y = Gemm<transB=1>(z, w)",
    "matmul": "p = GlobalAveragePool(x)  z = Flatten(p)  y = MatMul(z, v)",
    "matmul and add": "p = GlobalAveragePool(x)  z = Flatten(p)  h = MatMul(z, v)  y = Add(b, h)",
    "transposed": "p = GlobalAveragePool(x)  z = Flatten(p)  t = Transpose<perm=[1,0]>(w)"
    "  h = MatMul(z, t)  y = Add(h, b)",
    "softmax": "p = GlobalAveragePool(x)  z = Flatten(p)  h = Gemm<transB=1>(z, w, b)"
    "  y = Softmax(h)",
    "convolution": "p = GlobalAveragePool(x)  h = Conv(p, c, b)  y = Flatten(h)",
}


def model(body):
    return parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        net (float[N,3,H,W] x) => (float[N,2] y)
        <float[2,3] w = {{1, 0, 0, 0, 1, 0}}, float[3,2] v = {{1, 0, 0, 1, 0, 0}},
         float[2,3,1,1] c = {{1, 0, 0, 0, 1, 0}}, float[2] b = {{0, 1}}>
        {{ {body} }}"""
    )


def outputs(path, batch):
    return onnxruntime.InferenceSession(str(path)).run(None, {"x": batch})[0]


@pytest.mark.parametrize("form", FORMS)
def test_the_patched_file_gives_the_logits_of_the_new_head(form, tmp_path):
    onnx.save(model(FORMS[form]), tmp_path / "net.onnx")
    loaded = adapter.load(tmp_path / "net.onnx", description=ABOUT)
    patch_head(tmp_path / "net.onnx", loaded, NEW, tmp_path / "new.onnx")
    batch = np.random.default_rng(0).random((5, 3, 8, 8), np.float32)
    want = NEW(loaded.encode(batch)["embedding"])
    got = adapter.load(tmp_path / "new.onnx", description=ABOUT).encode(batch)["logits"]
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    plain = outputs(tmp_path / "new.onnx", batch)
    assert plain.shape == outputs(tmp_path / "net.onnx", batch).shape
    if form != "softmax":
        np.testing.assert_allclose(plain, want, rtol=1e-5, atol=1e-5)
    onnx.checker.check_model(onnx.load(tmp_path / "new.onnx"))


def test_the_source_stays_as_it_is(tmp_path):
    planted.save_onnx(planted.swapped_head(), tmp_path / "net.onnx")
    before = (tmp_path / "net.onnx").read_bytes()
    loaded = adapter.load(tmp_path / "net.onnx")
    patch_head(tmp_path / "net.onnx", loaded, planted.healthy().head, tmp_path / "new.onnx")
    assert (tmp_path / "net.onnx").read_bytes() == before
    again = adapter.load(tmp_path / "new.onnx")
    np.testing.assert_allclose(again.head.weight, planted.healthy().head.weight, rtol=1e-6)
    assert again.class_names == loaded.class_names


def test_two_linear_layers_in_a_row_are_refused(tmp_path):
    body = "p = GlobalAveragePool(x)  z = Flatten(p)  h = MatMul(z, s)  y = Gemm<transB=1>(h, w, b)"
    two = parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        net (float[N,3,H,W] x) => (float[N,2] y)
        <float[2,3] w = {{1, 0, 0, 0, 1, 0}}, float[3,3] s = {{1, 0, 0, 0, 1, 0, 0, 0, 1}},
         float[2] b = {{0, 1}}> {{ {body} }}"""
    )
    onnx.save(two, tmp_path / "net.onnx")
    loaded = adapter.load(tmp_path / "net.onnx", description=ABOUT, split_at="z")
    with pytest.raises(InputError, match="must have one linear layer after 'z'"):
        patch_head(tmp_path / "net.onnx", loaded, NEW, tmp_path / "new.onnx")
    assert not (tmp_path / "new.onnx").exists()


def test_a_chain_is_refused(tmp_path):
    planted.save_onnx(planted.healthy(), tmp_path / "net.onnx")
    loaded = adapter.load(tmp_path / "net.onnx")
    chain = Head((np.eye(12), np.ones((5, 12))), (np.zeros(12), np.zeros(5)))
    with pytest.raises(InputError, match="must be linear"):
        patch_head(tmp_path / "net.onnx", loaded, chain, tmp_path / "new.onnx")
