"""Commands about concepts: list, show, suggest."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from faultlens import console
from faultlens.terminal import Debug, Json, Quiet, err, errors

if TYPE_CHECKING:
    from faultlens.suggesting import Suggestion, Suggestions

concepts_app = typer.Typer(help="Concept packs, and concepts for a session.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.add_typer(concepts_app, name="concepts")


@concepts_app.command("list")
def list_packs(as_json: Json = False, show_traceback: Debug = False) -> None:
    """List the concept packs that come with FaultLens.

    Their names can stand where a file of concepts can: --concepts rival10, or several joined by +.

    Example:

      faultlens concepts list
    """
    with errors(show_traceback):
        from faultlens.concepts import ConceptFile  # noqa: PLC0415
        from faultlens.packs import pack_names, pack_path  # noqa: PLC0415 (--help must be quick)

        packs = {name: ConceptFile.read(pack_path(name)) for name in pack_names()}
    if as_json:
        console.print_json([
            {"pack": name, "version": file.version, "n": len(file.concepts), "about": file.about,
             "concepts": list(file.concepts), "classes": list(file.classes)}
            for name, file in packs.items()
        ])  # fmt: skip
        return
    rows = [(name, str(len(file.concepts)), file.about or "") for name, file in packs.items()]
    console.print_table(("pack", "concepts", "about"), rows)


@concepts_app.command(no_args_is_help=True)
def show(
    name: Annotated[str, typer.Argument(help="Name of a pack.")],
    as_json: Json = False,
    show_traceback: Debug = False,
) -> None:
    """Print a concept pack as the YAML file it is: a start for one of your own.

    Example:

      faultlens concepts show rival10 > mine.yaml
    """
    with errors(show_traceback):
        from faultlens.concepts import ConceptFile  # noqa: PLC0415
        from faultlens.packs import pack_path  # noqa: PLC0415

        path = pack_path(name)
        file = ConceptFile.read(path)
    if as_json:
        console.print_json(file.model_dump(mode="json"))
    else:
        typer.echo(path.read_text(encoding="utf-8"), nl=False)


@concepts_app.command(no_args_is_help=True)
def suggest(
    folder: Annotated[Path, typer.Argument(help="A session's folder.")],
    vocabulary: Annotated[
        str | None, typer.Option(help="File, packs, or both joined by +; all packs by default.")
    ] = None,
    n: Annotated[int, typer.Option(help="How many of the best candidates to look at.")] = 20,
    out: Annotated[Path | None, typer.Option(help="New YAML file with the chosen ones.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    show_traceback: Debug = False,
) -> None:
    """Propose concepts for a session: words that tell its wrong images from its right ones.

    Wrong images are compared with right ones of the same class. Two fifths of the images rank the
    vocabulary; every figure comes from the others. AUROC above 0.5: more of it in wrong images.
    p is adjusted for all that are shown (Holm). Chosen are those that are new, significant, and
    separate more than meaningless words do.

    Exits with 0 whether or not one is chosen, 2 for a wrong input, 3 with too few images.

    Example:

      faultlens concepts suggest out/ --vocabulary scenes+spurious --out more.yaml

      faultlens debug --config faultlens.yaml --concepts mine.yaml+more.yaml --out again/
    """
    with errors(show_traceback, "nothing was written"):
        from faultlens import suggesting  # noqa: PLC0415
        from faultlens.session import DebugSession  # noqa: PLC0415

        found = suggesting.suggest(DebugSession.open(folder), vocabulary, n=n)
        if out is not None and found.chosen:
            found.write(out)
    if as_json:
        written = str(out) if out is not None and found.chosen else None
        console.print_json(found.to_json() | {"file": written})
        return
    console.print_table(
        ("concept", "AUROC", "interval", "p", "above decoys", ""), map(_row, found.suggestions)
    )
    _tell(found, out, quiet)


def _row(s: "Suggestion") -> tuple[str, ...]:
    low, high = s.interval
    verdict = "chosen" if s.is_chosen else f"like {s.like}" if s.like else ""
    named = ", ".join((s.concept, *s.also))
    return (
        named, f"{s.auroc:.3f}", f"{low:.3f} to {high:.3f}", f"{s.p_value:.2g}",
        f"{s.decoy_quantile:.0%}", verdict,
    )  # fmt: skip


def _tell(found: "Suggestions", out: Path | None, quiet: bool) -> None:
    console.out.print(
        f"\n{len(found.chosen)} chosen of {found.n_candidates} candidates; figures from "
        f"{found.n_wrong} wrong and {found.n_right} right images"
    )
    if out is not None and found.chosen:
        console.out.print(f"concepts: {out}")
    if quiet:
        return
    if out is not None and not found.chosen:
        err.print(f"note: {out} was not written, since none was chosen", soft_wrap=True)
    if found.unknown:
        err.print(f"note: {len(found.unknown)} candidates have words that the vision-language "
                  "model does not understand", soft_wrap=True)  # fmt: skip
