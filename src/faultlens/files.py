"""Files that are complete or absent, and say so when they are damaged.

Arrays are kept in the safetensors format. The writer here gives the same bytes for the same
content (the library orders metadata at random, so that hashes of equal files differ), and the
reader maps a file without copying it.
"""

import hashlib
import json
import math
import mmap
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from faultlens.arrays import Array
from faultlens.errors import InputError, StoreError
from faultlens.remote import RemotePath, place

_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1", "BOOL": "|b1",
}  # fmt: skip
_NAMES = {np.dtype(v): k for k, v in _DTYPES.items()}
_REBUILD = "delete it and run the same command again to rebuild it"


def write_atomic(path: str | Path | RemotePath, data: bytes) -> None:
    """Write a file so that its name never stands for a part of it, whenever the machine stops.

    The bytes go to a temporary file in the same folder, reach the disk, and only then take the
    final name. A failure leaves an earlier file of that name as it was.

    Args:
        path: The final name, or a URL that fsspec knows; its folder is made when absent.
        data: The whole content.

    Raises:
        StoreError: The folder cannot be written to, or the disk is full.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_atomic(f"{folder}/note.txt", b"whole")
        ...     Path(folder, "note.txt").read_text(), len(os.listdir(folder))
        ('whole', 1)
    """
    target = place(path)
    try:
        if isinstance(target, RemotePath):
            target.write_bytes(data)
        else:
            _write_file(target, data)
    except OSError as error:
        raise StoreError(
            f"{target} must be writable, got {error.strerror or error}; "
            "free some space or choose another folder"
        ) from error


def _write_file(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make a rename in `folder` outlive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_bytes(path: str | Path) -> bytes:
    """Return a user's file, whole.

    Raises:
        InputError: It cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(
            f"'{path}' must be a readable file, got {error.strerror}; restore it"
        ) from error


def sha256_file(path: str | Path) -> str:
    """Return the SHA-256 of a file's content, 64 hexadecimal digits.

    Raises:
        StoreError: The file is absent or unreadable.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_atomic(f"{folder}/empty", b"")
        ...     sha256_file(f"{folder}/empty")[:8]
        'e3b0c442'
    """
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from error


def save_arrays(
    path: str | Path | RemotePath,
    arrays: Mapping[str, Array],
    metadata: Mapping[str, str] | None = None,
) -> str:
    """Write named arrays as one safetensors file, atomically.

    Args:
        path: The file's name, by custom `*.safetensors`.
        arrays: Any shapes; floats of 16–64 bits, integers or booleans.
        metadata: Texts to keep beside them.

    Returns:
        The SHA-256 of the file; equal content gives equal bytes.

    Raises:
        InputError: A data type that the format cannot hold.
        StoreError: The file cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     digest = save_arrays(f"{folder}/a.safetensors", {"w": np.eye(2)}, {"unit": "m"})
        ...     arrays, metadata = load_arrays(f"{folder}/a.safetensors", sha256=digest)
        >>> arrays["w"].tolist(), metadata
        ([[1.0, 0.0], [0.0, 1.0]], {'unit': 'm'})
    """
    data = _serialize(arrays, metadata or {})
    write_atomic(path, data)
    return hashlib.sha256(data).hexdigest()


def load_arrays(
    path: str | Path | RemotePath, sha256: str | None = None
) -> tuple[dict[str, Array], dict[str, str]]:
    """Read a safetensors file into memory.

    Args:
        path: The file.
        sha256: The hash that the whole file must have; None trusts it.

    Returns:
        The arrays by name (read-only) and the metadata.

    Raises:
        StoreError: The file is absent or damaged; the message names it and says what to do.

    Example:
        >>> load_arrays("absent.safetensors")
        Traceback (most recent call last):
        faultlens.errors.StoreError: absent.safetensors must be a readable file, got No such \
file or directory; run the command that makes it again
    """
    return _parse(_read(path, sha256), path)


def map_arrays(
    path: str | Path | RemotePath, *, is_random: bool = False
) -> tuple[dict[str, Array], dict[str, str]]:
    """Map a safetensors file into memory: nothing is read before it is used, nothing is copied.

    Args:
        path: The file; one behind a URL is read whole.
        is_random: Tell the system that rows far apart will be read, so that it does not read
            ahead (ten times faster on a cold disk).

    Returns:
        The arrays by name (read-only) and the metadata, as `load_arrays` does.

    Raises:
        StoreError: The file is absent or its header is damaged; values are not checked.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = save_arrays(f"{folder}/a.safetensors", {"w": np.arange(3)})
        ...     map_arrays(f"{folder}/a.safetensors")[0]["w"].tolist()
        [0, 1, 2]
    """
    if isinstance(target := place(path), RemotePath):
        return load_arrays(target)
    try:
        with open(target, "rb") as file:
            buffer = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise _unreadable(path, error) from error
    except ValueError as error:  # an empty file cannot be mapped
        raise _damaged(path, "safetensors", error) from error
    if is_random:
        buffer.madvise(mmap.MADV_RANDOM)
    return _parse(buffer, path)


def read_header(path: str | Path | RemotePath) -> tuple[dict[str, Any], dict[str, str]]:
    """Return what a safetensors file says of itself, without reading its arrays.

    Returns:
        Shape and data type of every array by its name, and the metadata.

    Raises:
        StoreError: The file is absent, cut short, or its header is damaged.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = save_arrays(f"{folder}/a.safetensors", {"w": np.eye(2)}, {"unit": "m"})
        ...     read_header(f"{folder}/a.safetensors")
        ({'w': ((2, 2), 'float64')}, {'unit': 'm'})
    """
    target = place(path)
    if not isinstance(target, RemotePath):
        arrays, metadata = map_arrays(target)
        return {name: (array.shape, array.dtype.name) for name, array in arrays.items()}, metadata
    try:
        size = target.size()
        begin = 8 + int.from_bytes(target.read_bytes(0, 8), "little")
        header = json.loads(target.read_bytes(8, min(begin, size)))
        metadata = {str(k): str(v) for k, v in header.pop("__metadata__", {}).items()}
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
        if begin + end != size:
            raise ValueError(f"{size} bytes where its header announces {begin + end}")
        stated = {
            name: (tuple(entry["shape"]), np.dtype(_DTYPES[entry["dtype"]]).name)
            for name, entry in header.items()
        }
    except OSError as error:
        raise _unreadable(path, error) from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _damaged(path, "safetensors", error) from error
    return stated, metadata


def write_json(path: str | Path | RemotePath, value: Any) -> str:
    """Write a value as indented JSON, atomically, and return the file's SHA-256.

    Raises:
        InputError: The value holds something that JSON cannot, such as NaN or an array.
        StoreError: The file cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     digest = write_json(f"{folder}/a.json", {"n": 3})
        ...     read_json(f"{folder}/a.json", sha256=digest)
        {'n': 3}
    """
    try:
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"{place(path).name} must hold JSON values, got: {error}") from error
    data = f"{text}\n".encode()
    write_atomic(path, data)
    return hashlib.sha256(data).hexdigest()


def json_value(value: Any) -> Any:
    """Return `value` as JSON knows it: tuples and arrays as lists, NaN and infinity as null.

    Example:
        >>> json_value({"interval": (0.25, np.float32("nan")), 3: np.arange(2)})
        {'interval': [0.25, None], '3': [0, 1]}
    """
    if isinstance(value, Mapping):
        return {str(k): json_value(v) for k, v in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return json_value(value.tolist())
    if isinstance(value, list | tuple):
        return [json_value(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def read_json(path: str | Path | RemotePath, sha256: str | None = None) -> Any:
    """Return the value of a JSON file, checked against a hash if one is given.

    Raises:
        StoreError: The file is absent or damaged; the message names it and says what to do.

    Example:
        >>> read_json("absent.json")
        Traceback (most recent call last):
        faultlens.errors.StoreError: absent.json must be a readable file, got No such file or \
directory; run the command that makes it again
    """
    data = _read(path, sha256)
    try:
        return json.loads(data)
    except ValueError as error:
        raise _damaged(path, "JSON", error) from error


def _read(path: str | Path | RemotePath, sha256: str | None) -> bytes:
    try:
        data = place(path).read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error
    if sha256 is not None and (actual := hashlib.sha256(data).hexdigest()) != sha256:
        raise StoreError(f"{path} must have SHA-256 {sha256}, got {actual}; {_REBUILD}")
    return data


def _unreadable(path: str | Path | RemotePath, error: OSError) -> StoreError:
    return StoreError(
        f"{path} must be a readable file, got {error.strerror or error}; "
        "run the command that makes it again"
    )


def _damaged(path: str | Path | RemotePath, form: str, error: Exception) -> StoreError:
    return StoreError(f"{path} must be an undamaged {form} file, got: {error}; {_REBUILD}")


def _serialize(arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> bytes:
    """Return the bytes of a safetensors file: header length, JSON header, arrays."""
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    parts: list[Any] = []
    end = 0
    # Wide types first, so that every array begins at a multiple of its item size.
    for name, array in sorted(arrays.items(), key=lambda item: (-item[1].dtype.itemsize, item[0])):
        if array.dtype.newbyteorder("<") not in _NAMES:
            raise InputError(f"array '{name}' must hold numbers, got {array.dtype}; cast it first")
        parts.append(np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C"))
        start, end = end, end + array.nbytes
        kind = _NAMES[parts[-1].dtype]
        header[name] = {"dtype": kind, "shape": array.shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *parts])


def _parse(
    buffer: bytes | mmap.mmap, path: str | Path | RemotePath
) -> tuple[dict[str, Array], dict[str, str]]:
    """Return the arrays of a safetensors file as views of `buffer`, and its metadata."""
    begin = 8 + int.from_bytes(buffer[:8], "little")
    arrays: dict[str, Array] = {}
    end = 0
    try:
        header = json.loads(buffer[8:begin])
        metadata = {str(k): str(v) for k, v in header.pop("__metadata__", {}).items()}
        for name, entry in header.items():
            start, stop = entry["data_offsets"]
            dtype = np.dtype(_DTYPES[entry["dtype"]])
            array = np.ndarray(tuple(entry["shape"]), dtype, buffer, begin + start)
            if array.nbytes != stop - start:
                raise ValueError(f"'{name}' has {stop - start} bytes")
            arrays[name] = array
            end = max(end, stop)
        if begin + end != len(buffer):
            raise ValueError(f"{len(buffer)} bytes where its header announces {begin + end}")
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise _damaged(path, "safetensors", error) from error
    return arrays, metadata
