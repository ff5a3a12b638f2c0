import json

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

import planted
from faultlens.cli import app
from faultlens.data.images import open_images
from faultlens.registry import VLMS

runner = CliRunner()


@pytest.fixture(autouse=True)
def _cells_vlm(monkeypatch):
    monkeypatch.setitem(VLMS._table, "cells", "planted:load")


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder as a user has it: model, photographs, concepts."""
    root = tmp_path_factory.mktemp("user")
    planted.save_onnx(planted.healthy(), root / "healthy.onnx")
    planted.save_onnx(planted.swapped_head(), root / "swapped.onnx")
    planted.save_onnx(planted.healthy(), root / "bare.onnx", described=False)
    planted.save_folder(root / "photos")
    (root / "concepts.yaml").write_text(yaml.safe_dump(planted.concepts_yaml()))
    return root


def debug(work, out, *more, model="swapped.onnx", **changed):
    options = {
        "--model": f"onnx:{work / model}",
        "--images": work / "photos",
        "--split": "test",
        "--vlm": "cells",
        "--concepts": work / "concepts.yaml",
        "--out": out,
    } | {f"--{k.replace('_', '-')}": v for k, v in changed.items()}
    words = [str(w) for pair in options.items() if pair[1] is not None for w in pair]
    return runner.invoke(app, ["debug", *words, *more])


@pytest.fixture(scope="module")
def session(work, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(VLMS._table, "cells", "planted:load")
        assert debug(work, out, "--quiet").exit_code == 1
    return out


def test_a_fault_exits_1_and_stdout_tells_it(work, tmp_path):
    result = debug(work, tmp_path, "--quiet")
    assert result.exit_code == 1
    assert "fault found" in result.stdout
    assert "The head misreads good embeddings" in result.stdout
    assert "report.html" in result.stdout
    assert result.stderr == ""
    assert (tmp_path / "report.html").stat().st_size > 1e6


def test_a_clean_model_exits_0(work, tmp_path):
    result = debug(work, tmp_path, "--quiet", model="healthy.onnx")
    assert (result.exit_code, "no fault found" in result.stdout) == (0, True)


def test_a_blind_vlm_exits_3(work, tmp_path):
    result = debug(work, tmp_path, "--quiet", vlm="cells:blind")
    assert result.exit_code == 3
    assert "not clearly above chance" in result.stdout.replace("\n", " ")


def test_too_few_images_exit_3(work, tmp_path):
    result = debug(work, tmp_path, "--quiet", limit=20)
    assert result.exit_code == 3
    assert "at least 30" in result.stderr


def test_json_is_one_document_and_progress_stays_on_stderr(work, tmp_path):
    result = debug(work, tmp_path, "--json")
    document = json.loads(result.stdout)
    assert document["status"] == "fault"
    assert document["exit_code"] == result.exit_code == 1
    assert document["findings"][0]["kind"] == "localization.head"
    assert "classifier" in result.stderr


def test_a_configuration_file_does_the_same_and_options_win(work, tmp_path):
    config = {
        "model": f"onnx:{work / 'swapped.onnx'}", "images": "photos", "split": "test",
        "vlm": "cells", "concepts": "concepts.yaml", "out": str(tmp_path / "a"),
    }  # fmt: skip
    path = work / "faultlens.yaml"
    path.write_text(yaml.safe_dump(config))
    first = runner.invoke(app, ["debug", "--config", str(path), "--json", "--quiet"])
    assert first.exit_code == 1
    assert json.loads(first.stdout)["folder"] == str(tmp_path / "a")
    other = str(tmp_path / "b")
    second = runner.invoke(
        app,
        ["debug", "--config", str(path), "--json", "--quiet", "--out", other, "--limit", "200"],
    )
    document = json.loads(second.stdout)
    assert document["folder"] == other
    assert document["numbers"]["n_images"] == 200


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model": "onx:net.onnx"}, "did you mean 'onnx'?"),
        ({"model": "onnx:nowhere.onnx"}, "nowhere.onnx"),
        ({"images": "nowhere"}, "nowhere"),
        ({"split": "tset"}, "did you mean 'test'?"),
        ({"split": None}, "split must be one of test, got none; add --split"),
        ({"reference_split": "val"}, "'test'"),
        ({"reference_split": "test"}, "must differ"),
        ({"vlm": "cels"}, "did you mean 'cells'?"),
        ({"concepts": "nowhere.yaml"}, "nowhere.yaml must be a file"),
        ({"limit": 0}, "limit"),
        ({"max_failures": 2}, "max_failures"),
        ({"features": "f.safetensors"}, "features replace model and images"),
        ({"head": "head.safetensors"}, "head and classes belong to features"),
        ({"model": None}, "model and images are both needed"),
        ({"vlm": None}, "vlm must be given; add --vlm or 'vlm:'"),
        ({"out": None}, "out must be given; add --out"),
    ],
)
def test_a_wrong_option_is_one_clear_message(work, tmp_path, changed, message):
    result = wrong(work, tmp_path, changed)
    assert result.exit_code == 2
    assert message in result.stderr.replace("\n", " ")
    assert "Traceback" not in result.output
    assert result.stdout == ""
    assert not (tmp_path / "out" / "session.json").exists()


def wrong(work, tmp_path, changed):
    options = {
        "model": f"onnx:{work / 'swapped.onnx'}", "images": work / "photos", "split": "test",
        "vlm": "cells", "concepts": work / "concepts.yaml", "out": tmp_path / "out",
    } | changed  # fmt: skip
    words = [
        str(w) for k, v in options.items() if v is not None for w in (f"--{k.replace('_', '-')}", v)
    ]
    return runner.invoke(app, ["debug", "--quiet", *words])


def test_a_mistyped_option_is_suggested(work, tmp_path):
    result = runner.invoke(app, ["debug", "--modle", "x"])
    assert result.exit_code == 2
    assert "--model" in result.stderr


def test_a_model_without_a_description_gets_an_example_to_write(work, tmp_path):
    result = debug(work, tmp_path, "--quiet", model="bare.onnx")
    assert result.exit_code == 2
    assert "classes:" in result.stderr
    assert "preprocessing:" in result.stderr


def test_an_unknown_key_in_the_configuration_is_suggested(work, tmp_path):
    path = tmp_path / "faultlens.yaml"
    path.write_text("modell: onnx:a.onnx\nimages: photos\nvlm: cells\nconcepts: c.yaml\nout: o\n")
    result = runner.invoke(app, ["debug", "--config", str(path)])
    assert result.exit_code == 2
    assert "unknown key 'modell'; did you mean 'model'?" in result.stderr.replace("\n", " ")


def test_images_of_an_unknown_class_are_refused_before_computing(work, tmp_path):
    planted.save_folder(tmp_path / "photos", n=40)
    (tmp_path / "photos" / "test" / "ship").rename(tmp_path / "photos" / "test" / "shipp")
    result = debug(work, tmp_path / "out", "--quiet", images=tmp_path / "photos")
    assert result.exit_code == 2
    assert "did you mean 'ship'" in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_file_that_cannot_be_decoded_is_named_and_skipped(work, tmp_path):
    planted.save_folder(tmp_path / "photos", n=200)
    (tmp_path / "photos" / "test" / "ship" / "zz.png").write_bytes(b"not a picture")
    result = debug(work, tmp_path / "out", "--json", "--quiet", images=tmp_path / "photos")
    document = json.loads(result.stdout)
    assert document["numbers"]["n_images"] == 200
    named = next(f for f in document["findings"] if f["kind"] == "data.files")
    assert "zz.png" in named["claim"]
    assert "zz.png" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    for i in range(5):
        (tmp_path / "photos" / "test" / "ship" / f"y{i}.png").write_bytes(b"not a picture")
    result = debug(work, tmp_path / "out2", "--quiet", images=tmp_path / "photos")
    assert result.exit_code == 2
    assert "y0.png" in result.stderr


def test_explain_prints_and_gives_json(work, session):
    name = next((work / "photos" / "test" / "ship").glob("*.png"))
    result = runner.invoke(app, ["explain", str(session), str(name)])
    assert result.exit_code == 0
    assert "predicted" in result.stdout
    relative = name.relative_to(work / "photos").as_posix()
    result = runner.invoke(app, ["explain", str(session), relative, "--json"])
    [document] = json.loads(result.stdout)
    assert document["label"] == "ship"
    assert document["image"] == relative


def test_explain_loads_the_model_for_a_new_picture(session, tmp_path):
    planted.source(5, seed=9).load(0).save(tmp_path / "new.png")
    result = runner.invoke(app, ["explain", str(session), str(tmp_path / "new.png"), "--json"])
    [document] = json.loads(result.stdout)
    assert document["label"] is None
    assert document["prediction"] in planted.CLASSES


@pytest.mark.parametrize(
    ("folder", "image", "message"),
    [("nowhere", "a.png", "session.json"), (None, "nowhere.png", "must be one of the run")],
)
def test_explain_refuses_what_is_not_there(session, folder, image, message):
    result = runner.invoke(app, ["explain", folder or str(session), image])
    assert result.exit_code == 2
    assert message in result.stderr.replace("\n", " ")


def world(out, *more, n=12):
    return runner.invoke(app, ["world", "--out", str(out), "--n", str(n), *more])


def test_world_draws_what_is_asked_for(tmp_path):
    options = ["--background", "snow", "--background", "road", "--class", "dog", "--light", "dark"]
    result = world(
        tmp_path / "w", *options, "--no-watermark", "--no-occluder", "--masks", "--json", "--quiet"
    )
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert document["table"] == str(tmp_path / "w" / "world.csv")
    assert document["n"] == 12
    source = open_images(document["folder"])
    assert (len(source), source.class_names) == (12, ("dog",))
    facts = open_images(document["table"]).attributes
    np.testing.assert_array_equal(facts["snow"] + facts["road"], 1)
    assert facts["dark"].all()
    assert not any(facts[c].any() for c in ("watermark", "pole", "leaves"))
    assert (tmp_path / "w" / "masks.npy").is_file()


def test_world_depends_on_the_seed_and_says_where_things_are(tmp_path):
    result = world(tmp_path / "a")
    assert result.exit_code == 0
    assert f"12 pictures: {tmp_path / 'a'}" in result.stdout
    assert "drawing" in result.stderr
    assert "world.csv" in result.stdout
    tables = [(tmp_path / "a" / "scenes.csv").read_text()]
    for name, seed in (("b", 0), ("c", 1)):
        assert world(tmp_path / name, "--seed", str(seed), "--quiet").stderr == ""
        tables.append((tmp_path / name / "scenes.csv").read_text())
    assert tables[0] == tables[1] != tables[2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--background", "sno"],
            "backgrounds must be known names, got 'sno'; did you mean 'snow'",
        ),
        (["--class", "dogg"], "did you mean 'dog'?"),
        (["--light", "warmm"], "did you mean 'warm'?"),
        (["--n", "0"], "n must be at least 1, got 0"),
        (["--seed", "-1"], "seed must be at least 0"),
    ],
)
def test_world_refuses_what_it_cannot_draw(tmp_path, options, message):
    result = world(tmp_path / "w", "--quiet", *options)
    assert result.exit_code == 2
    assert message in result.stderr.replace("\n", " ")
    assert not (tmp_path / "w").exists()


def test_world_never_writes_into_a_folder_with_something_in_it(tmp_path):
    (tmp_path / "mine.txt").touch()
    result = world(tmp_path, "--quiet")
    assert result.exit_code == 2
    assert "out must be a new or empty folder" in result.stderr.replace("\n", " ")


@pytest.mark.parametrize("command", [[], ["debug"], ["explain"], ["demo"], ["world"]])
def test_help_shows_an_example(command):
    result = runner.invoke(app, [*command, "--help"])
    assert result.exit_code == 0
    assert ("Example" in result.stdout) == bool(command)


def test_version():
    result = runner.invoke(app, ["--version"])
    assert result.stdout.startswith("faultlens 0.1.0")
