"""Reading an ONNX graph: its constants, and the steps that lead to an output."""

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, numpy_helper

from faultlens.arrays import Array, FloatArray
from faultlens.errors import InputError
from faultlens.models.adapter import InputShape
from faultlens.models.chain import Step, affine
from faultlens.models.stages import Op
from faultlens.onnx_session import open_session

# What changes no value when a trained network is evaluated.
_SKIP = {"Identity", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Dropout", "Cast"}
_SOFTMAX = {"Softmax", "LogSoftmax"}
_LINEAR = {"Conv", "Gemm", "MatMul", "ConvTranspose"}
_ACTIVATION = {
    "Relu", "Clip", "LeakyRelu", "PRelu", "Elu", "Selu", "Gelu", "HardSwish", "HardSigmoid",
    "Sigmoid", "Tanh", "Softplus", "Mish",
}  # fmt: skip
# What may stand between a stored weight and the layer that uses it.
_FOLDED = {
    "Constant", "Identity", "Transpose", "Cast", "Reshape", "Squeeze", "Unsqueeze",
    "DequantizeLinear",
}  # fmt: skip
_INPUT_TYPES: dict[int, Any] = {
    TensorProto.FLOAT: np.float32,
    TensorProto.FLOAT16: np.float16,
    TensorProto.DOUBLE: np.float64,
}
_FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16}


class OnnxGraph:
    """Look-ups in the main graph of a model.

    Attributes:
        outputs: Names of the tensors it returns.
        input_name: Name of its only input.
        input_type: NumPy type of that.
        input_shape: None where it may vary.
        is_half: Whether the input is in half precision.

    Raises:
        InputError: The graph does not have exactly one input of floating-point numbers.

    Example:
        >>> model = onnx.parser.parse_model('''
        ...     <ir_version: 8, opset_import: ["" : 17]>
        ...     net (float[N,2] z) => (float[N,2] y) <float[2,2] w = {1, 0, 0, 1}>
        ...     { h = MatMul(z, w)  y = Softmax(h) }''')
        >>> [step.kind for step in OnnxGraph(model).steps("y")]
        ['softmax', 'affine']
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self._nodes = {name: node for node in model.graph.node for name in node.output if name}
        self._stored = {tensor.name: tensor for tensor in model.graph.initializer}
        self.outputs: list[str] = [output.name for output in model.graph.output]
        inputs = [i for i in model.graph.input if i.name not in self._stored]
        if len(inputs) != 1:
            raise InputError(
                f"model must have one input, the pictures, got {[i.name for i in inputs]}; "
                "export it with the pictures alone"
            )
        self.input_name = inputs[0].name
        tensor = inputs[0].type.tensor_type
        if tensor.elem_type not in _INPUT_TYPES:
            raise InputError(
                "input of the model must hold floating-point numbers, got "
                f"{TensorProto.DataType.Name(tensor.elem_type)}; export it without the conversion"
            )
        self.input_type = _INPUT_TYPES[tensor.elem_type]
        self.is_half = tensor.elem_type == TensorProto.FLOAT16
        self.input_shape: InputShape = (None,) * 4
        if tensor.HasField("shape"):
            self.input_shape = tuple(
                d.dim_value if d.dim_value > 0 else None for d in tensor.shape.dim
            )

    def names(self) -> set[str]:
        """Return the name of every tensor that the graph computes or takes."""
        return {*self._nodes, self.input_name}

    def tensor_of(self, name: str) -> str | None:
        """Return a tensor by its name, or by that of the node that makes it; None if neither."""
        if name in self._nodes:
            return name
        return next((n.output[0] for n in self._model.graph.node if n.name == name != ""), None)

    def ops(self) -> Iterator[Op]:
        """Yield what the graph computes, in its order."""
        for node in self._model.graph.node:
            fixed = sum(self._is_fixed(name) for name in node.input)
            kind: Literal["linear", "join", "activation", "other"] = "other"
            if node.op_type in _LINEAR and fixed:
                kind = "linear"
            elif node.op_type in _ACTIVATION:
                kind = "activation"
            elif node.op_type == "Add" and not fixed:
                kind = "join"
            for name in filter(None, node.output):
                yield Op(name, kind, tuple(node.input))

    def _is_fixed(self, name: str) -> bool:
        """Whether a tensor is stored, maybe behind operators of `_FOLDED`."""
        while name not in self._stored:
            node = self._nodes.get(name)
            if node is None or node.op_type not in _FOLDED:
                return False
            if node.op_type == "Constant":
                return True
            name = node.input[0]
        return True

    def weights(self) -> Iterator[tuple[str, Array]]:
        """Yield every stored float tensor as float32, with its name."""
        for name, tensor in self._stored.items():
            if tensor.data_type in _FLOATS:
                yield name, numpy_helper.to_array(tensor).astype(np.float32)

    def before(self, tensor: str) -> set[str]:
        """Return the names of all tensors that `tensor` is computed from."""
        seen, todo = {tensor}, [tensor]
        while todo:
            node = self._nodes.get(todo.pop())
            new = set(node.input) - seen if node is not None else set()
            seen |= new
            todo.extend(new)
        return seen

    def steps(self, tensor: str) -> list[Step]:
        """Return the steps that lead to `tensor`, last first, up to the first unknown operator."""
        steps: list[Step] = []
        while (node := self._nodes.get(tensor)) is not None:
            step = self._step(node)
            if step is None:
                break
            steps.append(step)
            tensor = step.source
        return steps

    def _step(self, node: NodeProto) -> Step | None:
        if node.op_type in _SKIP:
            return Step("skip", node.input[0])
        if node.op_type in _SOFTMAX:
            return Step("softmax", node.input[0])
        if node.op_type == "Relu":
            return Step("relu", node.input[0])
        if node.op_type == "Add":
            return self._add(node)
        if node.op_type in ("Gemm", "MatMul", "Conv"):
            return self._affine(node)
        return None

    def _add(self, node: NodeProto) -> Step | None:
        left, right = node.input
        for source, other in ((left, right), (right, left)):
            constant = self._constant(other)
            if constant is not None and constant.ndim <= 2:
                return Step("bias", source, bias=constant.reshape(-1))
        return None

    def _affine(self, node: NodeProto) -> Step | None:
        source, *constants = node.input
        weight, *biases = (self._constant(name) for name in constants if name)
        if weight is None or any(b is None for b in biases):
            return None
        options: dict[str, Any] = {
            a.name: onnx.helper.get_attribute_value(a) for a in node.attribute
        }
        bias = biases[0] if biases else None
        if node.op_type == "Conv":
            one_by_one = weight.shape[2:] == (1, 1) and options.get("group", 1) == 1
            return affine(source, weight[:, :, 0, 0], bias) if one_by_one else None
        if weight.ndim != 2 or options.get("transA", 0):
            return None
        weight = weight if options.get("transB", 0) else weight.T
        if bias is not None:
            bias = bias * np.float32(options.get("beta", 1.0))
        return affine(source, weight * np.float32(options.get("alpha", 1.0)), bias)

    def _constant(self, name: str) -> FloatArray | None:
        value = self._folded(name)
        return None if value is None else value.astype(np.float32)

    def _folded(self, name: str) -> Array | None:
        """Return a stored tensor, also through the operators of `_FOLDED`; None if computed."""
        if name in self._stored:
            return numpy_helper.to_array(self._stored[name])
        node = self._nodes.get(name)
        if node is None or node.op_type not in _FOLDED:
            return None
        feeds: dict[str, Array] = {}
        for key in filter(None, node.input):
            value = self._folded(key)
            if value is None:
                return None
            feeds[key] = value
        graph = onnx.helper.make_graph(
            [node],
            "constant",
            [],
            [onnx.ValueInfoProto(name=name)],
            [numpy_helper.from_array(value, key) for key, value in feeds.items()],
        )
        model = onnx.helper.make_model(
            graph, opset_imports=self._model.opset_import, ir_version=self._model.ir_version
        )
        folded: Array = open_session(model.SerializeToString(), threads=1).run([name], {})[0]
        return folded
