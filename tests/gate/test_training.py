"""Trainings in a gate: traces as a watch writes them, diagnosed and held against thresholds."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from faultlens.cli import app
from faultlens.errors import InputError, StoreError
from faultlens.gate.config import GateConfig
from faultlens.gate.run import run
from faultlens.training.diagnose import diagnose
from faultlens.training.recorder import Recorder
from faultlens.training.store import TraceWriter

BASELINE = 1.1


def write(folder, losses):
    writer = TraceWriter(folder)
    recorder = Recorder(writer)
    for i, loss in enumerate(losses, 1):
        recorder.add_step(i, loss=loss, baseline=BASELINE, lr=0.1, seconds=0.0)
    writer.close()
    return folder


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    noise = np.random.default_rng(0).normal(0, 0.01, 300)
    return write(tmp_path_factory.mktemp("good"), np.geomspace(1.1, 0.1, 300) + noise)


@pytest.fixture(scope="module")
def bad(tmp_path_factory):
    """A loss that ends in NaN: a fault by itself."""
    losses = np.r_[np.linspace(1.1, 50, 30), [np.nan] * 20]
    return write(tmp_path_factory.mktemp("bad"), losses)


def gate(trace, **asked):
    more = {k: asked.pop(k) for k in ("judge", "confidence") if k in asked}
    return run(GateConfig.parse({"training": {"trace": str(trace), **asked}} | more))


def outcomes(found):
    return {r.case.name: r.case.outcome.value for r in found.results}


def test_a_sound_training_passes_and_a_broken_one_fails(good, bad):
    asked = {"faults": 0, "kinds": {"training.*": 0}}
    sound, broken = gate(good, **asked), gate(bad, **asked)
    assert outcomes(sound) == {"faults": "passed", "training.*": "passed"}
    assert (sound.exit_code, sound.session) == (0, None)
    assert outcomes(broken) == {"faults": "failed", "training.*": "failed"}
    first = diagnose(bad)[0]
    assert first.claim in broken.failed[0].case.detail
    assert {r.suite for r in broken.results} == {"training"}
    kind = first.finding.kind
    assert outcomes(gate(bad, kinds={kind: 0})) == {kind: "failed"}
    assert outcomes(gate(bad, kinds={kind: 9})) == {kind: "passed"}


def test_the_loss_is_judged_like_any_other_number(good):
    assert outcomes(gate(good, loss={"max": 0.3}, gain={"min": 0.5})) == {
        "loss": "passed", "gain": "passed",
    }  # fmt: skip
    assert outcomes(gate(good, loss={"max": 0.05})) == {"loss": "failed"}
    (result,) = gate(good, loss={"max": 0.3}).results
    low, high = result.data["interval"]
    assert low < result.data["value"] < high
    between = {"max": (result.data["value"] + high) / 2}
    assert gate(good, loss=between).results[0].told == "PASSED, not surely"
    assert outcomes(gate(good, loss=between, judge="bound")) == {"loss": "failed"}
    wide = gate(good, loss={"max": 0.3}, confidence=0.999).results[0].data["interval"]
    assert wide[0] < low < high < wide[1]


def test_what_cannot_be_said_never_passes_silently(tmp_path):
    short = write(tmp_path / "short", [1.1, 1.0, 0.9])
    found = gate(short, faults=0)
    assert outcomes(found) == {"length": "failed", "faults": "passed"}
    assert "nothing can be said of a training after 3 steps" in found.failed[0].case.message
    assert outcomes(gate(short, faults=0, unknown_passes=True)) == {"faults": "passed"}
    lost = write(tmp_path / "lost", [np.nan] * 50)
    assert outcomes(gate(lost, loss={"max": 9}, unknown_passes=True)) == {"loss": "failed"}
    with pytest.raises(StoreError, match="absent"):
        gate(tmp_path / "absent", faults=0)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"faults": 0}, "'training.trace' is wrong: Field required"),
        ({"trace": "run"}, "at least one threshold must be given, such as faults: 0"),
        ({"trace": "run", "fault": 0}, "unknown key 'training.fault'; did you mean 'faults'"),
        ({"trace": "run", "kinds": {"dead_units": 0}}, "write 'training.dead_units'"),
        ({"trace": "run", "loss": {"mx": 1}}, "unknown key 'training.loss.mx'; did you mean"),
    ],
)
def test_mistakes_are_told_with_their_place(asked, message):
    with pytest.raises(InputError) as caught:
        GateConfig.parse({"training": asked})
    assert message in str(caught.value)


def test_other_thresholds_still_need_a_session(good):
    asked = {"training": {"trace": str(good), "faults": 0}, "accuracy": {"min": 0.9}}
    with pytest.raises(InputError, match="session must be given"):
        run(GateConfig.parse(asked))


def test_the_command_judges_a_training_alone(bad, tmp_path):
    (tmp_path / "run").symlink_to(bad)
    file = tmp_path / "gate.yaml"
    file.write_text("training: {trace: run, faults: 0}\n")
    words = ["gate", str(file), "--junit", str(tmp_path / "g.xml"), "--markdown"]
    result = CliRunner().invoke(app, [*words, str(tmp_path / "g.md")])
    assert result.exit_code == 1, result.output
    assert "faults: 2, required at most 0; training-1" in result.stderr
    assert "FaultLens gate: failed" in (tmp_path / "g.md").read_text()
    assert 'name="training"' in (tmp_path / "g.xml").read_text()
    document = json.loads(CliRunner().invoke(app, ["gate", str(file), "--json"]).stdout)
    assert (document["session"], document["status"]) == (None, "failed")
