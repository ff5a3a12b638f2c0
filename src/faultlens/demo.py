"""The demo: a shipped classifier on drawn pictures, debugged as a user's own would be."""

import os
import shlex
from pathlib import Path

from faultlens.config import RunConfig
from faultlens.data.world.export import export, is_export
from faultlens.errors import InputError, nearest
from faultlens.measure import Progress
from faultlens.session import DebugSession

ASSETS = Path(__file__).parent / "assets" / "demo"
MODELS = ("faulty", "healthy")


def run(
    out: str | Path,
    model: str = "faulty",
    seed: int = 0,
    n: int = 4000,
    progress: Progress | None = None,
) -> DebugSession:
    """Draw pictures into `OUT/images` and debug a shipped classifier on them in `OUT/session`.

    Pictures that are there already from an earlier demo with the same n and seed are used again.

    Args:
        out: Folder for everything.
        model: `faulty` or `healthy`.
        seed: Of the pictures.
        n: Number of pictures.
        progress: Called as `progress(stage, done, total)`.

    Returns:
        The finished session.

    Raises:
        InputError: Unknown model, a shipped file is missing, or the folder holds other pictures.
        InsufficientDataError: Too few pictures.
    """
    if model not in MODELS:
        raise InputError(
            f"model must be 'faulty' or 'healthy', got '{model}'; {nearest(model, MODELS)}"
        )
    out = Path(out)
    images = out / "images"
    config = RunConfig(
        model=f"onnx:{_asset(f'{model}.onnx')}",
        images=str(images),
        vlm="demo",
        concepts=_asset("concepts.yaml"),
        out=out / "session",
    )
    if not is_export(images, n, seed):
        report = progress or (lambda stage, done, total: None)
        export(
            images, n, seed,
            workers=os.cpu_count() or 1,
            progress=lambda done, total: report("drawing", done, total),
        )  # fmt: skip
    return DebugSession.run_config(config, progress)


def command(session: DebugSession) -> str:
    """Return the `faultlens debug` command that gives the same session."""
    given = session.info["config"]
    words = [w for k in ("model", "images", "vlm", "concepts", "out") for w in (f"--{k}", given[k])]
    return shlex.join(["faultlens", "debug", *words])


def _asset(name: str) -> Path:
    path = ASSETS / name
    if not path.is_file():
        raise InputError(
            f"{path} must be there for the demo, but is missing; install faultlens again"
        )
    return path
