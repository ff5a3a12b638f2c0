"""A session in three trackers, read back by their own means; none asks a network."""

import importlib
import json
import time

import pytest

import planted
from faultlens.concepts import ConceptFile
from faultlens.errors import MissingDependencyError
from faultlens.gate.config import GateConfig
from faultlens.gate.run import run as run_gate
from faultlens.loggers import content, mlflow, tensorboard, wandb
from faultlens.session import DebugSession


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    return DebugSession.run(
        planted.swapped_head(), images=planted.source(250), vlm=planted.CellVlm(),
        concepts=ConceptFile.parse(planted.concepts_yaml()),
        out=tmp_path_factory.mktemp("log") / "nightly",
    )  # fmt: skip


@pytest.fixture(scope="module")
def gate(session):
    return run_gate(GateConfig.parse({"accuracy": {"min": 0.9}}), session)


def test_metrics_are_the_sessions_numbers(session, gate):
    found = content.metrics(session, gate)
    assert found["accuracy"] == session.numbers["accuracy"]
    ships = [r for r in session.images if r["label"] == "ship"]
    wrong = sum(r["prediction"] != "ship" for r in ships)
    assert found["class_error/ship"] == wrong / len(ships)
    assert found["findings/faults"] >= 1
    assert (found["gate/passed"], found["gate/failed_checks"]) == (0.0, 1.0)
    assert "gate/passed" not in content.metrics(session)
    assert "head_gain_interval" not in found


def test_findings_become_rows_and_text(session, gate):
    rows = content.rows(session)
    assert {len(row) for row in rows} == {len(content.COLUMNS)}
    assert rows[0][0] == session.findings[0].id
    text = content.markdown(session, gate)
    assert session.findings[0].claim in text
    assert "FaultLens gate: failed" in text


def test_mlflow_keeps_numbers_settings_and_files(session, gate, tmp_path, monkeypatch):
    pytest.importorskip("mlflow", reason="mlflow is not installed")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow.tracking import MlflowClient

    uri = (tmp_path / "runs").as_uri()
    run_id = mlflow.log(session, gate=gate, tracking_uri=uri, experiment="trucks")
    client = MlflowClient(tracking_uri=uri)
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "nightly"
    assert run.data.metrics["accuracy"] == session.numbers["accuracy"]
    assert run.data.params["faultlens.status"] == session.status
    assert run.data.tags["faultlens.gate"] == "failed"
    names = {f.path for f in client.list_artifacts(run_id, "faultlens")}
    assert {"faultlens/report.html", "faultlens/gate.json", "faultlens/gate.md"} <= names
    (table,) = tmp_path.rglob("findings_table.json")
    assert json.loads(table.read_text())["columns"] == list(content.COLUMNS)
    open_run = client.create_run(run.info.experiment_id).info.run_id
    assert mlflow.log(session, run_id=open_run, tracking_uri=uri) == open_run
    assert client.get_run(open_run).info.status == "RUNNING"


@pytest.mark.filterwarnings("ignore")  # those of wandb itself
def test_wandb_writes_a_run_offline(session, gate, tmp_path, monkeypatch):
    package = pytest.importorskip("wandb", reason="wandb is not installed")
    for key, value in (("WANDB_SILENT", "true"), ("WANDB_ERROR_REPORTING", "false"),
                       ("WANDB_CACHE_DIR", str(tmp_path / "cache")),
                       ("WANDB_DATA_DIR", str(tmp_path / "data")),
                       ("WANDB_CONFIG_DIR", str(tmp_path / "config"))):  # fmt: skip
        monkeypatch.setenv(key, value)
    run_id = wandb.log(session, gate=gate, project="trucks", mode="offline", folder=tmp_path)
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")
    assert folder.name.endswith(run_id)
    (record,) = folder.glob("*.wandb")
    package.teardown()  # its own process may still hold what it has to write
    deadline = time.monotonic() + 60
    while b"accuracy" not in record.read_bytes() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert b"accuracy" in record.read_bytes()
    assert list(folder.rglob("*.table.json"))
    assert package.run is None


@pytest.mark.filterwarnings("ignore")  # those of TensorBoard itself
def test_tensorboard_reads_scalars_and_text(session, gate, tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tensorboard.log(session, tmp_path, step=3, gate=gate)
    tensorboard.log(session, tmp_path, step=4)
    read = EventAccumulator(str(tmp_path)).Reload()
    scalars = {e.step: e.value for e in read.Scalars("faultlens/accuracy")}
    assert scalars == pytest.approx(dict.fromkeys((3, 4), session.numbers["accuracy"]))
    told = read.Tensors("faultlens/findings")
    assert session.findings[0].claim in told[0].tensor_proto.string_val[0].decode()


@pytest.mark.parametrize(
    ("logger", "extra"), [(mlflow, "mlflow"), (wandb, "wandb"), (tensorboard, "tensorboard")]
)
def test_a_missing_package_names_its_extra(session, tmp_path, monkeypatch, logger, extra):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(MissingDependencyError, match=rf"pip install 'faultlens\[{extra}\]'"):
        logger.log(session, tmp_path) if logger is tensorboard else logger.log(session)
