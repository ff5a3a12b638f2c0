"""Reading the graph of a `torch.export` program: its constants, and the steps to an output."""

from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import Any, Literal

import torch
from torch import fx

from faultlens.arrays import Array, FloatArray
from faultlens.errors import InputError
from faultlens.models.adapter import InputShape
from faultlens.models.chain import Step, affine
from faultlens.models.pytorch_split import to_numpy
from faultlens.models.stages import Op

# What changes no value in evaluation; the first argument is what it reads.
_SKIP = {
    "view", "reshape", "_unsafe_view", "flatten", "squeeze", "unsqueeze", "dropout", "clone",
    "contiguous", "detach", "alias", "to", "_to_copy",
}  # fmt: skip
_SOFTMAX = {"softmax", "_softmax", "log_softmax", "_log_softmax", "special_log_softmax"}
_LINEAR = {"conv2d", "convolution", "linear", "addmm", "mm", "matmul"}
_ACTIVATION = {
    "relu", "gelu", "silu", "hardtanh", "hardswish", "leaky_relu", "elu", "sigmoid", "tanh", "mish",
}  # fmt: skip
# What may stand between a parameter and the layer that uses it.
_FOLDED = {"t", "transpose", "permute", "numpy_T", "detach", "alias", "clone", "view", "to"}


class ProgramGraph:
    """Look-ups in an exported program's graph.

    Attributes:
        module: The graph module.
        outputs: Names of the nodes whose values the program returns.
        input: Name of its only input.
        input_shape: Of its only input, None where it may vary.
        input_type: Of that.
        is_half: Whether that is in half precision.

    Raises:
        InputError: The program does not have exactly one input.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Softmax(-1))
        >>> program = torch.export.export(net.eval(), (torch.ones(2, 3),))
        >>> graph = ProgramGraph(program.module())
        >>> [step.kind for step in graph.steps(graph.outputs[0])]
        ['softmax', 'affine']
    """

    def __init__(self, module: fx.GraphModule) -> None:
        self.module = module
        self._nodes = {node.name: node for node in module.graph.nodes}
        self._output = next(node for node in module.graph.nodes if node.op == "output")
        self.outputs: list[str] = [node.name for node in self._output.all_input_nodes]
        inputs = [node for node in module.graph.nodes if node.op == "placeholder"]
        if len(inputs) != 1:
            raise InputError(
                f"model must have one input, the pictures, got {[n.name for n in inputs]}; "
                "export it with the pictures alone"
            )
        self.input = inputs[0].name
        value = inputs[0].meta["val"]
        self.input_shape: InputShape = tuple(n if isinstance(n, int) else None for n in value.shape)
        self.input_type: torch.dtype = value.dtype
        self.is_half = self.input_type in (torch.float16, torch.bfloat16)

    def names(self) -> set[str]:
        """Return the name of every value that the graph computes or takes."""
        return {n.name for n in self._nodes.values() if n.op in ("placeholder", "call_function")}

    def ops(self) -> Iterator[Op]:
        """Yield what the graph computes, in its order."""
        for node in self.module.graph.nodes:
            op, sources = _operator(node), node.all_input_nodes
            kind: Literal["linear", "join", "activation", "other"] = "other"
            if op in _LINEAR and any(self._folded(n) is not None for n in sources[1:]):
                kind = "linear"
            elif op.removesuffix("_") in _ACTIVATION:
                kind = "activation"
            elif op in ("add", "add_") and len(sources) == 2:
                kind = "join"
            yield Op(node.name, kind, tuple(n.name for n in sources))

    def weights(self) -> Iterator[tuple[str, Array]]:
        """Yield every stored floating-point tensor as float32, with the name of its node."""
        for node in self._nodes.values():
            if node.op == "get_attr":
                value = attrgetter(str(node.target))(self.module)
                if isinstance(value, torch.Tensor) and value.is_floating_point():
                    yield node.name, to_numpy(value)

    def before(self, name: str) -> set[str]:
        """Return the names of all nodes that `name` is computed from."""
        seen, todo = {name}, [name]
        while todo:
            new = {n.name for n in self._nodes[todo.pop()].all_input_nodes} - seen
            seen |= new
            todo.extend(new)
        return seen

    def steps(self, name: str) -> list[Step]:
        """Return the steps that lead to a node, last first, up to the first unknown operator."""
        steps: list[Step] = []
        while (step := self._step(self._nodes[name])) is not None:
            steps.append(step)
            name = step.source
        return steps

    def expose(self, embedding: str, logits: str) -> fx.GraphModule:
        """Rewrite the graph in place so that it returns `(embedding, logits)`, and return it."""
        graph = self.module.graph
        graph.set_codegen(fx.graph.CodeGen())
        self._output.args = ((self._nodes[embedding], self._nodes[logits]),)
        for node in reversed(graph.nodes):
            # A check of the input's shape that torch adds; ours is clearer.
            if node.op == "call_module" and not node.users:
                graph.erase_node(node)
        graph.eliminate_dead_code()
        self.module.recompile()
        return self.module

    def _step(self, node: fx.Node) -> Step | None:
        op = _operator(node)
        if op in _SKIP:
            return Step("skip", node.all_input_nodes[0].name)
        if op in _SOFTMAX:
            return Step("softmax", node.all_input_nodes[0].name)
        if op in ("relu", "relu_"):
            return Step("relu", node.all_input_nodes[0].name)
        if op == "add" and not node.kwargs:
            return self._add(*node.all_input_nodes)
        if op in ("linear", "addmm", "mm", "matmul", "conv2d"):
            return self._affine(op, node)
        return None

    def _add(self, *terms: fx.Node) -> Step | None:
        for source, other in (terms, terms[::-1]):
            constant = self._constant(other) if len(terms) == 2 else None
            if constant is not None and constant.ndim <= 2:
                return Step("bias", source.name, bias=constant.reshape(-1))
        return None

    def _affine(self, op: str, node: fx.Node) -> Step | None:
        operands = node.all_input_nodes
        if op == "addmm":
            operands = [*operands[1:], operands[0]]
        source, *rest = operands
        weight, *biases = [self._constant(n) for n in rest]
        if weight is None or any(b is None for b in biases):
            return None
        if op == "conv2d":
            one_by_one = weight.shape[2:] == (1, 1)
            return affine(source.name, weight[:, :, 0, 0], *biases) if one_by_one else None
        if weight.ndim != 2 or (op == "addmm" and node.kwargs):
            return None
        return affine(source.name, weight if op == "linear" else weight.T, *biases)

    def _constant(self, node: fx.Node) -> FloatArray | None:
        value = self._folded(node)
        return None if value is None else to_numpy(value)

    def _folded(self, node: fx.Node) -> torch.Tensor | None:
        """Return a stored tensor, also through the operators of `_FOLDED`; None if computed."""
        if node.op == "get_attr":
            value: torch.Tensor = attrgetter(str(node.target))(self.module)
            return value.detach()
        if _operator(node) not in _FOLDED:
            return None
        value_of = {n: self._folded(n) for n in node.all_input_nodes}
        if any(v is None for v in value_of.values()):
            return None
        args = fx.map_arg(node.args, lambda n: value_of[n])
        kwargs = fx.map_arg(node.kwargs, lambda n: value_of[n])
        result: torch.Tensor = node.target(*args, **kwargs)  # type: ignore[operator]
        return result


def _operator(node: fx.Node) -> str:
    """Return the plain name of an aten operator, such as `linear`."""
    packet = getattr(node.target, "overloadpacket", None) if node.op == "call_function" else None
    return str(packet).removeprefix("aten.") if packet is not None else ""


class Recorder(fx.Interpreter):
    """Runs a graph node by node and keeps some of the values.

    Args:
        module: The graph module.
        names: Nodes to keep.
    """

    def __init__(self, module: fx.GraphModule, names: Sequence[str]) -> None:
        super().__init__(module)
        self._names = set(names)
        self.seen: dict[str, torch.Tensor] = {}

    def run_node(self, node: fx.Node) -> Any:
        """Compute one node; see `torch.fx.Interpreter`."""
        value = super().run_node(node)
        if node.name in self._names:
            self.seen[node.name] = value
        return value
