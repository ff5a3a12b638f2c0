"""The command of continuous integration: gate."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.text import Text

from faultlens import console
from faultlens.terminal import Debug, Json, Quiet, err, errors, progress

_COLOURS = {"FAILED": "red", "FAILS": "red", "REFUTED": "red", "ERROR": "red", "PASSED": "green",
            "HOLDS": "green", "PROVED": "green"}  # fmt: skip


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(no_args_is_help=True)(gate)


def gate(
    config: Annotated[Path, typer.Argument(help="YAML file of thresholds.")],
    session: Annotated[
        Path | None, typer.Option(help="A session's folder, in place of the file's.")
    ] = None,
    junit: Annotated[Path | None, typer.Option(help="JUnit XML, for a CI server.")] = None,
    markdown: Annotated[
        Path | None, typer.Option(help="Summary in Markdown, for a pull request.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    show_traceback: Debug = False,
) -> None:
    """Hold a session against thresholds: accuracy, classes, findings, specs, monitor, training.

    A threshold that cannot be computed fails, and so does one with too few images, unless the file
    says too_few: skip. By default the measured number itself is compared; judge: bound asks that
    its whole interval keeps the limit.

    Exits with 0 when everything passes, 1 when something fails, 2 for a wrong input.

    Examples:

      faultlens gate faultlens-gate.yaml --junit gate.xml --markdown gate.md

      faultlens gate faultlens-gate.yaml --session nightly/
    """
    with errors(show_traceback, "nothing was written"):
        from faultlens import files  # noqa: PLC0415 (--help must be quick)
        from faultlens.gate.run import run  # noqa: PLC0415
        from faultlens.spec.junit import render  # noqa: PLC0415

        with progress(quiet or as_json) as report:
            found = run(config, session, report)
        if junit is not None:
            files.write_atomic(junit, render(found.suites).encode())
        if markdown is not None:
            files.write_atomic(markdown, found.markdown().encode())
    if as_json:
        console.print_json(found.to_json())
        raise typer.Exit(found.exit_code)
    table = found.table
    console.print_table(table.header, [(*r[:-1], _coloured(r[-1])) for r in table.rows])
    if not quiet:
        for result in found.failed:
            err.print(f"{result.suite}: {result.case.message}", soft_wrap=True, markup=False)
    console.out.print(f"\n[bold]{found.status.upper()}[/]  {escape(found.told)}", soft_wrap=True)
    raise typer.Exit(found.exit_code)


def _coloured(verdict: str) -> Text:
    return Text(verdict, _COLOURS.get(verdict.split(",", maxsplit=1)[0], "yellow"))
