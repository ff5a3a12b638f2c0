"""The start of a training: its weights before the first step, for replays [torch]."""

from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from faultlens.errors import InputError, StoreError
from faultlens.files import write_atomic

FILE = "start.safetensors"


def copy_start(model: nn.Module) -> dict[str, Tensor]:
    """Return copies of a model's parameters and buffers on the CPU, by their names.

    Raises:
        InputError: A lazy layer has no weights yet, or the state holds more than tensors.

    Example:
        >>> sorted(copy_start(nn.Linear(2, 1)))
        ['bias', 'weight']
    """
    state = model.state_dict()
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise InputError(
                f"model must have a state of tensors to keep its start, got "
                f"{type(value).__name__} in '{name}'; keep a copy of your own"
            )
        if is_lazy(value):
            raise InputError(
                f"model must have weights to keep its start, got none yet in '{name}'; run a batch "
                "through its lazy layers first"
            )
    return {name: value.detach().cpu().clone() for name, value in state.items()}


def keep(model: nn.Module, folder: str | Path | None) -> dict[str, Tensor]:
    """Return `copy_start`; with a folder, also write it there as `start.safetensors`."""
    start = copy_start(model)
    if folder is not None:
        write_atomic(Path(folder) / FILE, safetensors.torch.save(start))
    return start


def load_start(folder: str | Path) -> dict[str, Tensor]:
    """Read the start that lies beside a trace.

    Args:
        folder: Of the trace.

    Returns:
        Name -> tensor; `verify_repair` takes it as `state`.

    Raises:
        StoreError: There is none, or it is damaged.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> _ = keep(nn.Linear(2, 1), folder)
        >>> load_start(folder)["weight"].shape
        torch.Size([1, 2])
    """
    path = Path(folder) / FILE
    try:
        return dict(safetensors.torch.load_file(path))
    except (OSError, SafetensorError) as error:
        raise StoreError(
            f"{path} must be the start of a training, got {error}; watch it with keep_start()"
        ) from error
