"""What all commands share: options, messages on stderr, progress, and exit codes of mistakes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)  # fmt: skip

from faultlens.errors import FaultlensError, InsufficientDataError

err = Console(stderr=True, highlight=False)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes on stderr.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


_RESUMES = "finished shards are kept, the same command goes on from there"


@contextmanager
def errors(debug: bool, stopped: str = _RESUMES) -> Iterator[None]:
    """Turn mistakes into one clear message and an exit code; a bug keeps its traceback."""
    try:
        yield
    except FaultlensError as error:
        if debug:
            raise
        err.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(3 if isinstance(error, InsufficientDataError) else 2) from error
    except KeyboardInterrupt as error:
        err.print(f"stopped; {stopped}")
        raise typer.Exit(130) from error


@contextmanager
def progress(quiet: bool) -> Iterator[Callable[[str, int, int], None] | None]:
    """Show one bar a stage on stderr, or nothing; gives the callback to report with."""
    if quiet:
        yield None
        return
    columns = (
        TextColumn("{task.description:<22}"), BarColumn(), MofNCompleteColumn(),
        TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=err) as bars:
        tasks: dict[str, TaskID] = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield report
