"""The command that compares two sessions: diff."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from faultlens import console
from faultlens.terminal import Debug, Json, Quiet, err, errors

if TYPE_CHECKING:
    from faultlens.finding import Finding
    from faultlens.regressions import Change

_COLOURS = {"worse": "red", "better": "green"}
#: Groups on a terminal or in a pipe; the page has them all.
_N_ROWS = 20


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(no_args_is_help=True)(diff)


def diff(
    first: Annotated[Path, typer.Argument(help="The earlier session's folder.")],
    second: Annotated[Path, typer.Argument(help="The later session's folder.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the page; diff in the later one by default.")
    ] = None,
    level: Annotated[
        float, typer.Option(help="Chance of calling any group worse that is not.")
    ] = 0.05,
    as_json: Json = False,
    quiet: Quiet = False,
    show_traceback: Debug = False,
) -> None:
    """Compare two models, or two dates: accuracy, findings, heatmaps; writes a page.

    On images that both sessions have, the same images are compared (McNemar's exact test), else
    two samples (Fisher's); over all images, every class and every subclass, Holm keeps the chance
    of any false alarm below --level.

    Exits with 1 where a group is significantly worse, else with 0.

    Example:

      faultlens diff main/ branch/ --out diff/
    """
    with errors(show_traceback, "nothing was written"):
        from faultlens import comparing  # noqa: PLC0415 (--help must be quick)

        found = comparing.compare(first, second, level)
        page = found.write(out)
    if as_json:
        console.print_json(found.to_json() | {"page": str(page)})
        raise typer.Exit(found.exit_code)
    _show_changes(found.changes)
    for word, findings in (("new", found.new), ("gone", found.gone)):
        _show_findings(word, findings)
    if not quiet:
        for remark in found.remarks:
            err.print(f"note: {remark}", soft_wrap=True, markup=False)
    console.out.print(f"\n{found.told}", soft_wrap=True, markup=False)
    console.out.print(f"page: {page}", soft_wrap=True)
    raise typer.Exit(found.exit_code)


def _show_changes(changes: "tuple[Change, ...]") -> None:
    total, *groups = changes
    tested = sorted((c for c in groups if c.verdict != "few"), key=lambda c: c.gain)
    rows = [
        (c.name, f"{c.first:.1%}", f"{c.second:.1%}",
         f"{100 * c.gain:+.1f} [{100 * c.interval[0]:+.1f}, {100 * c.interval[1]:+.1f}]",
         f"{c.p_worse:.2g}", Text(c.verdict, _COLOURS.get(c.verdict, "")))
        for c in (total, *tested[:_N_ROWS])
    ]  # fmt: skip
    console.print_table(("images", "before", "after", "points", "p worse", "verdict"), rows)
    if len(tested) > _N_ROWS:
        console.out.print(f"… and {len(tested) - _N_ROWS} more groups, none lost more: --json")


def _show_findings(word: str, findings: "tuple[Finding, ...]") -> None:
    for f in findings:
        if f.severity == "fault":
            console.out.print(f"{word}: {f.claim}", soft_wrap=True, markup=False)
