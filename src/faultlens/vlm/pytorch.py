"""Towers in PyTorch: on which device, in which precision, in batches that fit into memory."""

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from faultlens.arrays import Array, FloatArray, tensor_hashes
from faultlens.errors import InputError, MissingDependencyError
from faultlens.vlm.options import TorchOptions

try:
    import torch
except ImportError as error:
    raise MissingDependencyError("torch", "torch") from error


def find_device(name: str) -> torch.device:
    """Return the device of that name after trying it.

    Args:
        name: `auto` takes a CUDA device if there is one, else the CPU.

    Raises:
        InputError: PyTorch does not know the device, or cannot use it here.

    Example:
        >>> find_device("cpu")
        device(type='cpu')
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"device must be one that PyTorch can use here, got '{name}' ({reason}); "
            "use device=cpu, or leave it out"
        ) from error
    return device


class TorchRunner:
    """Runs one tower over arrays, in batches as large as fit into memory.

    A batch that does not fit is halved, and so are all later ones.

    Args:
        options: Device and precision.
        limit: Rows of the largest batch tried; None tries all rows at once.

    Attributes:
        device: Where the weights must be.
        dtype: Their precision; arrays of floats are cast to it.
        limit: Rows of the largest batch from now on.

    Raises:
        InputError: The device cannot be used.

    Example:
        >>> run = TorchRunner(TorchOptions(device="cpu"))
        >>> run(lambda x: 2 * x, {"x": np.ones((3, 1), np.float32)}).ravel().tolist()
        [2.0, 2.0, 2.0]
    """

    def __init__(self, options: TorchOptions, limit: int | None = None) -> None:
        self.device = find_device(options.device)
        self.dtype: torch.dtype = getattr(torch, options.dtype)
        self.limit = limit

    def __call__(
        self, tower: Callable[..., torch.Tensor], arrays: Mapping[str, Array]
    ) -> FloatArray:
        """Return the tower's rows for the rows of the arrays, float32.

        Args:
            tower: Called with tensors by the arrays' names; returns one row a row.
            arrays: All of one length.

        Raises:
            InputError: One row alone does not fit into memory, or half precision overflows.
        """
        n = len(next(iter(arrays.values())))
        parts: list[FloatArray] = []
        done = 0
        while done < n:
            size = n - done if self.limit is None else min(self.limit, n - done)
            part = self._try(tower, {k: a[done : done + size] for k, a in arrays.items()})
            if part is None:
                self.limit = size // 2
                continue
            parts.append(part)
            done += size
        out = np.concatenate(parts)
        if self.dtype != torch.float32 and not np.isfinite(out).all():
            raise InputError(
                f"embeddings must be finite, got NaN or infinity in {self.dtype}; use "
                "dtype=float32 or dtype=bfloat16"
            )
        return out

    def _try(
        self, tower: Callable[..., torch.Tensor], arrays: Mapping[str, Array]
    ) -> FloatArray | None:
        """Return the rows, or None where memory did not suffice."""
        try:
            with torch.inference_mode():
                found = tower(**{k: self._tensor(a) for k, a in arrays.items()})
                return np.asarray(found.float().cpu().numpy())
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            if len(next(iter(arrays.values()))) == 1:
                raise InputError(
                    f"device must have memory for one picture or text, got too little on "
                    f"'{self.device}'; use device=cpu, or dtype=float16"
                ) from error
        torch.cuda.empty_cache()
        return None

    def _tensor(self, array: Array) -> torch.Tensor:
        tensor = torch.tensor(array, device=self.device)
        return tensor.to(self.dtype) if tensor.is_floating_point() else tensor


def weight_hashes(weights: Iterable[torch.Tensor]) -> frozenset[str]:
    """Return the SHA-256 of each weight, as `VlmBackend.tensor_hashes` has them.

    Example:
        >>> len(weight_hashes([torch.ones(64), torch.ones(8, 8), torch.ones(2)]))
        1
    """
    return tensor_hashes(w.detach().float().cpu().numpy() for w in weights)


def _is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)
