"""Weights & Biases: a session as a run, with its numbers, settings, findings and report.

from faultlens.loggers import wandb

wandb.log(session, gate=gate, project="trucks")            # mode="offline" asks no network
"""

import importlib
from pathlib import Path
from typing import Any, Literal

from faultlens.errors import MissingDependencyError
from faultlens.gate.run import Gate
from faultlens.loggers import content
from faultlens.session import DebugSession


def log(
    session: DebugSession,
    *,
    gate: Gate | None = None,
    project: str = "faultlens",
    run: Any = None,
    mode: Literal["online", "offline"] | None = None,
    folder: str | Path | None = None,
) -> str:
    """Log a session.

    Args:
        session: Finished.
        gate: What a gate said of it.
        project: Its name. Without use where `run` is given.
        run: Log into this run, such as that of the training, and leave it open.
        mode: `offline` writes files for a later `wandb sync`; None is what wandb is set to.
        folder: Where wandb keeps its files; what wandb is set to, if None.

    Returns:
        The run's id.

    Raises:
        MissingDependencyError: wandb is not installed.
    """
    wandb = _load()
    name = session.folder.resolve().name
    given = run
    if run is None:
        place = None if folder is None else str(folder)
        run = wandb.init(project=project, name=name, mode=mode, dir=place, job_type="faultlens")
    try:
        _write(wandb, run, session, gate)
    except BaseException:
        if given is None:
            run.finish(exit_code=1)
        raise
    if given is None:
        run.finish()
    return str(run.id)


def _write(wandb: Any, run: Any, session: DebugSession, gate: Gate | None) -> None:
    settings = {f"faultlens.{k}": v for k, v in content.settings(session).items()}
    run.config.update(settings, allow_val_change=True)
    table = wandb.Table(columns=list(content.COLUMNS), data=content.rows(session))
    logged = dict(content.metrics(session, gate)) | {"findings/table": table}
    report = session.folder / "report.html"
    if report.exists():
        logged["findings/report"] = wandb.Html(report.read_text("utf-8"), inject=False)
    run.log(logged)
    if gate is not None:
        run.summary["gate/status"] = gate.status
        run.summary["gate/told"] = gate.told
    artifact = wandb.Artifact(f"faultlens-{run.id}", type="faultlens-session")
    for path in content.paths(session):
        artifact.add_file(str(path))
    run.log_artifact(artifact)


def _load() -> Any:
    try:
        return importlib.import_module("wandb")
    except ImportError as error:
        raise MissingDependencyError("wandb", "wandb") from error
