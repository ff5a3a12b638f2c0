import json

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

import planted
from faultlens.cli import app
from faultlens.models.head import Head
from faultlens.models.load import load_model
from faultlens.registry import VLMS

runner = CliRunner()


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """A run as a user has it, with a file that is no picture."""
    root = tmp_path_factory.mktemp("user")
    planted.save_onnx(planted.swapped_head(), root / "swapped.onnx")
    planted.save_folder(root / "photos")
    (root / "photos" / "test" / "cat" / "aa.png").write_bytes(b"not a picture")
    (root / "concepts.yaml").write_text(yaml.safe_dump(planted.concepts_yaml()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(VLMS._table, "cells", "planted:load")
        result = runner.invoke(
            app,
            ["debug", "--quiet", "--model", f"onnx:{root / 'swapped.onnx'}", "--images",
             str(root / "photos"), "--split", "test", "--vlm", "cells", "--concepts",
             str(root / "concepts.yaml"), "--out", str(root / "out")],
        )  # fmt: skip
    assert result.exit_code == 1, result.output
    return root / "out"


def test_fix_prints_a_table_with_the_advised_first(session):
    result = runner.invoke(app, ["fix", str(session), "--quiet"])
    assert result.exit_code == 0, result.output
    first, last = result.stdout.index("✓ advised"), result.stdout.index("– not advised")
    assert first < last
    assert "Restore the head's rows and biases of" in result.stdout
    assert "accuracy +4" in result.stdout
    assert "model-rows-head.onnx" in result.stdout
    assert result.stderr == ""


def test_fix_gives_json_and_artefacts_that_load(session, tmp_path):
    out = tmp_path / "fixes"
    result = runner.invoke(
        app, ["fix", str(session), "--finding", "head", "--out", str(out), "--json", "--quiet"]
    )
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert document["fixes"] == json.loads((out / "fixes.json").read_text())["fixes"]
    rows = next(f for f in document["fixes"] if f["id"] == "rows-head")
    assert rows["artefacts"] == ["head-rows-head.safetensors", "model-rows-head.onnx"]
    head = Head.load(out / rows["artefacts"][0])
    model = load_model(f"onnx:{out / rows['artefacts'][1]}")
    np.testing.assert_allclose(model.head.weight, head.weight, rtol=1e-6)
    assert {*document["fixes"][0]} >= {
        "id", "finding", "kind", "gain", "interval", "p_value", "broken", "is_advised",
    }  # fmt: skip


def test_a_moved_model_is_one_clear_message(session, tmp_path):
    path = session.parent / "swapped.onnx"
    path.rename(tmp_path / "elsewhere.onnx")
    try:
        result = runner.invoke(app, ["fix", str(session), "--quiet"])
    finally:
        (tmp_path / "elsewhere.onnx").rename(path)
    assert result.exit_code == 2
    said = result.stderr.replace("\n", " ")
    assert "model must be where the run found it" in said
    assert "swapped.onnx" in said
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("words", "message"),
    [(["nowhere"], "session.json"), (["{}", "--finding", "heat"], "did you mean 'head'")],
)
def test_wrong_input_exits_2(session, words, message):
    result = runner.invoke(app, ["fix", *(w.format(session) for w in words), "--quiet"])
    assert result.exit_code == 2
    assert message in result.stderr.replace("\n", " ")


def test_help_shows_an_example():
    result = runner.invoke(app, ["fix", "--help"])
    assert result.exit_code == 0
    assert "faultlens fix out/ --finding head" in result.stdout
