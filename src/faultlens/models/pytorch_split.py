"""Where a live torch module is cut, found by watching one forward pass."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from faultlens.arrays import FloatArray
from faultlens.errors import InputError
from faultlens.models.adapter import CannotRunError
from faultlens.models.chain import SOFTMAX_NOTE, Cut, Step, affine, cut

_SKIP = (nn.Identity, nn.Flatten, nn.Dropout)


@dataclass(frozen=True, slots=True, eq=False)
class ModuleSplit:
    """A module cut in two.

    Attributes:
        cut: The head, and the names of its first and its last layer.
        layers: Names of the layers from the first to the last.
    """

    cut: Cut
    layers: frozenset[str]


@dataclass(frozen=True, slots=True, eq=False)
class _Call:
    """One layer's part in a forward pass."""

    name: str
    layer: nn.Module
    output: torch.Tensor


def find_split(
    module: nn.Module, batch: FloatArray, *, split_at: str | None, n_classes: int
) -> ModuleSplit:
    """Watch one forward pass and find the head.

    The head ends in the last linear layer whose output is the model's (or becomes it by a
    softmax). It begins at `split_at` or, without it, at that same layer.

    Args:
        module: Any classifier; it is run in evaluation mode and left as it was.
        batch: A few prepared pictures.
        split_at: Name of the first module of the head; a container stands for its first layer.
        n_classes: K, which tells several outputs apart.

    Raises:
        InputError: There is no such layer, or something else than linear layers with ReLU
            between them runs after `split_at`.

    Example:
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 2))
        >>> x = np.ones((3, 3, 2, 2), np.float32)
        >>> find_split(net, x, split_at=None, n_classes=2).cut.embedding
        '3'
        >>> len(find_split(net, x, split_at="1", n_classes=2).cut.head.weights)
        2
    """
    calls, output = _watch(module, batch)
    end, notes = _end(calls, pick_logits(output, n_classes))
    calls = calls[: end + 1]
    names = {name for name, _ in module.named_modules() if name}
    found = cut(
        {"logits": list(_steps(calls))},
        split_at=_first_layer(split_at, names, calls),
        known=names,
        n_classes=n_classes,
    )
    order = [call.name for call in calls]
    begin = end - order[::-1].index(found.embedding)
    return ModuleSplit(Cut(found.embedding, order[-1], found.head, notes), frozenset(order[begin:]))


def run_split(
    module: nn.Module, split: ModuleSplit, batch: FloatArray, stages: Sequence[str] = ()
) -> list[torch.Tensor]:
    """Return what the head reads and what it writes, for one batch, and what stages give."""
    seen: dict[str, torch.Tensor] = {}

    def reads(_: nn.Module, args: Any, kwargs: Any) -> None:
        seen["embedding"] = (*args, *kwargs.values())[0]

    def writes(_: nn.Module, __: Any, output: torch.Tensor) -> None:
        seen["logits"] = output

    def gives(name: str) -> Callable[[nn.Module, Any, Any], None]:
        return lambda _, __, output: seen.update({f"stage:{name}": first_tensor(output, name)})

    first, last = map(module.get_submodule, (split.cut.embedding, split.cut.logits))
    with ExitStack() as hooks:
        hooks.callback(first.register_forward_pre_hook(reads, with_kwargs=True).remove)
        hooks.callback(last.register_forward_hook(writes).remove)
        for name in stages:
            stage = module.get_submodule(name)
            hooks.callback(stage.register_forward_hook(gives(name)).remove)
        with evaluating(module):
            module(to_tensor(batch).to(*placement(module)))
    for name in stages:
        if f"stage:{name}" not in seen:
            raise InputError(f"stages must run in the encoder, got '{name}', which does not")
    return [seen[name] for name in ("embedding", "logits", *(f"stage:{s}" for s in stages))]


def first_tensor(output: Any, name: str) -> torch.Tensor:
    """Return what a module gave, or the first of several things; InputError for no tensor."""
    while isinstance(output, (tuple, list)) and output:
        output = output[0]
    output = getattr(output, "last_hidden_state", output)
    if not isinstance(output, torch.Tensor):
        raise InputError(
            f"stages must give tensors, got {type(output).__name__} at '{name}'; choose another"
        )
    return output


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Switch to evaluation without gradients, and give every submodule its own mode back."""
    modes = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for m, training in modes:
            m.training = training


def pick_logits(output: Any, n_classes: int) -> torch.Tensor:
    """Return the logits from what a model gave: a tensor, a tuple, or an object with `.logits`."""
    logits = output.get("logits") if isinstance(output, Mapping) else output
    logits = getattr(logits, "logits", logits)
    if isinstance(logits, torch.Tensor) and logits.ndim > 1:
        return logits
    tensors = list(output) if isinstance(output, (tuple, list)) else []
    fitting = [t for t in tensors if isinstance(t, torch.Tensor) and t.shape[1:] == (n_classes,)]
    if len(fitting) != 1:
        raise InputError(
            f"model must give one tensor of logits, with {n_classes} columns, got "
            f"{type(output).__name__} with {len(fitting)} such tensors; wrap it in a module that "
            "returns the logits alone"
        )
    return fitting[0]


@contextmanager
def cannot_run(name: str, shape: tuple[int, ...]) -> Iterator[None]:
    """Turn whatever a network raises on a batch into a CannotRunError."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        raise CannotRunError(
            f"batch must be one that {name} can take, got shape {shape} "
            f"({type(error).__name__}: {reason}); check layout, resize and crop of the "
            "preprocessing"
        ) from error


def placement(module: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Return where a module's weights are, and their floating-point type."""
    for parameter in module.parameters():
        if parameter.is_floating_point():
            return parameter.device, parameter.dtype
    return torch.device("cpu"), torch.float32


def to_tensor(batch: FloatArray) -> torch.Tensor:
    """Return a batch as a tensor that torch may write to."""
    return torch.from_numpy(np.array(batch, dtype=np.float32))


def to_numpy(tensor: torch.Tensor) -> FloatArray:
    """Return a tensor's values as a float32 array."""
    array: FloatArray = tensor.detach().to("cpu", torch.float32).numpy()
    return array


def _watch(module: nn.Module, batch: FloatArray) -> tuple[list[_Call], Any]:
    """Return the calls of all layers, in order, and the model's output."""
    calls: list[_Call] = []

    def recorder(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def record(layer: nn.Module, _: Any, output: Any) -> None:
            if isinstance(output, torch.Tensor):
                calls.append(_Call(name, layer, output))

        return record

    with ExitStack() as hooks:
        for name, layer in module.named_modules():
            if not any(True for _ in layer.children()):
                hooks.callback(layer.register_forward_hook(recorder(name)).remove)
        with evaluating(module):
            output = module(to_tensor(batch).to(*placement(module)))
    return calls, output


def _end(calls: list[_Call], logits: torch.Tensor) -> tuple[int, tuple[str, ...]]:
    """Return the index of the last linear call that makes the logits, and notes on it."""
    want = logits.reshape(len(logits), -1)
    linear = [i for i, call in enumerate(calls) if _affine(call) is not None]
    for i in reversed(linear):
        made = calls[i].output.reshape(len(calls[i].output), -1)
        if made.shape == want.shape:
            if torch.allclose(made, want):
                return i, ()
            if any(torch.allclose(f(made, -1), want) for f in (torch.softmax, torch.log_softmax)):
                return i, (SOFTMAX_NOTE,)
    raise InputError(
        "model must end in a linear layer whose output is its logits, got another end after the "
        f"linear layers {[calls[i].name for i in linear[-5:]]}; wrap the model in a module that "
        "returns the output of its last nn.Linear"
    )


def _steps(calls: list[_Call]) -> Iterator[Step]:
    for call in reversed(calls):
        step = _affine(call)
        if step is None and isinstance(call.layer, _SKIP):
            step = Step("skip", call.name)
        elif step is None and isinstance(call.layer, nn.ReLU):
            step = Step("relu", call.name)
        if step is None:
            return
        yield step


def _affine(call: _Call) -> Step | None:
    layer = call.layer
    if isinstance(layer, nn.Conv2d):
        if layer.kernel_size != (1, 1) or layer.groups != 1:
            return None
    elif not isinstance(layer, nn.Linear):
        return None
    bias = None if layer.bias is None else to_numpy(layer.bias)
    return affine(call.name, to_numpy(layer.weight.flatten(1)), bias)


def _first_layer(split_at: str | None, names: set[str], calls: list[_Call]) -> str | None:
    """Return the layer that runs first inside the named module."""
    if split_at is None or split_at not in names:
        return split_at
    for call in calls:
        if call.name == split_at or call.name.startswith(f"{split_at}."):
            return call.name
    raise InputError(
        f"split_at must name a module that runs before the logits, got '{split_at}', which "
        f"does not; the last layers are {[call.name for call in calls[-5:]]}"
    )
