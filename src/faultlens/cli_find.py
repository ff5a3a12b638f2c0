"""The command that finds images: find."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from faultlens import console
from faultlens.terminal import Debug, Json, Quiet, err, errors

if TYPE_CHECKING:
    from faultlens.query import Selection


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(no_args_is_help=True)(find)


def find(
    folder: Annotated[Path, typer.Argument(help="A session's folder.")],
    formula: Annotated[
        str, typer.Argument(help="Such as 'predict(truck) and not hasCon(wheels)'.")
    ],
    save_images: Annotated[
        Path | None, typer.Option(help="Write thumbnails and a page of them into this folder.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Images listed.")] = 20,
    max_images: Annotated[int, typer.Option(min=1, help="Pictures saved.")] = 100,
    by: Annotated[
        str | None,
        typer.Option(help="Count by class, prediction, confusion, verdict, subclass or vlm."),
    ] = None,
    source: Annotated[
        str, typer.Option(help="Whose strengths: model (the embedding's) or vlm (the picture's).")
    ] = "model",
    as_json: Json = False,
    quiet: Quiet = False,
    show_traceback: Debug = False,
) -> None:
    """Find the images on which a formula holds, those first where it holds clearly.

    Formulas are those of specifications. Of images there is also label(truck), vlm(truck) (the
    vision-language model names a truck), correct and wrong. Images are ranked by margin: how far
    the nearest of the strengths and scores that decide is from deciding otherwise, in standard
    deviations over the session's images.

    Exits with 0, whether or not an image is found.

    Examples:

      faultlens find out/ "predict(truck) and not hasCon(wheels)" --save-images found/

      faultlens find out/ "wrong and label(ship)" --by confusion

      faultlens find out/ "label(truck) and vlm(car) and predict(car)"   # wrong labels?
    """
    with errors(show_traceback, "nothing was written"):
        from faultlens.session import DebugSession  # noqa: PLC0415 (--help must be quick)

        found = DebugSession.open(folder).where(formula, source)
        groups = None if by is None else {k: len(v) for k, v in found.by(by).items()}
        page = None if save_images is None else found.save_images(save_images, max_images)
    if as_json:
        more = {"groups": groups, "page": None if page is None else str(page)}
        console.print_json(found.to_json(limit) | more)
        return
    if groups is None:
        _show_images(found, limit)
    else:
        console.print_table(("images", by or ""), [(str(n), k) for k, n in groups.items()])
    if found.untrusted and not quiet:
        err.print(
            f"note: {', '.join(found.untrusted)} did not pass the validity gate here: this order "
            "may be noise", soft_wrap=True, markup=False,
        )  # fmt: skip
    n = len(found.session.images)
    console.out.print(f"\n{len(found)} of {n} images: {escape(found.formula)}")
    if page is not None:
        console.out.print(f"page: {page}", soft_wrap=True)


def _show_images(found: "Selection", limit: int) -> None:
    shown = [row for row, _ in zip(found, range(limit), strict=False)]
    if shown:
        console.print_table(
            ("rank", "margin", "image", "label", "prediction", "verdict"),
            [
                (str(r["rank"]), "" if r["margin"] is None else f"{r['margin']:.2f}", r["name"],
                 r["label"], r["prediction"], r["verdict"])
                for r in shown
            ],
        )  # fmt: skip
    if len(found) > len(shown):
        console.out.print(f"… and {len(found) - len(shown)} more: --limit, or --json")
