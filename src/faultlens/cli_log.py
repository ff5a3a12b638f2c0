"""The command that sends a session to a tracker: log."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from faultlens import console
from faultlens.errors import FaultlensError, InputError
from faultlens.terminal import Debug, Json, Quiet, errors, progress

if TYPE_CHECKING:
    from faultlens.session import DebugSession

#: Which options each tracker takes, and what its logger calls them.
_TAKES = {
    "mlflow": {"experiment": "experiment", "run_name": "run_name", "run_id": "run_id",
               "tracking_uri": "tracking_uri"},
    "wandb": {"project": "project", "offline": "mode", "folder": "folder"},
    "tensorboard": {"folder": "log_dir", "step": "step"},
}  # fmt: skip


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(no_args_is_help=True)(log)


def log(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A session's folder.")],
    to: Annotated[str, typer.Option(help="mlflow, wandb or tensorboard.")],
    gate: Annotated[
        Path | None, typer.Option(help="YAML file of a gate; its result is logged as well.")
    ] = None,
    experiment: Annotated[str | None, typer.Option(help="mlflow: its name; faultlens.")] = None,
    run_name: Annotated[str | None, typer.Option(help="mlflow: of the new run.")] = None,
    run_id: Annotated[
        str | None, typer.Option(help="mlflow: an open run, such as the training's.")
    ] = None,
    tracking_uri: Annotated[str | None, typer.Option(help="mlflow: its server or folder.")] = None,
    project: Annotated[str | None, typer.Option(help="wandb: its name; faultlens.")] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="wandb: write files for 'wandb sync'.")
    ] = False,
    log_folder: Annotated[
        Path | None, typer.Option("--folder", help="wandb: of its files; tensorboard: of events.")
    ] = None,
    step: Annotated[
        int | None, typer.Option(help="tensorboard: such as the build's number.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    show_traceback: Debug = False,
) -> None:
    """Send a finished session to a tracker: numbers, settings, findings, report.

    Exits with 0 when it was logged, whatever the session or the gate found.

    Examples:

      faultlens log out/ --to mlflow --experiment trucks --tracking-uri http://tracking:5000

      faultlens log out/ --to wandb --project trucks --offline --gate faultlens-gate.yaml

      faultlens log out/ --to tensorboard --folder runs/nightly --step 17
    """
    given = {
        "experiment": experiment, "run_name": run_name, "run_id": run_id,
        "tracking_uri": tracking_uri, "project": project, "offline": "offline" if offline else None,
        "folder": log_folder, "step": step,
    }  # fmt: skip
    with errors(show_traceback, "some of it may have been logged"):
        from faultlens.registry import LOGGERS  # noqa: PLC0415 (--help must be quick)
        from faultlens.session import DebugSession  # noqa: PLC0415

        send = LOGGERS.load(to)
        settings = _settings(to, {k: v for k, v in given.items() if v is not None})
        session = DebugSession.open(folder)
        if gate is not None:
            from faultlens.gate.run import run  # noqa: PLC0415

            with progress(quiet or as_json) as report:
                settings["gate"] = run(gate, session, report)
        place = _send(send, to, session, settings)
    if as_json:
        console.print_json({"session": str(folder), "to": to, "place": place})
    else:
        console.out.print(f"logged to {to}: {place}", soft_wrap=True, markup=False)


def _settings(to: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options under the logger's own names; refuse those of another tracker."""
    takes = _TAKES.get(to, {})
    for name in given:
        if name not in takes:
            owners = " or ".join(t for t, names in _TAKES.items() if name in names)
            raise InputError(
                f"--{name.replace('_', '-')} must be given for {owners} only, got it with --to "
                f"{to}; leave it out"
            )
    if to == "tensorboard" and "folder" not in given:
        raise InputError("--folder must be given for tensorboard, got none; add --folder runs/NAME")
    return {takes[name]: value for name, value in given.items()}


def _send(send: Any, to: str, session: "DebugSession", settings: Mapping[str, Any]) -> str:
    try:
        return str(send(session, **settings))
    except FaultlensError:
        raise
    except Exception as error:  # every tracker has errors of its own
        raise InputError(
            f"{to} must take what is logged, got {type(error).__name__}: {error}; check its "
            "address, your login and the options above"
        ) from error
