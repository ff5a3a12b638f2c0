import json
from xml.etree import ElementTree as ET

import pytest
import yaml
from typer.testing import CliRunner

import planted
from faultlens.cli import app
from faultlens.concepts import ConceptFile
from faultlens.errors import InputError
from faultlens.gate.config import GateConfig
from faultlens.gate.run import run
from faultlens.registry import VLMS
from faultlens.session import DebugSession
from faultlens.spec.junit import render

runner = CliRunner()


def debug(model, out, n=400, vlm=None, **columns):
    return DebugSession.run(
        model, images=planted.source(n, **columns), vlm=vlm or planted.CellVlm(),
        concepts=ConceptFile.parse(planted.concepts_yaml()), out=out,
    )  # fmt: skip


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    return debug(planted.healthy(), tmp_path_factory.mktemp("gate") / "healthy")


@pytest.fixture(scope="module")
def swapped(tmp_path_factory):
    return debug(planted.swapped_head(), tmp_path_factory.mktemp("gate") / "swapped")


def gate(session, **thresholds):
    return run(GateConfig.parse(thresholds), session)


def outcomes(found):
    return {r.case.name: r.case.outcome.value for r in found.results}


def test_a_healthy_session_passes_and_a_faulty_one_fails(healthy, swapped):
    asked = {
        "accuracy": {"min": 0.9}, "class_error": {"max": 0.3},
        "findings": {"confirmed_faults": 0, "kinds": {"localization.*": 0}},
    }  # fmt: skip
    good, bad = gate(healthy, **asked), gate(swapped, **asked)
    assert (good.exit_code, good.status, good.failed) == (0, "passed", ())
    assert (bad.exit_code, bad.status) == (1, "failed")
    failed = {r.case.name for r in bad.failed}
    assert {"accuracy", "error of ship", "error of plane", "localization.*"} <= failed
    assert "error of cat" not in failed
    assert bad.table.rows[0][-1] == "FAILED"
    document = json.loads(json.dumps(bad.to_json()))
    assert document["counts"]["failed"] == len(bad.failed)
    first = next(r for r in document["results"] if r["name"] == "accuracy")
    assert first["value"] == pytest.approx(swapped.numbers["accuracy"])


def test_groups_can_be_left_out_or_chosen(swapped):
    names = outcomes(gate(swapped, class_error={"max": 0.3, "except": ["ship", "plane"]}))
    assert "error of ship" not in names
    assert set(names.values()) == {"passed"}
    only = outcomes(gate(swapped, class_error={"max": 0.3, "only": ["cat"]}))
    assert only == {"error of cat": "passed"}
    with pytest.raises(InputError, match=r"class_error must name known groups, got 'shp'; did you"):
        gate(swapped, class_error={"max": 0.3, "except": ["shp"]})


def test_subclasses_are_judged_where_they_are_known(tmp_path, healthy):
    names = ["red" if i % 40 else "rare" for i in range(400)]
    session = debug(planted.healthy(), tmp_path, subclasses=tuple(names))
    found = gate(session, subclass_error={"max": 0.5}, min_images=50)
    assert outcomes(found) == {"error of rare": "failed", "error of red": "passed"}
    assert "10 images, fewer than 50" in found.failed[0].case.message
    skipped = gate(session, subclass_error={"max": 0.5}, min_images=50, too_few="skip")
    assert outcomes(skipped)["error of rare"] == "unknown"
    assert skipped.exit_code == 0
    assert "1 skipped for too few images" in skipped.told
    missing = gate(healthy, subclass_error={"max": 0.5}, too_few="skip")
    assert outcomes(missing) == {"subclass error": "failed"}


def test_numbers_are_found_by_name(swapped):
    found = gate(swapped, numbers={"map_r2": {"min": 0.2}, "head_gain": {"max": 0.01}})
    assert outcomes(found) == {"map_r2": "passed", "head_gain": "failed"}
    with pytest.raises(InputError, match="did you mean 'map_r2'"):
        gate(swapped, numbers={"map_r3": {"min": 0.2}})
    assert outcomes(gate(swapped, head_share={"max": 0.5})) == {"head share": "failed"}


def test_known_findings_can_be_allowed(swapped):
    ids = [f.id for f in swapped.findings if f.severity == "fault"]
    assert outcomes(gate(swapped, findings={"faults": 0})) == {"faults": "failed"}
    assert outcomes(gate(swapped, findings={"faults": 0, "allow": ids})) == {"faults": "passed"}


def test_no_finding_says_nothing_where_nothing_could_be_told(tmp_path):
    session = debug(planted.swapped_head(), tmp_path, vlm=planted.CellVlm(blind=True))
    assert session.status == "unknown"
    found = gate(session, findings={"faults": 99})
    assert outcomes(found) == {"session": "failed", "faults": "passed"}
    assert found.exit_code == 1
    passing = {"faults": 99, "unknown_passes": True}
    assert gate(session, findings=passing).exit_code == 0


def test_specifications_and_a_baseline(healthy, swapped, tmp_path):
    suite = tmp_path / "suite.con"
    suite.write_text("spec called given label(ship) confidence .9 at .7: predict(ship);\n"
                     "spec few given fur > 99: true;\n")  # fmt: skip
    found = gate(swapped, check=[{"file": str(suite)}])
    assert outcomes(found) == {"called": "failed", "few": "failed"}
    assert {r.case.name: r.case.verdict for r in found.results}["few"] == "UNKNOWN"
    against = gate(swapped, baseline=str(healthy.folder))
    assert outcomes(against)["ship"] == "failed"
    assert outcomes(against)["cat"] == "passed"
    assert outcomes(gate(healthy, baseline=str(swapped.folder)))["ship"] == "passed"


def test_a_monitor_is_evaluated(swapped, healthy, tmp_path):
    from faultlens import monitoring

    path = tmp_path / "monitor.safetensors"
    monitoring.fit(swapped).save(path)
    asked = {"file": str(path), "false_alarms": {"max": 0.2}, "auroc": {"min": 0.999999}}
    found = gate(swapped, monitor=asked)
    assert outcomes(found) == {"false alarms": "passed", "auroc": "failed"}
    other = {**asked, "session": str(tmp_path / "perfect")}
    only_right = debug(planted.healthy(), tmp_path / "perfect", n=60)
    n_wrong = sum(r["label"] != r["prediction"] for r in only_right.images)
    if n_wrong < 2:
        assert outcomes(gate(healthy, monitor=other)) == {"evaluation": "failed"}


def test_a_session_must_be_named():
    with pytest.raises(InputError, match="session must be given"):
        run(GateConfig.parse({"accuracy": {"min": 0.9}}))


def test_names_with_markup_survive_in_junit(swapped):
    found = gate(swapped, accuracy={"min": 0.99})
    root = ET.fromstring(render(found.suites).split("\n", 1)[1])
    assert root[0].get("failures") == "1"


def call(*words):
    return runner.invoke(app, [str(w) for w in words])


def test_the_command_writes_what_ci_needs(swapped, healthy, tmp_path):
    file = tmp_path / "gate.yaml"
    file.write_text(yaml.safe_dump(
        {"session": str(swapped.folder), "accuracy": {"min": 0.9}, "error": {"max": 0.9}}
    ))  # fmt: skip
    bad = call("gate", file, "--junit", tmp_path / "g.xml", "--markdown", tmp_path / "g.md")
    assert bad.exit_code == 1, bad.output
    assert bad.stdout.splitlines()[1].split()[:2] == ["metrics", "accuracy"]
    assert "FAILED" in bad.stdout
    assert "required at least 90.0 %" in bad.stderr
    assert ET.parse(tmp_path / "g.xml").getroot()[0].get("failures") == "1"
    summary = (tmp_path / "g.md").read_text()
    assert "FaultLens gate: failed" in summary
    assert "<details>" in summary
    good = call("gate", file, "--session", healthy.folder, "--json")
    assert (good.exit_code, json.loads(good.stdout)["status"]) == (0, "passed")
    file.write_text("acuracy: {min: 0.9}\n")
    wrong = call("gate", file)
    assert wrong.exit_code == 2
    assert "did you mean 'accuracy'?" in wrong.stderr
    assert call("gate", tmp_path / "absent.yaml").exit_code == 2


def test_a_run_can_come_first(tmp_path):
    planted.save_onnx(planted.healthy(), tmp_path / "net.onnx")
    planted.save_folder(tmp_path / "photos", n=250)
    (tmp_path / "concepts.yaml").write_text(yaml.safe_dump(planted.concepts_yaml()))
    (tmp_path / "faultlens.yaml").write_text(yaml.safe_dump({
        "model": "onnx:net.onnx", "images": "photos", "vlm": "cells",
        "concepts": "concepts.yaml", "out": "out", "split": "test",
    }))  # fmt: skip
    (tmp_path / "gate.yaml").write_text("debug: faultlens.yaml\naccuracy: {min: 0.8}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(VLMS._table, "cells", "planted:load")
        found = run(tmp_path / "gate.yaml")
    assert found.exit_code == 0
    assert found.session.folder == tmp_path / "out"
