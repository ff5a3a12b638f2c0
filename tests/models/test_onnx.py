import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from faultlens.errors import InputError, ShapeError
from faultlens.models.chain import SOFTMAX_NOTE
from faultlens.models.onnx import load

node = helper.make_node
RNG = np.random.default_rng(11)


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def logits_of(path, batch, output="logits"):
    """What ONNX Runtime itself gives, from the untouched file and without its rewritings."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run([output], {"x": batch})[0]


TAILS = {
    "gemm": ([node("Gemm", ["z", "fc", "fc_bias"], ["logits"], transB=1)], {}),
    "gemm with transposed weight": (
        [node("Gemm", ["z", "w", "fc_bias"], ["logits"])],
        {"w": normal(6, 3)},
    ),
    "gemm with alpha and beta": (
        [node("Gemm", ["z", "fc", "fc_bias"], ["logits"], transB=1, alpha=0.5, beta=3.0)],
        {},
    ),
    "gemm without bias": ([node("Gemm", ["z", "fc"], ["logits"], transB=1)], {}),
    "gemm with scalar bias": (
        [node("Gemm", ["z", "fc", "same"], ["logits"], transB=1)],
        {"same": np.float32([2.5])},
    ),
    "matmul and add": (
        [node("MatMul", ["z", "w"], ["m"]), node("Add", ["m", "fc_bias"], ["logits"])],
        {"w": normal(6, 3)},
    ),
    "add the other way round": (
        [node("MatMul", ["z", "w"], ["m"]), node("Add", ["fc_bias", "m"], ["logits"])],
        {"w": normal(6, 3)},
    ),
    "matmul alone": ([node("MatMul", ["z", "w"], ["logits"])], {"w": normal(6, 3)}),
    "weight through a transpose": (
        [node("Transpose", ["fc"], ["w"], perm=[1, 0]), node("MatMul", ["z", "w"], ["logits"])],
        {},
    ),
    "weight in a constant node": (
        [
            node("Constant", [], ["w"], value=numpy_helper.from_array(normal(6, 3))),
            node("MatMul", ["z", "w"], ["logits"]),
        ],
        {},
    ),
    "weight stored in eight bits": (
        [
            node("DequantizeLinear", ["q", "scale", "zero"], ["w"], axis=1),
            node("MatMul", ["z", "w"], ["logits"]),
        ],
        {
            "q": RNG.integers(-90, 90, (6, 3)).astype(np.int8),
            "scale": np.float32([0.01, 0.02, 0.03]),
            "zero": np.int8([0, 1, 2]),
        },
    ),
    "dropout before and identity after": (
        [
            node("Dropout", ["z"], ["d"]),
            node("Gemm", ["d", "fc", "fc_bias"], ["g"], transB=1),
            node("Identity", ["g"], ["logits"]),
        ],
        {},
    ),
    "reshape and squeeze after": (
        [
            node("Gemm", ["z", "fc", "fc_bias"], ["g"], transB=1),
            node("Reshape", ["g", "shape"], ["h"]),
            node("Squeeze", ["h", "axis"], ["logits"]),
        ],
        {"shape": np.int64([-1, 3, 1]), "axis": np.int64([2])},
    ),
    "1 x 1 convolution and flatten": (
        [node("Conv", ["pooled", "kernel", "fc_bias"], ["k"]), node("Flatten", ["k"], ["logits"])],
        {"kernel": normal(3, 6, 1, 1)},
    ),
}


@pytest.mark.parametrize("name", TAILS)
def test_every_form_of_a_last_layer_is_found(name, onnx_file, about, pictures):
    tail, stored = TAILS[name]
    path = onnx_file(tail, stored=stored)
    model = load(path, description=about())
    result = model.encode(pictures())
    np.testing.assert_allclose(
        result["logits"], logits_of(path, pictures()).reshape(5, 3), rtol=1e-5, atol=1e-5
    )
    np.testing.assert_allclose(
        model.head(result["embedding"]), result["logits"], rtol=1e-4, atol=1e-5
    )
    assert model.head.is_linear
    assert model.dimension == 6
    assert model.notes == ()


def test_the_embedding_is_the_input_of_the_last_layer(onnx_file, about, pictures):
    model = load(onnx_file(outputs=("logits", "z")), description=about())
    want = logits_of(onnx_file(outputs=("logits", "z")), pictures(), "z")
    np.testing.assert_allclose(model.encode(pictures())["embedding"], want, rtol=1e-6)
    assert model.split == "z"
    assert model.name == "onnx:net.onnx"
    assert model.class_names == ("cat", "dog", "ship")


MLP = [
    node("Gemm", ["z", "a", "a_bias"], ["h"], transB=1),
    node("Relu", ["h"], ["r2"]),
    node("MatMul", ["r2", "b"], ["m"]),
    node("Add", ["m", "b_bias"], ["logits"]),
]
MLP_WEIGHTS = {"a": normal(5, 6), "a_bias": normal(5), "b": normal(5, 3), "b_bias": normal(3)}


def test_a_named_tensor_gives_a_chain(onnx_file, about, pictures):
    path = onnx_file(MLP, stored=MLP_WEIGHTS)
    assert load(path, description=about()).split == "r2"
    model = load(path, description=about(), split_at="z")
    assert [w.shape for w in model.head.weights] == [(5, 6), (3, 5)]
    result = model.encode(pictures())
    np.testing.assert_allclose(
        model.head(result["embedding"]), logits_of(path, pictures()), rtol=1e-4, atol=1e-5
    )


def test_the_description_may_name_the_split_and_the_argument_wins(onnx_file, about):
    path = onnx_file(MLP, stored=MLP_WEIGHTS)
    description = about().model_copy(update={"split_at": "z"})
    assert load(path, description=description).split == "z"
    assert load(path, description=description, split_at="r2").split == "r2"


def test_an_embedding_with_trailing_ones_is_flattened(onnx_file, about, pictures):
    model = load(onnx_file(), description=about(), split_at="pooled")
    assert model.encode(pictures())["embedding"].shape == (5, 6)


@pytest.mark.parametrize("softmax", ["Softmax", "LogSoftmax"])
def test_a_softmax_is_seen_through_and_noted(softmax, onnx_file, about, pictures):
    tail = [
        node("Gemm", ["z", "fc", "fc_bias"], ["raw"], transB=1),
        node(softmax, ["raw"], ["logits"]),
    ]
    model = load(onnx_file(tail), description=about())
    want = load(onnx_file(name="plain.onnx"), description=about()).encode(pictures())["logits"]
    np.testing.assert_allclose(model.encode(pictures())["logits"], want, rtol=1e-5)
    assert model.notes == (SOFTMAX_NOTE,)


@pytest.mark.parametrize("size", [1, 4])
def test_a_fixed_batch_is_run_in_padded_pieces(size, onnx_file, about, pictures):
    fixed = load(onnx_file(shape=(size, 3, 8, 8)), description=about())
    free = load(onnx_file(name="free.onnx"), description=about())
    for n in (1, 3, 4, 9):
        got, want = fixed.encode(pictures(n)), free.encode(pictures(n))
        np.testing.assert_allclose(got["embedding"], want["embedding"], rtol=1e-5, atol=1e-6)
        assert len(got["logits"]) == n


def test_channels_last(onnx_file, about, pictures):
    turn = [node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2])]
    encoder = [node("Conv", ["t", "conv", "conv_bias"], ["c"], pads=[1, 1, 1, 1])]
    rest = [node("GlobalAveragePool", ["c"], ["p"]), node("Flatten", ["p"], ["z"])]
    path = onnx_file(encoder=turn + encoder + rest, shape=("N", 8, 8, 3))
    model = load(path, description=about(layout="nhwc"))
    batch = pictures(2, (8, 8, 3))
    np.testing.assert_allclose(model.encode(batch)["logits"], logits_of(path, batch), rtol=1e-5)
    with pytest.raises(InputError, match=r"takes on axis 1 of any × 8 × 8 × 3.*correct its layout"):
        load(path, description=about())


def test_half_precision(onnx_file, about, pictures, weights):
    half = {k: v.astype(np.float16) for k, v in weights.items()}
    model = load(onnx_file(stored=half, kind=TensorProto.FLOAT16), description=about())
    want = load(onnx_file(name="full.onnx"), description=about()).encode(pictures())
    got = model.encode(pictures())
    assert got["embedding"].dtype == np.float32
    np.testing.assert_allclose(got["logits"], want["logits"], rtol=0.05, atol=0.02)


def test_metadata_replaces_the_yaml(onnx_file, about):
    metadata = {
        "faultlens.classes": json.dumps(["x", "y", "z"]),
        "faultlens.preprocessing": about().preprocessing.model_dump_json(),
    }
    path = onnx_file(metadata=metadata)
    assert load(path).class_names == ("x", "y", "z")
    assert load(path, description=about()).class_names == ("cat", "dog", "ship")
    with pytest.raises(InputError, match=r"metadata of onnx:net.onnx: unknown key 'clases'"):
        load(onnx_file(metadata=metadata | {"faultlens.clases": "[]"}))
    with pytest.raises(
        InputError, match=r"metadata 'faultlens.classes' .* must be JSON, got 'cat'"
    ):
        load(onnx_file(metadata=metadata | {"faultlens.classes": "cat"}))


def test_without_a_description_an_example_is_shown(onnx_file):
    with pytest.raises(InputError, match=r"got none for 'onnx:net.onnx'(.|\n)*interpolation: bil"):
        load(onnx_file())


def test_unknown_and_unfit_tensors(onnx_file, about):
    path = onnx_file(MLP, stored=MLP_WEIGHTS)
    with pytest.raises(InputError, match="got 'poled'; did you mean 'pooled'"):
        load(path, description=about(), split_at="poled")
    with pytest.raises(InputError, match="got 'c'; use 'r2' or 'z'"):
        load(path, description=about(), split_at="c")
    with pytest.raises(InputError, match="got 'h'; use 'r2' or 'z'"):
        load(path, description=about(), split_at="h")


@pytest.mark.parametrize(
    ("tail", "stored"),
    [
        ([node("Sigmoid", ["z"], ["logits"])], {}),
        (
            [
                node("Gemm", ["z", "fc", "fc_bias"], ["g"], transB=1),
                node("Relu", ["g"], ["logits"]),
            ],
            {},
        ),
        (
            [
                node("Conv", ["r", "kernel"], ["k"]),
                node("GlobalAveragePool", ["k"], ["p2"]),
                node("Flatten", ["p2"], ["logits"]),
            ],
            {"kernel": normal(3, 6, 1, 1)},
        ),
        ([node("Conv", ["r", "wide"], ["k"]), node("Flatten", ["k"], ["logits"])],
         {"wide": normal(3, 6, 8, 8)}),
        ([node("Gemm", ["fc", "z"], ["logits"], transB=1)], {}),
        ([node("Add", ["z", "z"], ["logits"])], {}),
        ([node("Gemm", ["z", "fc", "table"], ["logits"], transB=1)], {"table": normal(3, 3)}),
    ],
)  # fmt: skip
def test_other_endings_are_refused(tail, stored, onnx_file, about):
    with pytest.raises(InputError, match="model must end in a linear layer"):
        load(onnx_file(tail, stored=stored), description=about())


def test_a_convolution_over_a_larger_map_is_no_linear_head(onnx_file, about):
    tail = [node("Conv", ["r", "kernel"], ["k"]), node("Flatten", ["k"], ["logits"])]
    path = onnx_file(tail, stored={"kernel": normal(3, 6, 1, 1)})
    with pytest.raises(
        InputError, match=r"flattens to \(3, 6\).*got \(3, 384\) at 'r' of onnx:net"
    ):
        load(path, description=about())


def test_a_cut_that_does_not_reproduce_the_logits_is_refused(onnx_file, about):
    # The reshape mixes pictures, which no reading of single operators can see.
    tail = [
        node("Transpose", ["z"], ["t"], perm=[1, 0]),
        node("Reshape", ["t", "shape"], ["mixed"]),
        node("Gemm", ["mixed", "fc", "fc_bias"], ["logits"], transB=1),
    ]
    path = onnx_file(tail, stored={"shape": np.int64([-1, 6])})
    with pytest.raises(InputError, match="model must give a picture the same embedding alone"):
        load(path, description=about())
    tail = [
        node("Reshape", ["z", "shape"], ["back"]),
        node("Transpose", ["back"], ["t"], perm=[0, 2, 1]),
        node("Reshape", ["t", "flat"], ["mixed"]),
        node("Gemm", ["mixed", "fc", "fc_bias"], ["logits"], transB=1),
    ]
    stored = {"shape": np.int64([-1, 2, 3]), "flat": np.int64([-1, 6])}
    path = onnx_file(tail, stored=stored)
    assert load(path, description=about()).split == "mixed"
    with pytest.raises(InputError, match="use 'mixed'"):
        load(path, description=about(), split_at="z")


def test_weights_that_are_not_finite_are_named(onnx_file, about, weights):
    weights["conv"][0, 0, 0, 0] = np.nan
    with pytest.raises(InputError, match="must be finite, got 1 NaN or infinite values in 'conv'"):
        load(onnx_file(), description=about())
    fc = weights["fc"].copy()
    fc[0, :2] = np.inf
    with pytest.raises(InputError, match="got 2 NaN or infinite values in 'fc'"):
        load(onnx_file(stored={"conv": normal(6, 3, 3, 3), "fc": fc}), description=about())


def test_wrong_number_of_classes(onnx_file, about):
    with pytest.raises(InputError, match=r"got 2 names for 3 logits of onnx:net.onnx"):
        load(onnx_file(), description=about(("cat", "dog")))


def test_files_that_are_no_onnx(tmp_path, onnx_file, about):
    with pytest.raises(InputError, match="model must be an existing file"):
        load(tmp_path / "absent.onnx", description=about())
    (tmp_path / "text.onnx").write_text("hello, this is not a model")
    with pytest.raises(InputError, match="model must be an ONNX file"):
        load(tmp_path / "text.onnx", description=about())
    (tmp_path / "empty.onnx").write_bytes(b"")
    with pytest.raises(InputError, match="model must be an ONNX file, got no operators"):
        load(tmp_path / "empty.onnx", description=about())
    data = onnx_file().read_bytes()
    for part in (0.3, 0.6, 0.95):
        (tmp_path / "cut.onnx").write_bytes(data[: int(part * len(data))])
        with pytest.raises(InputError):
            load(tmp_path / "cut.onnx", description=about())


def test_operators_that_the_runtime_does_not_know(onnx_file, about, capfd):
    tail = [node("Mystery", ["z"], ["y"]), node("Gemm", ["y", "fc"], ["logits"], transB=1)]
    with pytest.raises(InputError, match=r"one that ONNX Runtime can run.*Mystery"):
        load(onnx_file(tail), description=about())
    assert capfd.readouterr().err == ""


def test_several_inputs_and_integer_inputs(onnx_file, about):
    with pytest.raises(InputError, match=r"input of the model must hold floating-point.*got UINT8"):
        load(onnx_file(kind=TensorProto.UINT8), description=about())
    model = onnx.load(onnx_file())
    model.graph.input.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, (1,)))
    onnx.save(model, onnx_file().with_name("two.onnx"))
    with pytest.raises(InputError, match=r"one input, the pictures, got \['x', 'y'\]"):
        load(onnx_file().with_name("two.onnx"), description=about())


def test_several_outputs(onnx_file, about):
    assert load(onnx_file(outputs=("z", "logits")), description=about()).split == "z"
    with pytest.raises(InputError, match="exactly one output of 5 logits"):
        load(onnx_file(outputs=("z", "logits")), description=about(tuple("abcde")))


@pytest.mark.parametrize(
    ("shape", "preprocessing", "message"),
    [
        (("N", 3, 16, 16), {}, "pictures of 16 × 16, which onnx:net.onnx takes, got 8 × 8"),
        (("N", 3, 16, 8), {"crop": (8, 16)}, "pictures of 16 × 8.*got 8 × 16"),
        (("N", 1, 8, 8), {}, "the 1 channels.*got 3.*correct its channel_order"),
        (("N", 3, 8), {}, "must have 4 axes.*got any × 3 × 8"),
    ],
)
def test_input_and_preprocessing_must_agree(shape, preprocessing, message, onnx_file, about):
    with pytest.raises(InputError, match=message):
        load(onnx_file(shape=shape), description=about(**preprocessing))


def test_a_free_size_takes_any_picture_and_a_fixed_one_only_its_own(onnx_file, about, pictures):
    loose = {"resize": None, "crop": None}
    free = load(onnx_file(shape=("N", 3, "H", "W")), description=about(**loose))
    assert free.encode(pictures(2, (3, 5, 9)))["logits"].shape == (2, 3)
    fixed = load(onnx_file(), description=about(**loose))
    with pytest.raises(ShapeError, match=r"must have shape 3 × 8 × 8.*got 3 × 5 × 9"):
        fixed.encode(pictures(2, (3, 5, 9)))
    with pytest.raises(ShapeError, match="batch must have axes"):
        fixed.encode(pictures(2)[0])


def test_weights_beside_the_file(onnx_file, about, pictures, tmp_path):
    want = load(onnx_file(), description=about())
    model = onnx.load(onnx_file())
    path = tmp_path / "outside.onnx"
    onnx.save_model(model, path, save_as_external_data=True, location="data.bin", size_threshold=0)
    got = load(path, description=about())
    np.testing.assert_array_equal(
        got.encode(pictures())["logits"], want.encode(pictures())["logits"]
    )
    data = bytearray((tmp_path / "data.bin").read_bytes())
    data[2] ^= 64
    (tmp_path / "data.bin").write_bytes(data)
    assert load(path, description=about()).content_hash != got.content_hash
    (tmp_path / "data.bin").unlink()
    with pytest.raises(InputError, match="must have its external data beside it"):
        load(path, description=about())


def test_local_functions_are_inlined(onnx_file, about):
    metadata = {
        "faultlens.classes": json.dumps(["x", "y", "z"]),
        "faultlens.preprocessing": about().preprocessing.model_dump_json(),
    }
    path = onnx_file([node("Last", ["z"], ["logits"], domain="mine")], metadata=metadata)
    model = onnx.load(path)
    body = [
        node("Constant", [], ["w"], value=numpy_helper.from_array(MLP_WEIGHTS["a"][:3])),
        node("Gemm", ["a", "w"], ["b"], transB=1),
    ]
    opset = [helper.make_opsetid("", 17)]
    model.functions.append(helper.make_function("mine", "Last", ["a"], ["b"], body, opset))
    model.opset_import.append(helper.make_opsetid("mine", 1))
    onnx.save(model, path)
    got = load(path)
    np.testing.assert_array_equal(got.head.weight, MLP_WEIGHTS["a"][:3])
    assert got.class_names == ("x", "y", "z")


def test_tensor_hashes_cover_the_encoder_only(onnx_file, about, weights):
    import hashlib

    conv, fc = (hashlib.sha256(weights[k].tobytes()).hexdigest() for k in ("conv", "fc"))
    model = load(onnx_file(), description=about())
    assert conv in model.tensor_hashes
    assert fc not in model.tensor_hashes
    assert len(model.tensor_hashes) == 1  # the biases are too small to tell models apart


def test_weights_and_threads(onnx_file, about, pictures):
    with pytest.raises(InputError, match=r"weights must not be given for onnx:net.onnx"):
        load(onnx_file(), description=about(), weights="net.safetensors")
    one, two = (load(onnx_file(), description=about(), threads=n) for n in (1, 2))
    np.testing.assert_allclose(
        one.encode(pictures())["logits"], two.encode(pictures())["logits"], rtol=1e-6
    )


def test_no_torch_is_needed(onnx_file):
    code = "import sys, faultlens.models.load, faultlens.models.onnx; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
