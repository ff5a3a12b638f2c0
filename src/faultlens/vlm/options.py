"""What follows a backend's name: its target, then settings, as in `clip:FOLDER,device=cuda`."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from faultlens.errors import InputError, nearest


class TorchOptions(BaseModel):
    """Settings of the backends that run in PyTorch.

    Attributes:
        device: `auto` (a CUDA device if there is one, else the CPU) or a name of PyTorch's, such
            as `cuda:1` or `mps`.
        dtype: Of the weights and the arithmetic; the embeddings are float32 always.
        allow_pickle: Also open weights that are no safetensors file.

    Example:
        >>> TorchOptions(device="cuda", dtype="float16").allow_pickle
        False
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    device: str = "auto"
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    allow_pickle: bool = False


def split_target(argument: str) -> tuple[str, dict[str, str]]:
    """Return the target and its settings.

    Args:
        argument: `TARGET,KEY=VALUE,…`; commas before the first setting belong to the target.

    Example:
        >>> split_target("models/a,b,device=cuda,dtype=float16")
        ('models/a,b', {'device': 'cuda', 'dtype': 'float16'})
    """
    parts = argument.split(",")
    settings: dict[str, str] = {}
    while len(parts) > 1 and "=" in parts[-1]:
        key, _, value = parts.pop().partition("=")
        settings = {key.strip(): value.strip()} | settings
    return ",".join(parts), settings


def anchored(spec: str, folder: Path) -> str:
    """Return a SPEC whose target, if it is a file or folder, counts from `folder`.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> (folder / "vit").mkdir()
        >>> found = anchored("clip:vit,device=cpu", folder)
        >>> found == f"clip:{folder / 'vit'},device=cpu"
        True
        >>> anchored("clip:some/model", folder), anchored("offline", folder)
        ('clip:some/model', 'offline')
    """
    kind, _, argument = spec.partition(":")
    target = split_target(argument)[0]
    architecture, at, file = target.rpartition("@")
    for before, path in (("", target), (architecture + at, file)):
        if path and (folder / path).exists():
            return f"{kind}:{before}{folder / path}{argument[len(target) :]}"
    return spec


def parse_options(backend: str, argument: str, target: str) -> tuple[str, TorchOptions]:
    """Read what follows the name of a backend that runs in PyTorch.

    Args:
        backend: The name, for messages.
        argument: `TARGET,KEY=VALUE,…`.
        target: What the target is, for the message where it is missing.

    Raises:
        InputError: There is no target, a setting is unknown or has a wrong value.

    Example:
        >>> parse_options("clip", "folder,device=cpu", "FOLDER")[1].device
        'cpu'
        >>> parse_options("clip", "folder,devise=cpu", "FOLDER")
        Traceback (most recent call last):
        faultlens.errors.InputError: vlm must have known settings, got 'devise'; did you mean \
'device'?
    """
    found, settings = split_target(argument)
    if not found:
        raise InputError(f"vlm must be '{backend}:{target}', got '{backend}:{argument}'")
    for key in settings:
        if key not in TorchOptions.model_fields:
            hint = nearest(key, TorchOptions.model_fields)
            raise InputError(f"vlm must have known settings, got '{key}'; {hint}")
    try:
        return found, TorchOptions.model_validate(settings)
    except ValidationError as error:
        wrong = error.errors()[0]
        told = wrong["msg"].replace("Input should be ", "must be ")
        raise InputError(f"{wrong['loc'][0]} {told}, got '{wrong['input']}'") from error
