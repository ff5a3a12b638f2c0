"""The case study, as a user runs it, on drawn pictures saved in RIVAL10's layout."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from faultlens.concepts import ConceptFile
from faultlens.config import RunConfig
from faultlens.data.images import open_images
from faultlens.data.world.dataset import render_all
from faultlens.data.world.names import CLASSES
from faultlens.data.world.scene import scenes
from faultlens.models.description import ModelDescription
from faultlens.packs import pack_path
from faultlens.session import DebugSession
from faultlens.spec import parse
from faultlens.suggesting import suggest
from faultlens.vlm.load import load_vlm
from faultlens.vlm_again import see_again

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "examples" / "rival10"
STAND_INS = ROOT / "tests" / "stand_ins"
N_TRAIN, N_TEST = 300, 400
#: A few of the example's, to verify quickly.
SPECS = """
spec truck_wheels: predict(truck) => wheels > ears;
spec best: forall k in {truck, bird}: predict(k) => max relevant(k) > max irrelevant(k);
"""

pytestmark = pytest.mark.torch


def save_as_rival10(root, n_train, n_test, seed):
    """Save ConceptWorld as RIVAL10 is published: pictures, attribute labels, mappings."""
    drawn = render_all(list(scenes(n_train + n_test, seed)))
    for i, (pixels, label, shown) in enumerate(
        zip(drawn.pixels, drawn.labels, drawn.attributes, strict=True)
    ):
        folder = root / ("train" if i < n_train else "test") / "ordinary"
        folder.mkdir(parents=True, exist_ok=True)
        stem = folder / f"n{label:08d}_{i}"
        Image.fromarray(pixels).save(f"{stem}.JPEG", "JPEG", quality=95, subsampling=0)
        np.save(f"{stem}_attr_labels.npy", np.stack([shown, shown]).astype(float))
    meta = root / "meta"
    meta.mkdir()
    wnids = {f"n{k:08d}": f"drawn {name}" for k, name in enumerate(CLASSES)}
    mappings = {f"drawn {name}": [name, k] for k, name in enumerate(CLASSES)}
    (meta / "wnid_to_class.json").write_text(json.dumps(wnids))
    (meta / "label_mappings.json").write_text(json.dumps(mappings))


@pytest.fixture(scope="module")
def run():
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    spec = importlib.util.spec_from_file_location("rival10_study", EXAMPLE / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.fixture(scope="module")
def out(run, tmp_path_factory):
    if not (STAND_INS / "clip" / "model.safetensors").is_file():
        pytest.skip("needs what scripts/train_rival10_stand_ins.py writes to tests/stand_ins")
    folder = tmp_path_factory.mktemp("rival10")
    save_as_rival10(folder / "RIVAL10", N_TRAIN, N_TEST, seed=77)
    config = yaml.safe_load((EXAMPLE / "faultlens.yaml").read_text(encoding="utf-8"))
    config |= {"model": f"hf:{STAND_INS / 'resnet'}", "vlm": f"clip:{STAND_INS / 'clip'}"}
    for key in ("weights", "preprocess"):
        del config[key]
    (folder / "faultlens.yaml").write_text(yaml.safe_dump(config))
    (folder / "few.con").write_text(SPECS)
    arguments = ["--specs", str(folder / "few.con"), "--timeout", "2", "--attacked", "24"]
    assert run([str(folder / "faultlens.yaml"), *arguments, "--quiet"]) == 0
    return folder / "results"


@pytest.fixture(scope="module")
def study(out):
    return json.loads((out / "study" / "study.json").read_text())


def test_the_stand_ins_know_the_pictures(study):
    numbers = study["Overall"]["numbers"]
    assert numbers["n_images"] == N_TEST
    assert 0.6 < numbers["accuracy"] < 0.99
    assert numbers["accuracy_vlm"] > 0.5
    assert numbers["n_valid_concepts"] >= 4


def test_heatmaps_of_every_class_are_written_and_mirror_themselves(out):
    concepts = list(ConceptFile.read(pack_path("rival10")).concepts)
    for name in CLASSES:
        lines = (out / "study" / "heatmaps" / f"{name}-correct.csv").read_text().splitlines()
        assert lines[0].split(",")[1:] == concepts
        h = np.array([[float(v) for v in line.split(",")[1:]] for line in lines[1:]])
        off = ~np.eye(len(h), dtype=bool)
        assert (h + h.T)[off] == pytest.approx(1, abs=2e-4)
        assert (out / "study" / "heatmaps" / f"{name}-differential.csv").is_file()


def test_every_wrong_prediction_is_put_down_to_one_part(out, study):
    wrong = study["Overall"]["numbers"]["n_errors"]
    counts = study["Localization"]["classes"]
    modules = ("encoder", "head", "data", "unknown")
    assert sum(counts["all"][m] for m in modules) == wrong
    for m in modules:
        assert sum(counts[name][m] for name in CLASSES) == counts["all"][m]


def test_both_models_are_asked_about_the_specifications_and_the_head_is_verified(study):
    checked = {s["name"]: s for s in study["Specifications on images"]["specs"]}
    assert set(checked) == {"truck_wheels", "best[k=truck]", "best[k=bird]"}
    assert len(checked["truck_wheels"]["results"]) == 2
    verified = study["Specifications over regions"]["counts"]
    assert sum(verified.values()) == len(checked)


def test_the_monitor_is_asked_about_wrong_and_about_adversarial_inputs(study):
    found = study["Detection of wrong predictions"]
    assert not found["is_refitted"]  # fitted on train, asked about test
    attacked = study["Detection of adversarial inputs"]
    rates = attacked["rates"]
    assert rates["attacks that fool the classifier"]["of"] == 24
    assert rates["attacks that fool the classifier"]["share"] > 0.3
    assert rates["fooling attacks rejected"]["of"] == rates["attacks that fool the classifier"]["n"]
    assert 0 <= attacked["auroc"] <= 1


def test_the_tables_are_written_for_people_too(out):
    text = (out / "study" / "study.md").read_text(encoding="utf-8")
    for title in (
        "Overall", "Differential heatmaps", "Localization", "Specifications on images",
        "Specifications over regions", "Detection of wrong predictions",
        "Detection of adversarial inputs",
    ):  # fmt: skip
        assert f"## {title}\n" in text
    assert "| best[k=truck] |" in text


def test_the_examples_specifications_speak_of_what_the_session_knows(out):
    report = DebugSession.open(out).check(EXAMPLE / "rival10.con")
    names = {s["name"] for s in report.document["specs"]}
    assert len(names) == 12 + len(CLASSES)
    assert report.status != "ERROR"


def test_concepts_are_suggested_for_a_session_with_a_reference_split(out):
    """The embeddings of the analysed images are found among those of all images."""
    session = DebugSession.open(out)
    vlm = load_vlm(session.info["config"]["vlm"])
    seen = see_again(session)
    source = open_images(session.info["config"]["images"])
    picture = source.load(source.names.index(session.images[7]["name"]))
    expected = vlm.encode(vlm.prepare(picture)[None])["embedding"][0]
    assert seen.embeddings[7] == pytest.approx(expected, abs=1e-3)
    found = suggest(session, "spurious", n=5)
    assert len(found.suggestions) == 5
    assert found.n_candidates == 68
    assert found.n_wrong + found.n_right + found.n_ranking <= N_TEST


def test_a_mistake_is_one_line(run, tmp_path, capsys):
    (tmp_path / "c.yaml").write_text("{images: rival10:absent, model: hf:./absent, vlm: demo, "
                                     "concepts: rival10, out: out}")  # fmt: skip
    assert run([str(tmp_path / "c.yaml"), "--quiet"]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_the_shipped_configuration_is_one_of_faultlens_debug():
    config = RunConfig.read(EXAMPLE / "faultlens.yaml")
    assert config.images == f"rival10:{EXAMPLE / 'RIVAL10'}"
    assert str(config.concepts) == "rival10"
    assert (config.split, config.reference_split) == ("test", "train")
    assert ModelDescription.read(config.preprocess).classes == CLASSES
    assert len(parse.read(EXAMPLE / "rival10.con").statements) == 13
