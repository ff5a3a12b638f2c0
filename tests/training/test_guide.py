"""The guide's examples, as they stand there."""

import os
import re
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore"),  # those of the frameworks themselves
]

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guide" / "training.md"
TEXT = GUIDE.read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_BACKEND", os.environ.get("KERAS_BACKEND", "torch"))


def block(word):
    (found,) = (b for b in BLOCKS if word in b)
    return found


def run(code, capsys):
    exec(compile(code, str(GUIDE), "exec"), {"__name__": "guide"})
    return capsys.readouterr().out


def test_a_pytorch_loop_is_watched_and_its_repair_is_proved(capsys):
    claim = run(block("with watch("), capsys).strip()
    assert f"`{claim}`" in TEXT
    again = block("verify_repair(diagnose(")
    assert run(again, capsys) == "True ()\n"
    assert run(again + block("keep_start()"), capsys) == "True ()\nTrue\n"


@pytest.mark.parametrize(
    ("package", "word", "n_steps"),
    [
        ("keras", "keras.Sequential", 9),
        ("lightning", "pl.Trainer", 9),
        ("transformers", "transformers.Trainer(", 6),
    ],
)
def test_each_framework_is_watched(package, word, n_steps, capsys):
    pytest.importorskip(package)
    assert run(block(word), capsys).splitlines()[-1] == f"{package} {n_steps} []"


def test_no_example_is_left_out():
    assert len(BLOCKS) == 6
