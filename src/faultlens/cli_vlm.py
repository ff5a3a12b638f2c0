"""The command that exports a vision-language model, so that runs need no PyTorch."""

from pathlib import Path
from typing import Annotated

import typer

from faultlens import console
from faultlens.terminal import Debug, Json, Quiet, err, errors


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(no_args_is_help=True)(export_vlm)


def export_vlm(
    vlm: Annotated[str, typer.Argument(help="clip:FOLDER or clip:ID.")],
    out: Annotated[Path, typer.Option(help="New folder, for --vlm onnx-clip:FOLDER.")],
    as_json: Json = False,
    quiet: Quiet = False,
    show_traceback: Debug = False,
) -> None:
    """Write a CLIP or SigLIP checkpoint as ONNX files that run without PyTorch.

    The folder is compared with the checkpoint on pictures and texts before it gets its name.

    Example:

      faultlens export-vlm clip:clip-vit-b-16 --out clip-onnx
    """
    with errors(show_traceback, "nothing was written"):
        from faultlens.vlm.clip_export import export  # noqa: PLC0415 (--help must be quick)

        made = export(vlm, out)
    if as_json:
        console.print_json(
            {"folder": str(made.folder), "dimension": made.dimension, "bytes": made.n_bytes,
             "difference": made.difference}
        )  # fmt: skip
        return
    console.out.print(f"exported: {made.folder}", soft_wrap=True, markup=False)
    if not quiet:
        err.print(
            f"{made.dimension} dimensions, {made.n_bytes / 1e6:.1f} MB; unit embeddings differ by "
            f"at most {made.difference:.1g}; use it with --vlm onnx-clip:{made.folder}",
            soft_wrap=True, markup=False,
        )  # fmt: skip
