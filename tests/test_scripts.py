"""The scripts that train what the demo ships, at a tiny scale."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from faultlens.concepts import ConceptFile, Vocabulary, zero_shot
from faultlens.data.world.dataset import render_all
from faultlens.data.world.names import BACKGROUNDS, CLASSES
from faultlens.data.world.scene import scenes
from faultlens.models.load import load_model
from faultlens.vlm.demo import OnnxDualEncoder

ROOT = Path(__file__).resolve().parents[1]
ASSETS = ROOT / "src" / "faultlens" / "assets"
pytestmark = pytest.mark.torch


def run(script: str, *arguments: str) -> str:
    pytest.importorskip("torch")
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / script, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "2"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_the_vision_language_model_is_trained_and_saved(tmp_path):
    run("train_vlm.py", "--out", str(tmp_path), "--images", "1500", "--epochs", "8",
        "--width", "8", "--batch-size", "64")  # fmt: skip
    vlm = OnnxDualEncoder(tmp_path, "tiny")
    shipped = ASSETS / "demo-vlm" / "words.json"
    assert json.loads((tmp_path / "words.json").read_text()) == json.loads(shipped.read_text())
    drawings = render_all(list(scenes(300, seed=8)))
    source = drawings.source()
    v = vlm.encode(np.stack([vlm.prepare(source.load(i)) for i in range(300)]))["embedding"]
    file = ConceptFile.parse({"concepts": list(BACKGROUNDS)})
    vocabulary = Vocabulary.build(file, CLASSES, vlm.encode_text)
    truth = [BACKGROUNDS.index(s.background) for s in drawings.scenes]
    share = (zero_shot(v, vocabulary.directions) == truth).mean()
    assert share > 0.3  # chance is 1/6


def test_the_classifiers_are_trained_and_saved(tmp_path):
    printed = run("train_classifiers.py", "--out", str(tmp_path), "--images", "1200",
                  "--test-images", "300", "--epochs", "4", "--width", "8")  # fmt: skip
    told = {k: v for line in printed.splitlines() if line.startswith("{")
            for k, v in json.loads(line).items()}  # fmt: skip
    assert set(told) == {"healthy", "faulty"}
    for name, accuracy in told.items():
        assert accuracy["overall"] > 0.2  # chance is 0.1
        model = load_model(f"onnx:{tmp_path / name}.onnx")
        assert model.class_names == CLASSES
    assert told["faulty"]["ships off the water"] < 0.5 * told["faulty"]["all else"]
