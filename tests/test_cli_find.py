import json

import pytest
from typer.testing import CliRunner

import planted
from faultlens.cli import app
from faultlens.concepts import ConceptFile
from faultlens.session import DebugSession

runner = CliRunner()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("find")
    planted.save_folder(root / "photos", n=250)
    DebugSession.run(
        planted.swapped_head(), images=root / "photos", vlm=planted.CellVlm(),
        concepts=ConceptFile.parse(planted.concepts_yaml()), out=root / "out", split="test",
    )  # fmt: skip
    return root / "out"


def call(*words):
    return runner.invoke(app, [str(w) for w in words])


def test_images_are_listed_by_rank(folder):
    result = call("find", folder, "label(ship) and predict(plane)", "--limit", 3)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["rank", "margin", "image", "label", "prediction", "verdict"]
    assert [line.split()[0] for line in lines[1:4]] == ["1", "2", "3"]
    assert "images: label(ship) and predict(plane)" in lines[-1]


def test_json_and_groups_and_pictures(folder, tmp_path):
    result = call(
        "find", folder, "wrong", "--by", "confusion", "--save-images", tmp_path / "found",
        "--max-images", 2, "--json",
    )  # fmt: skip
    document = json.loads(result.stdout)
    assert document["n"] == sum(document["groups"].values()) > 0
    assert "ship -> plane" in document["groups"]
    assert (tmp_path / "found" / "index.html").exists()
    assert len(list((tmp_path / "found").glob("*.jpg"))) == 2
    shown = call("find", folder, "wrong", "--by", "confusion")
    assert "ship -> plane" in shown.stdout


def test_nothing_found_is_an_answer(folder):
    result = call("find", folder, "false")
    assert result.exit_code == 0
    assert result.stdout.strip().startswith("0 of 250 images")


def test_a_wrong_formula_is_a_wrong_input(folder):
    result = call("find", folder, "predict(shp)")
    assert result.exit_code == 2
    assert "did you mean 'ship'?" in result.stderr
