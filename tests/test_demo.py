import json
import shlex
import shutil
from dataclasses import replace

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

import worldly
from faultlens import demo
from faultlens.alignment import normalize
from faultlens.cli import app
from faultlens.concepts import (
    CLASS_TEMPLATES,
    TEMPLATES,
    ConceptFile,
    Vocabulary,
    strengths,
    zero_shot,
)
from faultlens.data.world import captions
from faultlens.data.world.dataset import render_all
from faultlens.data.world.export import FACTS
from faultlens.data.world.names import ATTRIBUTES, BACKGROUNDS, CLASSES, FREQUENCIES
from faultlens.data.world.scene import scenes
from faultlens.errors import InputError
from faultlens.registry import VLMS
from faultlens.stats import auroc
from faultlens.validity import DECOYS, concept_validity
from faultlens.vlm.load import load_vlm

runner = CliRunner()
CONCEPTS = demo.ASSETS / "concepts.yaml"


@pytest.fixture(scope="module")
def assets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("assets")
    worldly.save_assets(folder)
    shutil.copy(CONCEPTS, folder)
    return folder


@pytest.fixture
def _stand_ins(assets, monkeypatch):
    monkeypatch.setattr(demo, "ASSETS", assets)
    monkeypatch.setitem(VLMS._table, "demo", "worldly:load")


def invoke(out, *more):
    options = ["--out", str(out), "--n", str(worldly.N), "--seed", str(worldly.SEED)]
    return runner.invoke(app, ["demo", *options, *more])


@pytest.mark.usefixtures("_stand_ins")
def test_stdout_tells_the_equivalent_command_then_the_result(tmp_path):
    result = invoke(tmp_path / "demo", "--quiet")
    assert result.exit_code == 1
    assert result.stderr == ""
    line = next(line for line in result.stdout.splitlines() if "faultlens debug" in line)
    assert result.stdout.index(line) < result.stdout.index("fault found")
    assert f"report: {tmp_path / 'demo' / 'session' / 'report.html'}" in result.stdout
    words = shlex.split(line)
    assert words[:2] == ["faultlens", "debug"]
    again = runner.invoke(app, [*words[1:-1], str(tmp_path / "mine"), "--json", "--quiet"])
    assert again.exit_code == 1
    findings = json.loads((tmp_path / "demo/session/findings.json").read_text())["findings"]
    assert json.loads(again.stdout)["findings"] == findings


@pytest.mark.usefixtures("_stand_ins")
def test_json_is_one_document_and_progress_stays_on_stderr(tmp_path):
    result = invoke(tmp_path / "demo", "--json")
    document = json.loads(result.stdout)
    assert document["exit_code"] == result.exit_code == 1
    assert document["command"].startswith("faultlens debug --model onnx:")
    assert document["folder"] == str(tmp_path / "demo" / "session")
    assert "drawing" in result.stderr
    assert "classifier" in result.stderr


@pytest.mark.usefixtures("_stand_ins")
def test_pictures_are_drawn_once_and_the_other_model_takes_the_session_over(tmp_path, monkeypatch):
    first = demo.run(tmp_path, "faulty", worldly.SEED, worldly.N)
    monkeypatch.setattr(demo, "export", None)  # a second drawing would fail
    steps = []
    second = demo.run(
        tmp_path, "healthy", worldly.SEED, worldly.N, lambda stage, *_: steps.append(stage)
    )
    assert "drawing" not in steps
    assert first.status == "fault"
    assert second.info["config"]["model"].endswith("healthy.onnx")
    assert second.numbers["accuracy"] > first.numbers["accuracy"]


@pytest.mark.usefixtures("_stand_ins")
def test_other_pictures_in_the_folder_are_left_alone(tmp_path):
    assert invoke(tmp_path, "--quiet", "--n", "40").exit_code in (0, 1, 3)
    result = invoke(tmp_path, "--quiet")
    assert result.exit_code == 2
    assert "must be a new or empty folder" in result.stderr.replace("\n", " ")
    assert len(list((tmp_path / "images").rglob("*.png"))) == 40


@pytest.mark.usefixtures("_stand_ins")
def test_a_wrong_model_is_one_clear_message(tmp_path):
    result = invoke(tmp_path / "demo", "--model", "fauly")
    assert result.exit_code == 2
    text = result.stderr.replace("\n", " ")
    assert "model must be 'faulty' or 'healthy', got 'fauly'; did you mean 'faulty'?" in text
    assert not (tmp_path / "demo").exists()


def test_a_missing_asset_is_named_before_anything_is_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "ASSETS", tmp_path)
    with pytest.raises(InputError, match=r"faulty.onnx must be there for the demo, but is missing"):
        demo.run(tmp_path / "demo")
    assert not (tmp_path / "demo").exists()


def test_concepts_are_the_attributes_and_nuisances_with_what_each_class_shows():
    file = ConceptFile.read(CONCEPTS)
    assert set(file.concepts) == set(FACTS) - {"mirrored"}
    assert tuple(file.classes) == CLASSES
    for label, entry in file.classes.items():
        usual = {a for a, share in FREQUENCIES[label].items() if share >= 0.65}
        assert set(entry.relevant) == usual
    assert yaml.safe_load(CONCEPTS.read_text()).keys() == {"concepts", "classes"}


def test_every_prompt_means_its_concept_to_the_captions():
    file = ConceptFile.read(CONCEPTS)
    by_name = {words[0]: fact for fact, words in captions.WORDS.items()}
    by_name |= {a: f"attribute:{a}" for a in ATTRIBUTES}
    for concept, entry in file.concepts.items():
        assert set(entry.prompts) <= set(captions.WORDS[by_name[concept]]), concept
        assert 2 <= len(entry.prompts) <= 4
    for label, entry in file.classes.items():
        assert set(entry.names) <= set(captions.WORDS[f"class:{label}"])
    known = set(captions.vocabulary_words())
    frames = " ".join((*TEMPLATES, *CLASS_TEMPLATES)).replace("{}", "").split()
    assert set(frames) <= known


@pytest.mark.parametrize("seed", [0, 31])
def test_the_faulty_model_is_told_by_its_planted_fault(tmp_path, seed):
    arguments = ["--out", str(tmp_path), "--n", "1500", "--seed", str(seed), "--json"]
    result = runner.invoke(app, ["demo", *arguments])
    assert result.exit_code == 1, result.output
    first = json.loads(result.stdout)["findings"][0]
    assert (first["kind"], first["subject"]) == ("localization.data", "ship")
    assert first["evidence"]["cue"] == "water"
    assert "takes water for ship" in (tmp_path / "session" / "report.html").read_text()


def test_the_healthy_model_has_no_fault(tmp_path):
    arguments = ["--out", str(tmp_path), "--n", "1500", "--model", "healthy", "--json"]
    result = runner.invoke(app, ["demo", *arguments])
    assert result.exit_code == 0, result.output
    assert not [f for f in json.loads(result.stdout)["findings"] if f["severity"] == "fault"]


@pytest.fixture(scope="module")
def seen():
    """Pictures, their truth, and what the shipped vision-language model makes of both."""
    vlm = load_vlm("demo")
    drawings = render_all(list(scenes(900, seed=77)))
    source = drawings.source()
    v = vlm.encode(np.stack([vlm.prepare(source.load(i)) for i in range(900)]))["embedding"]
    vocabulary = Vocabulary.build(ConceptFile.read(CONCEPTS), CLASSES, vlm.encode_text)
    return drawings, v, vocabulary, vlm.encode_text


def judged(seen, order):
    """Verdicts of the validity gate on attributes that bear each other's names."""
    drawings, v, vocabulary, encode_text = seen
    rows = [vocabulary.concepts.index(ATTRIBUTES[i]) for i in order]
    named = replace(
        vocabulary,
        concepts=ATTRIBUTES,
        directions=vocabulary.directions[rows],
        subset_directions=vocabulary.subset_directions[:, rows],
        relevant=vocabulary.relevant[:, rows],
    )
    truth = {a: drawings.attributes[:, i].astype(int) for i, a in enumerate(ATTRIBUTES)}
    r2 = np.ones(len(ATTRIBUTES))
    return concept_validity(v, drawings.labels, named, encode_text, r2, truth)


def test_all_attributes_pass_the_validity_gate(seen):
    failed = [c for c in judged(seen, range(18)) if not c.is_valid]
    assert failed == []


def test_attributes_under_wrong_names_fail_the_validity_gate(seen):
    order = np.random.default_rng(0).permutation(18)
    moved = order != np.arange(18)
    verdicts = np.array([c.is_valid for c in judged(seen, order)])
    assert moved.sum() >= 15
    assert verdicts[moved].mean() < 0.4


def test_the_vision_language_model_knows_classes_and_places(seen):
    drawings, v, vocabulary, _ = seen
    assert (zero_shot(v, vocabulary.class_directions) == drawings.labels).mean() >= 0.97
    for name in BACKGROUNDS:
        there = np.array([s.background == name for s in drawings.scenes])
        s = strengths(v, vocabulary.directions)[:, vocabulary.concepts.index(name)]
        assert auroc(s, there) >= 0.9


def test_an_unknown_word_is_told_with_its_neighbours():
    with pytest.raises(InputError, match=r"'wheel-chairs'|'chairs'"):
        load_vlm("demo").encode_text(["a photo of wheel-chairs"])
    with pytest.raises(InputError, match="did you mean 'watermark'"):
        load_vlm("demo").encode_text(["watermrk"])


def test_idle_words_tell_the_pictures_apart_less_than_any_concept(seen):
    _, v, vocabulary, encode_text = seen
    idle = strengths(v, normalize(encode_text(DECOYS))).std(axis=0)
    concepts = strengths(v, vocabulary.directions).std(axis=0)
    assert np.quantile(idle, 0.95) < concepts.min()
