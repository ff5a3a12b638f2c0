"""MLflow: a session as a run, with its numbers, settings, findings and report.

from faultlens.loggers import mlflow

mlflow.log(session, gate=gate, tracking_uri="http://tracking:5000", experiment="trucks")
"""

import importlib
from typing import Any

from faultlens.errors import MissingDependencyError
from faultlens.gate.run import Gate
from faultlens.loggers import content
from faultlens.session import DebugSession

#: Longer values of settings are cut: MLflow refuses them.
_MAX_VALUE = 6000


def log(
    session: DebugSession,
    *,
    gate: Gate | None = None,
    experiment: str = "faultlens",
    run_name: str | None = None,
    run_id: str | None = None,
    tracking_uri: str | None = None,
) -> str:
    """Log a session.

    Args:
        session: Finished.
        gate: What a gate said of it.
        experiment: Its name; made if it is missing. Without use where `run_id` is given.
        run_name: Of the new run; the session folder's name, if None.
        run_id: Log into this run, such as that of the training, and leave it open.
        tracking_uri: Where to; what MLflow is set to, if None.

    Returns:
        The run's id.

    Raises:
        MissingDependencyError: MLflow is not installed.
    """
    client = _client(tracking_uri)
    is_new = run_id is None
    if run_id is None:
        known = client.get_experiment_by_name(experiment)
        place = client.create_experiment(experiment) if known is None else known.experiment_id
        name = run_name or session.folder.resolve().name
        run_id = str(client.create_run(place, run_name=name).info.run_id)
    status = "FAILED"
    try:
        _write(client, run_id, session, gate)
        status = "FINISHED"
    finally:
        if is_new:
            client.set_terminated(run_id, status)
    return run_id


def _write(client: Any, run_id: str, session: DebugSession, gate: Gate | None) -> None:
    for name, value in content.settings(session).items():
        client.log_param(run_id, f"faultlens.{name}", value[:_MAX_VALUE])
    for name, number in content.metrics(session, gate).items():
        client.log_metric(run_id, name, number)
    client.log_dict(run_id, {"columns": list(content.COLUMNS), "data": content.rows(session)},
                    "faultlens/findings_table.json")  # fmt: skip
    for path in content.paths(session):
        client.log_artifact(run_id, str(path), "faultlens")
    if gate is not None:
        client.set_tag(run_id, "faultlens.gate", gate.status)
        client.log_dict(run_id, gate.to_json(), "faultlens/gate.json")
        client.log_text(run_id, gate.markdown(), "faultlens/gate.md")


def _client(tracking_uri: str | None) -> Any:
    try:
        tracking = importlib.import_module("mlflow.tracking")
    except ImportError as error:
        raise MissingDependencyError("mlflow", "mlflow") from error
    return tracking.MlflowClient(tracking_uri=tracking_uri)
