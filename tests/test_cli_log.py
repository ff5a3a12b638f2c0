"""A finished session sent to a tracker from the command line; none asks a network."""

import json

import pytest
from typer.testing import CliRunner

import planted
from faultlens.cli import app
from faultlens.cli_log import _TAKES
from faultlens.concepts import ConceptFile
from faultlens.registry import LOGGERS
from faultlens.session import DebugSession


def run(*words):
    return CliRunner().invoke(app, [str(w) for w in words])


def told(result):
    return " ".join(result.stderr.split())


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    out = tmp_path_factory.mktemp("log") / "nightly"
    DebugSession.run(
        planted.swapped_head(), images=planted.source(250), vlm=planted.CellVlm(),
        concepts=ConceptFile.parse(planted.concepts_yaml()), out=out,
    )  # fmt: skip
    return out


@pytest.mark.filterwarnings("ignore")  # those of TensorBoard itself
def test_tensorboard_gets_numbers_and_the_gates_result(session, tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (tmp_path / "gate.yaml").write_text("accuracy: {min: 0.999}\n")
    events = tmp_path / "runs" / "nightly"
    result = run(
        "log", session, "--to", "tensorboard", "--folder", events, "--step", 17,
        "--gate", tmp_path / "gate.yaml",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == f"logged to tensorboard: {events}"
    read = EventAccumulator(str(events)).Reload()
    (accuracy,) = read.Scalars("faultlens/accuracy")
    assert accuracy.step == 17
    assert accuracy.value == pytest.approx(DebugSession.open(session).numbers["accuracy"])
    assert read.Scalars("faultlens/gate/passed")[0].value == 0


def test_mlflow_gets_a_run(session, tmp_path, monkeypatch):
    pytest.importorskip("mlflow", reason="mlflow is not installed")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow.tracking import MlflowClient

    uri = (tmp_path / "runs").as_uri()
    result = run(
        "log", session, "--to", "mlflow", "--tracking-uri", uri, "--experiment", "trucks",
        "--run-name", "build-17", "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["session"], found["to"]) == (str(session), "mlflow")
    client = MlflowClient(tracking_uri=uri)
    logged = client.get_run(found["place"])
    assert logged.info.run_name == "build-17"
    assert client.get_experiment_by_name("trucks").experiment_id == logged.info.experiment_id


def test_options_reach_the_logger_under_its_own_names(session, tmp_path, monkeypatch):
    from faultlens.loggers import wandb

    seen = {}
    monkeypatch.setattr(wandb, "log", lambda session, **settings: seen.update(settings) or "r1")
    result = run(
        "log", session, "--to", "wandb", "--project", "trucks", "--offline", "--folder", tmp_path
    )
    assert result.stdout.strip() == "logged to wandb: r1"
    assert seen == {"project": "trucks", "mode": "offline", "folder": tmp_path}


def test_every_logger_of_the_package_has_its_options():
    assert set(_TAKES) == set(LOGGERS._table)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--to", "mlfow"), "logger must be a known name, got 'mlfow'; did you mean 'mlflow'?"),
        (("--to", "tensorboard"), "--folder must be given for tensorboard, got none; add --folder"),
        (("--to", "mlflow", "--step", "3"), "--step must be given for tensorboard only, got it "
         "with --to mlflow; leave it out"),
        (("--to", "mlflow", "--folder", "x"), "--folder must be given for wandb or tensorboard "
         "only"),
        (("--to", "wandb", "--run-id", "x"), "--run-id must be given for mlflow only"),
    ],
)  # fmt: skip
def test_mistakes_are_told_in_one_line(session, words, message):
    result = run("log", session, *words)
    assert result.exit_code == 2
    assert message in told(result)


def test_no_session_and_a_tracker_that_fails_are_told(session, tmp_path, monkeypatch):
    result = run("log", tmp_path / "absent", "--to", "tensorboard", "--folder", tmp_path)
    assert result.exit_code == 2
    assert "must be a finished session" in told(result)
    from faultlens.loggers import wandb

    def refuse(session, **settings):
        raise RuntimeError("api_key not configured")

    monkeypatch.setattr(wandb, "log", refuse)
    result = run("log", session, "--to", "wandb")
    assert result.exit_code == 2
    assert "wandb must take what is logged, got RuntimeError: api_key not configured" in told(
        result
    )
