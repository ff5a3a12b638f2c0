"""What is inside a file of `torch.export.save`, looked at before torch opens it.

Torch falls back to full unpickling without asking, and evaluates the operator names and size
expressions it finds, so a prepared file can run code. This screen refuses such files. It does
not make a stranger's program safe: load only programs you trust.
"""

import io
import json
import pickle
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from faultlens.errors import InputError

_MARKS = {
    "archive_format": None,
    "serialized_exported_program.json": None,
    "constants.pkl": "a TorchScript program",
    "data.pkl": "weights or a pickled module",
}
_NATIVE = ("data/aotinductor/", "data/constants/custom_obj", "data/constants/opaque_obj")
_OPERATOR = re.compile(
    r"torch\.ops\.(aten|prims|higher_order|quantized_decomposed|torchvision)(\.\w+)+"
    r"|torch\._?sym_\w+|math\.\w+|_operator\.(?!call\b|methodcaller\b|attrgetter\b)\w+"
)
# Numbers, plain names and calls; quotes only around a name; no attribute access, no dunder.
_EXPRESSION = re.compile(r"(?!.*__)(?:[\w\s()+\-*/%,<>=!&|~]|'\w+'|(?<=\d)\.(?=\d))*")


def check_archive(path: Path, *, allow_pickle: bool) -> None:
    """Refuse a file that is not an exported program, or that could run code when opened.

    Args:
        path: The file.
        allow_pickle: The user trusts the file: check only that it is an exported program.

    Raises:
        InputError: With what the file is instead, or what in it could run code.
    """
    if not path.is_file():
        raise InputError(f"model must be an existing file, got '{path}'; check the path")
    try:
        with zipfile.ZipFile(path) as archive:
            _check_kind(archive, path)
            problem = None if allow_pickle else next(_problems(archive), None)
    except zipfile.BadZipFile as error:
        raise InputError(
            _wrong_kind(path, "a file that is no archive, or a damaged one")
        ) from error
    if problem is not None:
        raise InputError(
            f"model must be a program of plain tensors, got {problem} in '{path}', which can run "
            "code when opened; export it again, or pass allow_pickle=True if you trust its source"
        )


def _check_kind(archive: zipfile.ZipFile, path: Path) -> None:
    names = {_inner(name) for name in archive.namelist()} | set(archive.namelist())
    for mark, kind in _MARKS.items():
        if mark in names:
            if kind is not None:
                raise InputError(_wrong_kind(path, kind))
            return
    raise InputError(_wrong_kind(path, "another archive"))


def _wrong_kind(path: Path, kind: str) -> str:
    return (
        f"model must be a program saved by torch.export.save, got {kind} in '{path}'; export it "
        "with torch.export, or load the module with torch:MODULE:FACTORY and its weights file"
    )


def _problems(archive: zipfile.ZipFile) -> Iterator[str]:
    """Yield what torch would unpickle, execute or evaluate beyond plain tensors."""
    pickled = set()
    for name in archive.namelist():
        inner = _inner(name)
        if inner.startswith(_NATIVE):
            yield f"compiled code or custom objects ('{inner}')"
        elif inner.endswith(".pt"):
            pickled.add(name)
        elif inner.endswith("_config.json"):
            entries = json.loads(archive.read(name)).get("config", {}).values()
            folder = name.rpartition("/")[0]
            pickled |= {f"{folder}/{e['path_name']}" for e in entries if e.get("use_pickle")}
        elif inner.endswith(".json"):
            yield from _expressions(json.loads(archive.read(name)))
    for name in sorted(pickled):
        if not _is_plain(archive.read(name)):
            yield f"a pickle of more than tensors ('{_inner(name)}')"


def _expressions(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, allowed in (("target", _OPERATOR), ("expr_str", _EXPRESSION)):
            text = value.get(key)
            if isinstance(text, str) and not allowed.fullmatch(text):
                yield f"the {'operator' if key == 'target' else 'expression'} {text[:80]!r}"
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _expressions(item)


def _is_plain(data: bytes) -> bool:
    if not data:
        return True
    if not zipfile.is_zipfile(io.BytesIO(data)):
        return False
    try:
        torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    except (pickle.UnpicklingError, RuntimeError):
        return False
    return True


def _inner(name: str) -> str:
    """Return the name below the archive's root folder."""
    return name.partition("/")[2]
