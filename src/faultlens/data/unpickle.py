"""Pickles of plain data, read without running anything.

A pickle can name any function and have it called. Here only the few names that arrays of numbers
are pickled with are known, and even they stand for parts of this file: nothing of numpy, and
nothing else, is called by what a file says.
"""

import io
import pickle
import re
from typing import Any

import numpy as np

from faultlens.arrays import Array
from faultlens.errors import InputError


def load_plain(data: bytes, name: str, *, encoding: str = "ASCII") -> Any:
    """Return what a pickle holds, if that is numbers, text, plain containers and arrays of numbers.

    Args:
        data: All bytes of the file.
        name: What to call it in a message.
        encoding: Of the text of Python 2; `bytes` leaves it as bytes.

    Raises:
        InputError: The pickle is damaged, or names anything else, which is not called.

    Example:
        >>> load_plain(pickle.dumps({"a": np.arange(3)}), "a.pkl")
        {'a': array([0, 1, 2])}
        >>> load_plain(b"cos\\nsystem\\n(S'ls'\\ntR.", "a.pkl")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        faultlens.errors.InputError: a.pkl must hold arrays and plain containers, got 'os.system'...
    """
    try:
        return _finished(_PlainUnpickler(io.BytesIO(data), encoding=encoding).load())
    except InputError as error:
        raise InputError(
            f"{name} must hold arrays and plain containers, got {error}; nothing of it was run: "
            "do not open it by other means unless you trust where it comes from"
        ) from None
    except Exception as error:  # a damaged pickle fails in any way
        raise InputError(
            f"{name} must be a pickle of arrays and plain containers, got a damaged one "
            f"({type(error).__name__}: {error}); restore the file"
        ) from error


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy._core", "numpy.core").replace("__builtin__", "builtins")
        if (module, name) not in _KNOWN:
            raise InputError(f"'{module}.{name}'")
        return _KNOWN[module, name]


class _Type:
    """An array's type, as its pickle spells it."""

    def __init__(self, kind: str | bytes, *_: Any) -> None:
        self.kind = _text(kind)
        self.order = "|"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = _text(state[1])

    def made(self) -> np.dtype[Any]:
        if not re.fullmatch("[biufSU][0-9]{1,6}", self.kind) or self.order not in "<>|=":
            raise InputError(f"an array of type '{self.kind}'")
        return np.dtype(self.order + self.kind)


class _Array:
    """An array whose numbers are still to come."""

    def __init__(self) -> None:
        self.array = np.zeros(0)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, is_fortran, data = state
        self.array = _filled(data, dtype, shape, "F" if is_fortran else "C")


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _from_buffer(data: Any, dtype: _Type, shape: Any, order: str) -> _Array:
    made = _Array()
    made.array = _filled(data, dtype, shape, order)
    return made


def _scalar(dtype: _Type, data: Any) -> Any:
    return _filled(data, dtype, (1,), "C")[0]


def _filled(data: Any, dtype: Any, shape: Any, order: str) -> Array:
    if not isinstance(dtype, _Type) or not isinstance(data, (bytes, bytearray)):
        raise InputError("an array of objects")
    values = np.frombuffer(bytes(data), dtype.made())
    return values.reshape(tuple(shape), order="F" if order == "F" else "C")


def _latin(text: str, encoding: str = "latin1") -> bytes:
    """Stand for the call by which older pickles spell bytes."""
    if encoding not in ("latin1", "latin-1"):
        raise InputError(f"text in '{encoding}'")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """Stand for the call by which older pickles spell no bytes at all."""
    return b""


def _text(value: str | bytes) -> str:
    return value.decode("ascii") if isinstance(value, bytes) else str(value)


def _finished(value: Any) -> Any:
    """Put arrays where the parts of this file stand for them."""
    if isinstance(value, _Array):
        return value.array
    if isinstance(value, dict):
        return {k: _finished(v) for k, v in value.items()}
    if type(value) in (list, tuple, set, frozenset):
        return type(value)(_finished(v) for v in value)
    if isinstance(value, _Type) or callable(value):
        raise InputError(f"'{value}', which is neither")
    return value


_KNOWN: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("_codecs", "encode"): _latin,
    ("builtins", "bytes"): _no_bytes,
    ("builtins", "set"): set,
    ("builtins", "frozenset"): frozenset,
}
"""All that a file may name, and what stands for it."""
