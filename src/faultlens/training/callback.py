"""What the callbacks of Keras, Lightning and Hugging Face have in common."""

from typing import TYPE_CHECKING, Any

from faultlens.errors import FaultlensError
from faultlens.training.trace import Trace
from faultlens.training.watch import Watch

if TYPE_CHECKING:
    from faultlens.training.finding import TrainingFinding


class CallbackWatch:
    """A watch that a framework's callback opens when the training begins.

    Args:
        options: `trace`, `schedule`, `on_fault`, `live`, as `faultlens.training.watch.watch` takes.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self._options = options
        self._watch: Watch | None = None

    @property
    def trace(self) -> Trace:
        """The trace so far."""
        return self._opened().trace

    @property
    def findings(self) -> "list[TrainingFinding]":
        """What is wrong as far as can be told by now."""
        return self._opened().findings

    def close(self) -> None:
        """Let go of the model; done at the end of the training, but not when it fails."""
        if self._watch is not None:
            self._watch.close(check=False)

    def _open(self, loop: Any) -> None:
        """Begin to watch a loop whose plan is set."""
        self.close()
        self._watch = Watch(loop, **self._options)
        self._watch.start()

    def _opened(self) -> Watch:
        if self._watch is None:
            raise FaultlensError("nothing was watched yet; give this callback to a training first")
        return self._watch


def made(methods: type, base: type, namespace: dict[str, Any]) -> type:
    """Make a module's `Watch` of its methods and the framework's class, which is loaded late."""
    given = {"__doc__": namespace["__doc__"], "__module__": namespace["__name__"]}
    namespace["Watch"] = type("Watch", (methods, base), given)
    return namespace["Watch"]  # type: ignore[no-any-return]
