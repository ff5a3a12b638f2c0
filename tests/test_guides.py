"""The guide's examples: Python runs as it stands there, commands and their options exist."""

import json
import subprocess
import sys

import numpy as np
import pytest
import typer
import yaml

import planted
import tiny_rival10
from faultlens.cli import app
from faultlens.concepts import ConceptFile
from faultlens.gate.config import GateConfig
from faultlens.models.description import ModelDescription
from faultlens.registry import VLMS
from faultlens.session import DebugSession
from guides import DOCS, ELLIPSIS, ROOT, blocks, commands

#: Python blocks of each page that run, and that are marked as not to be run.
COUNTS = {
    "guide/vlm.md": (1, 0), "guide/models.md": (1, 0), "guide/data.md": (2, 1),
    "guide/pipeline.md": (2, 0), "guide/concepts.md": (1, 0), "scale.md": (1, 0),
}  # fmt: skip
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A user's folder, in which the examples run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(VLMS._table, "cells", "planted:load")
    return tmp_path


def run(page):
    """Run the Python blocks of a page one after the other, as a reader would."""
    names = {"__name__": "guide"}
    for block in blocks(DOCS / page):
        if block.language == "python" and block.why is None:
            exec(compile(block.code, page, "exec"), names)
    return names


def session(folder, model):
    """A finished session over pictures on the disk, with a model that can be loaded again."""
    folder.mkdir(parents=True)
    planted.save_onnx(model, folder / "net.onnx")
    planted.save_folder(folder / "photos")
    return DebugSession.run(
        f"onnx:{folder / 'net.onnx'}", images=folder / "photos", split="test", vlm="cells",
        concepts=ConceptFile.parse(planted.concepts_yaml()), out=folder / "session",
    )  # fmt: skip


@pytest.mark.parametrize("page", COUNTS)
def test_no_python_is_left_out(page):
    found = [b for b in blocks(DOCS / page) if b.language == "python"]
    n_marked = sum(b.why is not None for b in found)
    assert (len(found) - n_marked, n_marked) == COUNTS[page]


def test_vision_language_models(capsys):
    run("guide/vlm.md")
    assert capsys.readouterr().out == "(1, 2)\n"


@pytest.mark.torch
def test_models(place):
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    weights = {"fc.weight": torch.eye(3)}
    torch.save(weights, place / "resnet18.pth")
    run("guide/models.md")
    assert torch.equal(load_file("resnet18.safetensors")["fc.weight"], torch.eye(3))


def test_data(place):
    tiny_rival10.save(place / "RIVAL10")
    names = run("guide/data.md")
    assert len(names["source"]) == 5
    masks = names["attribute_masks"](names["source"], 0)
    assert np.array_equal(masks["patterned"], tiny_rival10.half() > 0)


@pytest.mark.filterwarnings("ignore")  # those of the trackers themselves
def test_pipeline(place, monkeypatch, capsys):
    for package in ("mlflow", "wandb", "tensorboard"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    settings = {
        "MLFLOW_ALLOW_FILE_STORE": "true", "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_TRACKING_URI": (place / "mlruns").as_uri(), "WANDB_SILENT": "true",
        "WANDB_ERROR_REPORTING": "false",
    }  # fmt: skip
    settings |= {f"WANDB_{k}_DIR": str(place / k) for k in ("CACHE", "DATA", "CONFIG")}
    for key, value in settings.items():
        monkeypatch.setenv(key, value)
    session(place / "faulty", planted.swapped_head())
    (place / "faultlens-gate.yaml").write_text("session: faulty/session\naccuracy: {min: 0.9}\n")
    names = run("guide/pipeline.md")
    assert "plane -> ship" in capsys.readouterr().out
    assert set(names["ships"].names) <= set(names["wrong"].names)
    assert (place / "found" / "index.html").is_file()
    assert names["gate"].status == "failed"
    for folder in ("mlruns", "wandb", "runs/nightly"):
        assert any((place / folder).iterdir())


def test_concepts(place):
    made = session(place / "made", planted.blind_encoder("sails", "wings", "fur", "road"))
    made.folder.rename(place / "out")
    names = run("guide/concepts.md")
    assert names["found"].n_candidates > 20


def test_scale(place):
    """With as many pictures as there are, and the model's own sizes."""
    planted.save_onnx(planted.healthy(), place / "net.onnx")
    planted.save_folder(place / "photos", n=12)
    (block,) = (b for b in blocks(DOCS / "scale.md") if b.language == "python")
    code = block.code
    changes = {
        "50_000": "12", "(512,": "(12,", "(10,": f"({len(planted.CLASSES)},",
        "n_workers=4": "n_workers=2",
    }  # fmt: skip
    for written, here in changes.items():
        assert written in code
        code = code.replace(written, here)
    (place / "extract.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "extract.py"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    manifest = json.loads((place / "runs" / "model" / "manifest.json").read_text())
    assert "12" in json.dumps(manifest)


def parse(words):
    """Read a command as the command line does, without running it.

    What an ellipsis stands for may be an option that is needed.
    """
    command, context, left = typer.main.get_command(app), None, list(words)
    is_partial = ELLIPSIS in left
    left = [w for w in left if w != ELLIPSIS]
    name = "faultlens"
    while True:
        try:
            context = command.make_context(name, left, parent=context)
        except Exception as error:
            if is_partial and type(error).__name__ == "MissingParameter":
                return
            raise
        if not hasattr(command, "resolve_command"):
            return
        left = [*context._protected_args, *context.args]
        name, command, left = command.resolve_command(context, left)


CALLS = [(page, words) for page in PAGES for words in commands(page)]


@pytest.mark.parametrize(
    ("page", "words"),
    CALLS,
    ids=[f"{p.stem}-{' '.join(w[:2])}-{i}" for i, (p, w) in enumerate(CALLS)],
)
def test_every_command_and_its_options_exist(page, words):
    parse(words)


def test_commands_are_found_on_every_page_that_has_some():
    shown = {p.name for p, _ in CALLS}
    assert len(CALLS) >= 60
    assert {"README.md", "pipeline.md", "models.md", "vlm.md", "concepts.md"} <= shown


@pytest.mark.parametrize(
    "words",
    [
        ["debgu", "--out", "x"],
        ["debug", "--imags", "x"],
        ["concepts", "sugest", "out"],
        ["find", "out"],
        ["gate", "g.yaml", "--judge", "x"],
    ],
)
def test_a_wrong_command_is_seen(words):
    with pytest.raises(Exception, match=r"(?i)no such|missing"):
        parse(words)


def test_settings_are_those_that_are_known():
    gates = [b.code for b in blocks(DOCS / "guide" / "pipeline.md") if b.language == "yaml"]
    assert len(gates) == 3
    for text in gates:
        GateConfig.parse(yaml.safe_load(text))
    (model,) = (b.code for b in blocks(DOCS / "guide" / "models.md") if b.language == "yaml")
    assert ModelDescription.from_mapping(yaml.safe_load(model), source="models.md").classes
