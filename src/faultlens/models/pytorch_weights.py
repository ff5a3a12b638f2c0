"""Modules made by a user's factory, and the weights that go into them."""

import importlib
import os
import pickle
import sys
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from faultlens.errors import InputError, nearest


def make_module(target: str) -> nn.Module:
    """Import `MODULE.PATH:FACTORY`, also from the current folder, and call the factory.

    Args:
        target: Module path and name of a function or class that returns an `nn.Module` when
            called without arguments; an `nn.Module` itself will do as well.

    Raises:
        InputError: The module or the name does not exist, or the call fails.

    Example:
        >>> make_module("torch.nn:Identity")
        Identity()
        >>> make_module("torch.nn:Identty")
        Traceback (most recent call last):
        faultlens.errors.InputError: factory must be a name in torch.nn, got 'Identty'; did you \
mean 'Identity'?
    """
    path, colon, name = target.partition(":")
    if not (path and colon and name):
        raise InputError(
            f"model must be written torch:MODULE.PATH:FACTORY, got 'torch:{target}'; for example "
            "torch:nets.resnet:make_model for the function make_model in nets/resnet.py"
        )
    with _current_folder():
        module = _import(path)
        if not hasattr(module, name):
            hint = nearest(name, [n for n in vars(module) if not n.startswith("_")])
            raise InputError(f"factory must be a name in {path}, got '{name}'; {hint}")
        factory = getattr(module, name)
        if not isinstance(factory, nn.Module):
            factory = _call(factory, target)
    if not isinstance(factory, nn.Module):
        raise InputError(
            f"factory '{target}' must return an nn.Module, got {type(factory).__name__}"
        )
    return factory


def load_weights(
    module: nn.Module, path: str | os.PathLike[str], *, allow_pickle: bool = False
) -> None:
    """Put the weights of a file into a module; every name must match.

    Args:
        module: Changed in place.
        path: A `.safetensors` file; or, with `allow_pickle`, what `torch.save` wrote.
        allow_pickle: The user trusts the file to run code.

    Raises:
        InputError: The file is missing or refused, or its names or shapes do not match.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "net.safetensors"
        >>> safetensors.torch.save_file({"weight": torch.eye(2), "bias": torch.ones(2)}, file)
        >>> net = nn.Linear(2, 2)
        >>> load_weights(net, file)
        >>> net.bias.tolist()
        [1.0, 1.0]
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"weights must be an existing file, got '{path}'; check the path")
    state = _safetensors(path) if path.suffix == ".safetensors" else _pickled(path, allow_pickle)
    try:
        missing, unexpected = module.load_state_dict(dict(state), strict=False)
    except RuntimeError as error:
        reason = " ".join(line.strip() for line in str(error).splitlines()[1:3])
        raise InputError(
            f"weights must fit the module, got '{path}' with other shapes ({reason}); check that "
            "the factory makes the network that was trained"
        ) from error
    missing = _without_tied(module, missing, state)
    if missing or unexpected:
        raise InputError(
            f"weights must hold exactly the module's tensors, got '{path}' with "
            f"{_some('missing', missing)} and {_some('unexpected', unexpected)}; check that the "
            "factory makes the network that was trained, and rename the tensors if needed"
        )


def need_weights(weights: str | os.PathLike[str] | None, name: str) -> str | os.PathLike[str]:
    """Return the weights of a model that would be random without them.

    Args:
        weights: What the user gave.
        name: The model's, for the message.

    Raises:
        InputError: There are none.

    Example:
        >>> need_weights("net.safetensors", "timm:resnet18")
        'net.safetensors'
    """
    if weights is None:
        raise InputError(
            f"weights must be given for {name}, whose weights would be random, got none; give the "
            "file of the trained ones with --weights"
        )
    return weights


@contextmanager
def _current_folder() -> Iterator[None]:
    folder = os.getcwd()
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(folder)


def _import(path: str) -> Any:
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        missing = error.name or path
        if path != missing and not path.startswith(f"{missing}."):
            raise InputError(
                f"module {path} must be importable, but it needs '{missing}', which is not "
                "installed; install it"
            ) from error
        here = [p.stem for p in Path.cwd().iterdir() if p.suffix == ".py" or p.is_dir()]
        raise InputError(
            f"model must name an importable module, got '{path}'; {nearest(path, here)}; it is "
            f"looked for among installed packages and in {Path.cwd()}"
        ) from error
    except Exception as error:  # The user's own code may fail in any way.
        raise InputError(
            f"module {path} must be importable, but importing it failed: "
            f"{type(error).__name__}: {error}"
        ) from error


def _call(factory: Any, target: str) -> Any:
    try:
        return factory()
    except Exception as error:  # The user's own code may fail in any way.
        raise InputError(
            f"factory '{target}' must work without arguments, but it failed: "
            f"{type(error).__name__}: {error}; wrap it in a function that needs none"
        ) from error


def _safetensors(path: Path) -> Mapping[str, torch.Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except SafetensorError as error:
        raise InputError(
            f"weights must be a valid safetensors file, got '{path}' ({error}); save it again "
            "with safetensors.torch.save_model"
        ) from error


def _pickled(path: Path, allow_pickle: bool) -> Mapping[str, torch.Tensor]:
    if not allow_pickle:
        raise InputError(
            f"weights must be a .safetensors file, got '{path}'; files of torch.save are pickles, "
            "which can run any code when opened. Convert it once:\n"
            "  import torch; from safetensors.torch import save_file\n"
            f"  save_file(torch.load('{path}', weights_only=True), "
            f"'{path.with_suffix('.safetensors')}')\n"
            "or pass allow_pickle=True if you trust where it comes from"
        )
    if zipfile.is_zipfile(path) and any(
        name.endswith("/constants.pkl") for name in zipfile.ZipFile(path).namelist()
    ):
        raise InputError(f"weights must be a state dict, got a TorchScript program in '{path}'")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        content = _unpickle(path)
    except (RuntimeError, EOFError, KeyError, ValueError) as error:
        raise InputError(f"weights must be a file of torch.save, got '{path}' ({error})") from error
    if isinstance(content, nn.Module):
        content = content.state_dict()
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(
        isinstance(v, torch.Tensor) for v in content.values()
    ):
        raise InputError(
            f"weights must hold a state dict, got {type(content).__name__} in '{path}'; save "
            "module.state_dict() alone"
        )
    return content


def _unpickle(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:  # A pickle can fail in any way.
        raise InputError(f"weights must be a file of torch.save, got '{path}' ({error})") from error


def _without_tied(module: nn.Module, missing: list[str], state: Mapping[str, Any]) -> list[str]:
    """Drop names that share their tensor with one that was loaded."""
    tensors = module.state_dict(keep_vars=True)
    loaded = {id(tensors[name]) for name in state if name in tensors}
    return [name for name in missing if id(tensors[name]) not in loaded]


def _some(kind: str, names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:3])
    return f"{len(names)} {kind}" + (
        f" ({shown}{', …' if len(names) > 3 else ''})" if names else ""
    )
