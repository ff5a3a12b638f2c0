"""The facts of a model that is stored as a graph (ONNX, torch.export)."""

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

from faultlens.arrays import Array, tensor_hashes
from faultlens.models.adapter import Facts, InputShape
from faultlens.models.chain import Step, cut
from faultlens.models.checks import check_classes, check_input, check_weights
from faultlens.models.description import ModelDescription


@runtime_checkable
class Graph(Protocol):
    """What can be asked of a stored graph.

    Attributes:
        outputs: Names of what it returns.
        input_shape: Of its only input, None where it may vary.
        is_half: Whether it computes in half precision.
    """

    outputs: list[str]
    input_shape: InputShape
    is_half: bool

    def names(self) -> set[str]:
        """Return the name of every value that the graph computes or takes."""
        ...

    def weights(self) -> Iterable[tuple[str, Array]]:
        """Return every stored floating-point tensor as float32, with its name."""
        ...

    def steps(self, name: str) -> list[Step]:
        """Return the steps that lead to a value, last first, up to the first unknown operator."""
        ...

    def before(self, name: str) -> set[str]:
        """Return the names of everything that a value is computed from."""
        ...


def graph_facts(graph: Graph, description: ModelDescription, *, name: str, digest: str) -> Facts:
    """Check a graph against its description and cut it.

    Args:
        graph: A model's graph.
        description: Class names and preprocessing, and where to cut.
        name: The model's name.
        digest: A hash of the model's file.

    Raises:
        InputError: Weights that are NaN, an input that the preprocessing does not give, no usable
            head, or another number of classes.
    """
    weights = dict(graph.weights())
    check_weights(weights.items(), name=name)
    check_input(graph.input_shape, description.preprocessing, name=name)
    found = cut(
        {output: graph.steps(output) for output in graph.outputs},
        split_at=description.split_at,
        known=graph.names(),
        n_classes=len(description.classes),
    )
    check_classes(description, found.head, name=name)
    before = graph.before(found.embedding)
    return Facts(
        name=name,
        digest=digest,
        description=description,
        cut=found,
        encoder_hashes=tensor_hashes(w for key, w in weights.items() if key in before),
        input_shape=graph.input_shape,
        is_half=graph.is_half,
    )
