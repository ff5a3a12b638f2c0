import json
import shutil
from xml.etree import ElementTree as ET

import pytest
import yaml
from typer.testing import CliRunner

import planted
from faultlens.cli import app
from faultlens.registry import VLMS
from faultlens.session import DebugSession

runner = CliRunner()

SUITE = """
region R = slabs(coverage=0.8);
spec fur on R(cat) confidence .9 at .8: fur > water;
spec called on R(ship): predict(ship);
"""


def call(*words):
    return runner.invoke(app, [str(w) for w in words])


def debug(root, model, out, **settings):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(VLMS._table, "cells", "planted:load")
        DebugSession.run(
            f"onnx:{root / model}", images=root / "photos", vlm="cells",
            concepts=root / "concepts.yaml", out=out, **settings,
        )  # fmt: skip
    return out


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder as a user has it, with sessions of a healthy and of a faulty model."""
    root = tmp_path_factory.mktemp("user")
    planted.save_onnx(planted.healthy(), root / "healthy.onnx")
    planted.save_onnx(planted.swapped_head(), root / "swapped.onnx")
    planted.save_folder(root / "photos", n=500)
    planted.save_folder(root / "photos", n=300, seed=1, split="val")
    (root / "concepts.yaml").write_text(yaml.safe_dump(planted.concepts_yaml()))
    (root / "suite.con").write_text(SUITE)
    debug(root, "healthy.onnx", root / "healthy", split="test")
    debug(root, "swapped.onnx", root / "swapped", split="test")
    debug(root, "healthy.onnx", root / "split", split="test", reference_split="val")
    return root


def test_check_prints_a_row_a_spec_and_exits_by_the_worst(work):
    result = call(
        "check", work / "suite.con", "--session", work / "healthy", "--required-rate", 0.8
    )
    assert result.exit_code == 0, result.output
    assert [line.split()[0] for line in result.stdout.splitlines()[:3]] == ["spec", "fur", "called"]
    assert "HOLDS" in result.stdout
    bad = call("check", work / "suite.con", "--session", work / "swapped", "--required-rate", 0.8)
    assert bad.exit_code == 1
    assert bad.stdout.splitlines()[1].startswith("called")
    assert "violations (ship -> plane" in bad.stderr
    strict = ("check", work / "suite.con", "--session", work / "healthy", "--required-rate", 0.99)
    assert call(*strict).exit_code == 3


def test_check_compares_sessions(work):
    result = call(
        "check", work / "suite.con", "--session", work / "healthy", "--session", work / "swapped",
        "--required-rate", 0.8, "--json",
    )  # fmt: skip
    document = json.loads(result.stdout)
    assert result.exit_code == document["exit_code"] == 1
    assert [s["id"] for s in document["sources"]] == [
        "healthy:model", "healthy:vlm", "swapped:model", "swapped:vlm"
    ]  # fmt: skip


def test_check_writes_what_a_ci_server_reads(work, tmp_path):
    result = call(
        "check", work / "suite.con", "--session", work / "swapped", "--required-rate", 0.8,
        "--junit", tmp_path / "check.xml", "--markdown", tmp_path / "check.md", "--quiet",
    )  # fmt: skip
    suite = ET.parse(tmp_path / "check.xml").getroot()[0]
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    failure = suite.find("testcase[@name='called']/failure")
    assert "photos" not in failure.get("message")
    assert "test/ship/" in failure.text
    assert "| called |" in (tmp_path / "check.md").read_text()
    assert result.stderr == ""


def test_a_reference_split_calibrates_thresholds_and_is_not_checked(work, tmp_path):
    (tmp_path / "a.con").write_text(
        "region R = slabs(coverage=.8); spec has on R(cat): hasCon(fur) and not hasCon(water);"
    )
    checked = call("check", tmp_path / "a.con", "--session", work / "split", "--json")
    document = json.loads(checked.stdout)
    found = document["specs"][0]["results"]["model"]
    session = DebugSession.open(work / "split")
    assert found["n"] == sum(row["label"] == "cat" for row in session.images)
    assert found["rate"] > 0.85
    verified = call("verify", tmp_path / "a.con", "--session", work / "split", "--json", "-q")
    (case,) = json.loads(verified.stdout)["specs"][0]["regions"]
    right = [row for row in session.images if row["label"] == row["prediction"] == "cat"]
    assert case["coverage"]["n"] == len(right)


def test_asking_one_after_the_other(work):
    result = call(
        "check", work / "suite.con", "--session", work / "swapped", "--sequential", "--seed", 4,
        "--json",
    )  # fmt: skip
    document = json.loads(result.stdout)
    assert (document["control"], document["seed"]) == ("sequential", 4)
    called = next(s for s in document["specs"] if s["name"] == "called")["results"]["model"]
    assert (called["verdict"], called["n"] < 20) == ("FAILS", True)


def test_verify_proves_and_its_certificates_are_accepted(work, tmp_path):
    (tmp_path / "a.con").write_text(
        "region R = slabs(coverage=.8); region B = box(gamma=3);"
        "spec good on R(cat): fur > water; spec bad on B(cat): water > fur;"
    )
    result = call(
        "verify", tmp_path / "a.con", "--session", work / "healthy", "--timeout", 20,
        "--certificates", tmp_path / "proofs", "--junit", tmp_path / "v.xml", "--json",
    )  # fmt: skip
    document = json.loads(result.stdout)
    assert (result.exit_code, document["status"]) == (1, "REFUTED")
    assert [s["verdict"] for s in document["specs"]] == ["PROVED", "REFUTED"]
    assert ET.parse(tmp_path / "v.xml").getroot()[0].get("failures") == "1"
    named = [s["regions"][0]["certificate"] for s in document["specs"]]
    checked = call("certcheck", *named)
    assert checked.exit_code == 0, checked.output
    assert checked.stdout.count("accepted") == 2


def test_certcheck_rejects_what_was_changed(work, tmp_path):
    (tmp_path / "a.con").write_text("region R = slabs(coverage=.8); spec s on R(cat): fur > water;")
    folder = tmp_path / "proofs"
    call("verify", tmp_path / "a.con", "--session", work / "healthy", "--certificates", folder)
    (path,) = folder.glob("*.json")
    document = json.loads(path.read_text())
    changed = tmp_path / "proofs" / "changed.json"
    changed.write_text(json.dumps(document | {"verdict": "REFUTED"}))
    result = call("certcheck", path, changed, "--json")
    assert [f["is_accepted"] for f in json.loads(result.stdout)] == [True, False]
    assert result.exit_code == 1
    assert call("certcheck", changed, "--quiet").stdout.startswith(str(changed))
    assert call("certcheck", tmp_path / "none.json").exit_code == 2


def test_spec_init_writes_a_file_that_check_takes(work, tmp_path):
    path = tmp_path / "first.con"
    result = call("spec", "init", work / "healthy", "--out", path)
    assert (result.exit_code, f"specifications: {path}") == (0, result.stdout.strip())
    assert f"faultlens check {path}" in result.stderr
    assert call("check", path, "--session", work / "healthy").exit_code in (0, 1, 3)
    assert call("spec", "init", work / "healthy", "--out", path).exit_code == 2
    again = call("spec", "init", work / "healthy", "--json")
    assert json.loads(again.stdout)["file"].endswith("specs/initial.con")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["check", "{suite}"], "--session"),
        (["check", "{suite}", "--session", "{root}/none"], "must be a finished session"),
        (["check", "{root}/none.con", "--session", "{out}"], "none.con"),
        (["check", "{suite}", "--session", "{out}", "--required-rate", "95"], "0.95 asks for 95 %"),
        (["check", "{suite}", "--session", "{out}", "--confidence", "1"], "confidence must be in"),
        (["check", "{typo}", "--session", "{out}"], "did you mean 'fur'"),
        (["check", "{broken}", "--session", "{out}"], "^"),
        (["verify", "{suite}", "--session", "{out}", "--region", "bx(gamma=1)"], "mean 'box'"),
        (["verify", "{suite}", "--session", "{out}", "--timeout", "0"], "timeout must be above 0"),
        (["spec", "init", "{root}/none"], "must be a finished session"),
    ],
)  # fmt: skip
def test_mistakes_are_one_message_and_exit_2(work, tmp_path, words, told):
    (tmp_path / "typo.con").write_text("spec a: furr > water;")
    (tmp_path / "broken.con").write_text("spec a: fur >> water;")
    places = {
        "suite": work / "suite.con", "root": tmp_path, "out": work / "healthy",
        "typo": tmp_path / "typo.con", "broken": tmp_path / "broken.con",
    }  # fmt: skip
    result = call(*(w.format(**places) for w in words))
    assert result.exit_code == 2
    assert told in result.stderr
    assert "Traceback" not in result.output
    assert result.stdout == ""


def test_a_moved_model_stops_verification_alone(work, tmp_path):
    copy = tmp_path / "healthy"
    shutil.copytree(work / "healthy", copy)
    info = json.loads((copy / "session.json").read_text())
    info["config"]["model"] = f"onnx:{tmp_path}/gone.onnx"
    (copy / "session.json").write_text(json.dumps(info))
    assert call("check", work / "suite.con", "--session", copy, "-q").exit_code == 0
    result = call("verify", work / "suite.con", "--session", copy)
    assert result.exit_code == 2
    assert "model must be where the run found it" in result.stderr


@pytest.mark.parametrize("command", [["check"], ["verify"], ["certcheck"], ["spec", "init"]])
def test_help_shows_an_example(command):
    result = call(*command, "--help")
    assert result.exit_code == 0
    assert f"faultlens {' '.join(command)} " in " ".join(result.stdout.split())
