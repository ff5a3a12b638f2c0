"""Exported dual encoders: the original's numbers, without PyTorch."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

import tiny_clip
from faultlens.cli import app
from faultlens.errors import InputError, MissingDependencyError, ShapeError
from faultlens.vlm import clip_export, onnx_clip
from faultlens.vlm.backend import VlmBackend
from faultlens.vlm.load import load_vlm

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers", minversion="5")
pytestmark = pytest.mark.torch

SAVERS = {"clip": tiny_clip.save_clip, "siglip": tiny_clip.save_siglip}


@pytest.fixture(autouse=True)
def no_hub(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Of each kind the original backend, what the export said, and the exported backend."""
    found = {}
    for kind, save in SAVERS.items():
        root = tmp_path_factory.mktemp("export")
        original = load_vlm(f"clip:{save(root / kind)}")
        report = clip_export.export_clip(original, root / "onnx")
        found[kind] = (original, report, load_vlm(f"onnx-clip:{root / 'onnx'}"))
    return found


@pytest.fixture(params=SAVERS)
def kind(request):
    return request.param


@pytest.fixture
def folder(made, tmp_path):
    """A copy of the exported CLIP that a test may damage."""
    return shutil.copytree(made["clip"][1].folder, tmp_path / "onnx")


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_it_is_a_backend(made, kind):
    original, report, vlm = made[kind]
    assert isinstance(vlm, VlmBackend)
    assert vlm.name == f"onnx-clip:{kind}"
    assert vlm.dimension == original.dimension == report.dimension
    assert vlm.tensor_hashes == original.tensor_hashes
    assert (vlm.logit_scale, vlm.logit_bias) == (original.logit_scale, original.logit_bias)


def test_it_gives_the_numbers_of_the_original(made, kind):
    original, report, vlm = made[kind]
    assert report.difference < 1e-5
    pictures = tiny_clip.pictures(9, seed=3)
    here, there = (np.stack([v.prepare(p) for p in pictures]) for v in (original, vlm))
    assert np.allclose(here, there, atol=1e-5)
    images = [unit(v.encode(here)["embedding"]) for v in (original, vlm)]
    assert images[1].dtype == np.float32
    assert np.allclose(*images, atol=1e-5)
    texts = [*tiny_clip.TEXTS, "Fur", "  a photo  of fur "] * 12
    assert np.allclose(*(unit(v.encode_text(texts)) for v in (original, vlm)), atol=1e-5)


@pytest.mark.parametrize("n", [1, 2, 9])
def test_batches_of_any_length_give_the_same_rows(made, n):
    vlm = made["clip"][2]
    x = np.stack([vlm.prepare(p) for p in tiny_clip.pictures(9)])
    assert np.allclose(vlm.encode(x[:n])["embedding"], vlm.encode(x)["embedding"][:n], atol=1e-6)


def test_rows_are_filled_on_the_side_of_the_tokenizer(tmp_path):
    source = tiny_clip.save_siglip(tmp_path / "left")
    tiny_clip.edit_json(
        source / "tokenizer_config.json",
        padding_side="left", model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip
    original = load_vlm(f"clip:{source}")
    assert original.texts(["fur"])["attention_mask"].sum() == 2
    clip_export.export_clip(original, tmp_path / "onnx")
    vlm = load_vlm(f"onnx-clip:{tmp_path / 'onnx'}")
    texts = tiny_clip.TEXTS
    assert vlm.tokens(["fur"])["input_ids"][0, -2:].tolist() == [9, 1]
    assert np.allclose(*(unit(v.encode_text(texts)) for v in (original, vlm)), atol=1e-5)


def test_a_run_loads_neither_torch_nor_transformers(folder):
    code = (
        "import sys, numpy as np\n"
        "from PIL import Image\n"
        "from faultlens.vlm.load import load_vlm\n"
        f"vlm = load_vlm({f'onnx-clip:{folder}'!r})\n"
        "vlm.encode(vlm.prepare(Image.new('RGB', (40, 50)))[None])\n"
        "vlm.encode_text(['fur'])\n"
        "print([m for m in ('torch', 'transformers', 'torchvision') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_texts_are_refused_rather_than_cut(made):
    vlm = made["siglip"][2]
    with pytest.raises(InputError, match="text must have at most 24 tokens, got 25 in 'long"):
        vlm.encode_text(["fur", "long " * (tiny_clip.LENGTH - 1) + "fur"])
    with pytest.raises(InputError, match="text must have a word, got ''"):
        vlm.encode_text([""])


def test_wrong_batches_are_refused(made):
    vlm = made["clip"][2]
    with pytest.raises(ShapeError, match=r"batch must have axes \(N, C, H, W\)"):
        vlm.encode(np.zeros((3, 32, 32), np.float32))
    with pytest.raises(InputError, match=r"input must be one that onnx-clip:clip can take.*16, 16"):
        vlm.encode(np.zeros((1, 3, 16, 16), np.float32))


@pytest.mark.parametrize("file", ["image.onnx", "text.onnx", "tokenizer.json", "vlm.json"])
def test_a_missing_file_is_named(folder, file):
    (folder / file).unlink()
    with pytest.raises(InputError, match=rf"folder of onnx-clip must hold '{file}', got none"):
        load_vlm(f"onnx-clip:{folder}")


@pytest.mark.parametrize("file", ["image.onnx", "text.onnx", "tokenizer.json"])
def test_a_changed_file_is_named(folder, file):
    (folder / file).write_bytes((folder / file).read_bytes() + b" ")
    with pytest.raises(InputError, match=rf"{file} must be the file that 'vlm\.json' describes"):
        load_vlm(f"onnx-clip:{folder}")


def test_a_wrong_description_is_named(folder):
    tiny_clip.edit_json(folder / "vlm.json", format="faultlens-onnx-clip-9")
    with pytest.raises(InputError, match=r"vlm\.json: 'format' is wrong: .*export the model again"):
        load_vlm(f"onnx-clip:{folder}")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("onnx-clip", "vlm must be 'onnx-clip:FOLDER', got no folder"),
        ("onnx-clip:absent", "onnx-clip must be a folder, but 'absent' is none"),
    ],
)
def test_wrong_words_are_explained(spec, message):
    with pytest.raises(InputError, match=message):
        load_vlm(spec)


def test_a_missing_package_names_its_extra(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'faultlens\[onnx-clip\]'"):
        load_vlm(f"onnx-clip:{folder}")


def test_what_differs_is_not_written(made, tmp_path, monkeypatch):
    original = made["clip"][0]
    encode = onnx_clip.OnnxClipBackend.encode_text
    monkeypatch.setattr(
        onnx_clip.OnnxClipBackend, "encode_text", lambda self, texts: encode(self, texts) + 0.01
    )
    with pytest.raises(InputError, match="must give the same texts, got a difference of 0"):
        clip_export.export_clip(original, tmp_path / "onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_use_is_left_alone(made, tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(InputError, match="out must be a new or empty folder"):
        clip_export.export_clip(made["clip"][0], tmp_path)
    assert [f.name for f in tmp_path.iterdir()] == ["mine.txt"]


def test_pictures_of_any_shape_cannot_be_exported(tmp_path):
    original = load_vlm(f"clip:{tiny_clip.save_siglip2(tmp_path / 'naflex')}")
    with pytest.raises(InputError, match="takes patches of any shape; use clip:FOLDER as it is"):
        clip_export.export_clip(original, tmp_path / "onnx")


def test_the_command_writes_a_folder(made, tmp_path):
    out, source = tmp_path / "made" / "onnx", made["clip"][0].name
    done = CliRunner().invoke(app, ["export-vlm", source, "--out", str(out), "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["folder"], told["dimension"]) == (str(out), 12)
    assert told["bytes"] == sum(f.stat().st_size for f in out.iterdir())
    assert told["difference"] < 1e-5
    assert load_vlm(f"onnx-clip:{out}").content_hash == made["clip"][2].content_hash
    again = CliRunner().invoke(app, ["export-vlm", source, "--out", str(out)])
    assert again.exit_code == 2
    assert "out must be a new or empty folder" in again.stderr


def test_the_command_takes_checkpoints_only(tmp_path):
    done = CliRunner().invoke(app, ["export-vlm", "offline", "--out", str(tmp_path / "x")])
    assert done.exit_code == 2
    assert "vlm must be 'clip:FOLDER' or 'clip:ID' to be exported, got 'offline'" in done.stderr
