"""A monitor on a live PyTorch module: hooks read what a forward pass computes anyway."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from faultlens.errors import InputError, MissingDependencyError, NotFittedError, ShapeError, nearest
from faultlens.monitor.features import Features
from faultlens.monitor.runtime import RuntimeMonitor
from faultlens.monitor.verdict import Verdict

try:
    import torch
except ImportError as error:
    raise MissingDependencyError("torch", "torch") from error

from torch import nn

from faultlens.models.pytorch_split import pick_logits, to_numpy

OnReject = Callable[[Verdict], None]


@dataclass(frozen=True, slots=True, eq=False)
class _Call:
    """A layer that ran, with what it read and made."""

    layer: nn.Module
    given: torch.Tensor
    made: torch.Tensor


class Guard:
    """A monitor that watches a module; see `wrap`.

    One thread at a time may call the module: the verdict is that of the last call.
    """

    def __init__(
        self,
        monitor: RuntimeMonitor,
        module: nn.Module,
        head: nn.Module | None,
        on_reject: OnReject | None,
    ) -> None:
        self._monitor, self._head, self._on_reject = monitor, head, on_reject
        self._calls: list[_Call] = []
        self._ends: tuple[nn.Module, nn.Module] | None = None  # of the head, once they are known
        self._verdict: Verdict | None = None
        self._watching: list[Any] = []
        # Before the first batch, everything that the head may turn out to be.
        self._watch({*_linear_layers(module), *(() if head is None else _layers(head))})
        self._hooks = [
            module.register_forward_pre_hook(self._begin),
            module.register_forward_hook(self._judge),
        ]

    @property
    def verdict(self) -> Verdict:
        """What the monitor says of the last batch.

        Raises:
            NotFittedError: The module was not called yet.
        """
        if self._verdict is None:
            raise NotFittedError(
                "verdict must be read after a batch, but the module was not called; run it first"
            )
        return self._verdict

    def remove(self) -> None:
        """Leave the module as it was; the last verdict stays."""
        self._watch(())
        for hook in self._hooks:
            hook.remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.remove()

    def _watch(self, layers: Iterable[nn.Module]) -> None:
        """Watch these layers, and no others."""
        for hook in self._watching:
            hook.remove()
        self._watching = [
            layer.register_forward_hook(self._record, with_kwargs=True) for layer in layers
        ]

    def _begin(self, module: nn.Module, args: Any) -> None:
        self._calls.clear()

    def _record(self, layer: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        given = next(iter((*args, *kwargs.values())), None)
        if isinstance(given, torch.Tensor) and isinstance(output, torch.Tensor):
            self._calls.append(_Call(layer, given, output))

    def _judge(self, module: nn.Module, args: Any, output: Any) -> None:
        calls = list(self._calls)
        self._calls.clear()
        if self._ends is None:
            self._ends = self._found(calls, output)
            self._watch(set(self._ends))
        first, last = self._ends
        read = [call.given for call in calls if call.layer is first]
        made = [call.made for call in calls if call.layer is last]
        if not (read and made):
            raise InputError("module must run its head on every batch, got a batch without it; "
                             "name the head that always runs: wrap(module, head=...)")  # fmt: skip
        self._verdict = self._monitor(Features(_rows(read[0]), _rows(made[-1])))
        if self._on_reject is not None and not self._verdict.accept.all():
            self._on_reject(self._verdict)

    def _found(self, calls: list[_Call], output: Any) -> tuple[nn.Module, nn.Module]:
        """Return the layer that reads the embedding and the one that makes the logits."""
        n_classes = len(self._monitor.classes)
        logits = pick_logits(output, n_classes)
        if logits.shape[1] != n_classes:
            raise ShapeError(
                f"module must give {n_classes} logits, as the monitor's network does, got "
                f"{logits.shape[1]}; wrap the network that the monitor was fitted for"
            )
        last = _making(calls, logits)
        if self._head is None:
            return last, last
        inside = set(_layers(self._head))
        first = next((call.layer for call in calls if call.layer in inside), None)
        if first is None:
            raise InputError("head must run when the module is called, got one that did not; name "
                             "the module at which the monitor's network was split")  # fmt: skip
        return first, last


def wrap(
    monitor: RuntimeMonitor,
    module: nn.Module,
    head: str | None = None,
    on_reject: OnReject | None = None,
) -> Guard:
    """Watch a module: after `logits = module(x)`, `guard.verdict` judges that batch.

    Nothing is computed twice, and the module's output stays what it is to the last bit. The
    verdict is made on the CPU, in evaluation and in training mode alike.

    Args:
        monitor: Fitted on this network.
        module: Takes a batch of prepared pictures; gives logits, a tuple with them, an object
            with `.logits`, or their softmax.
        head: Name of the module at which the head begins, as `split_at` was for the monitor; by
            default the last linear layer, found on the first batch.
        on_reject: Called with the verdict of every batch in which a prediction is rejected.

    Returns:
        The guard; also a context manager that removes itself.

    Raises:
        InputError: There is no such head, or the monitor is one of full mode, which reads more
            than a forward pass computes. Calls of the module raise it for a network without a
            linear layer that makes its logits, and for numbers that are not finite.
        ShapeError: From a call of the module: other classes or embeddings than the monitor's.

    Example:
        >>> import numpy as np
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval()
        >>> x = torch.randn(200, 1, 2, 2, generator=torch.Generator().manual_seed(0))
        >>> features = Features(x.flatten(1).numpy(), net(x).detach().numpy())
        >>> monitor = RuntimeMonitor.fit_features(features, features.predictions)
        >>> with torch.no_grad(), wrap(monitor, net) as guard:
        ...     _ = net(x[:3])
        >>> guard.verdict.accept.shape
        (3,)
    """
    if monitor.layers:
        raise InputError(
            "monitor must be a light one to watch a module, got one fitted in full mode, which "
            "also runs changed pictures; fit it without full, or use faultlens.monitoring.of_images"
        )
    found: nn.Module | None = None
    if head is not None:
        names = [name for name, _ in module.named_modules() if name]
        if head not in names:
            raise InputError(
                f"head must be the name of a module, got '{head}'; {nearest(head, names)}"
            )
        found = module.get_submodule(head)
    return Guard(monitor, module, found, on_reject)


def _layers(module: nn.Module) -> list[nn.Module]:
    return [m for m in module.modules() if not any(True for _ in m.children())]


def _linear_layers(module: nn.Module) -> list[nn.Module]:
    return [
        layer
        for layer in _layers(module)
        if isinstance(layer, nn.Linear)
        or (isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and layer.groups == 1)
    ]


def _making(calls: list[_Call], logits: torch.Tensor) -> nn.Module:
    """Return the last linear layer whose output is the logits, or becomes them by a softmax."""
    want = logits.reshape(len(logits), -1)
    for call in reversed(calls):
        if not isinstance(call.layer, (nn.Linear, nn.Conv2d)) or call.made.ndim < 2:
            continue
        made = call.made.reshape(len(call.made), -1)
        if made.shape == want.shape and any(
            torch.allclose(form, want, equal_nan=True)
            for form in (made, torch.softmax(made, -1), torch.log_softmax(made, -1))
        ):
            return call.layer
    raise InputError(
        "module must end in a linear layer whose output is its logits, got another end; wrap the "
        "inner module that ends so"
    )


def _rows(tensor: torch.Tensor) -> Any:
    return to_numpy(tensor.reshape(len(tensor), -1))
