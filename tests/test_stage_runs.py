"""Stages in a run: the option, the store, features, and the claim."""

import json

import numpy as np
import pytest

import planted
from faultlens.claims.case import Case
from faultlens.claims.stages import stages as claim
from faultlens.concepts import ConceptFile, Vocabulary
from faultlens.config import RunConfig
from faultlens.errors import InputError
from faultlens.features import measure_features
from faultlens.files import save_arrays
from faultlens.localize.breaks import Break, Stages
from faultlens.localize.stages import Stage
from faultlens.measure import Extraction, measure_images
from faultlens.models.load import load_model

GIVEN = {"model": "onnx:net.onnx", "images": "p", "vlm": "demo", "concepts": "c", "out": "o"}


def test_stages_are_a_list_or_a_line():
    assert RunConfig(**GIVEN).stages is None
    assert RunConfig(**GIVEN, stages="a, b").stages == ("a", "b")
    assert RunConfig(**GIVEN, stages=["a", "b"]).stages == ("a", "b")
    assert RunConfig(**GIVEN, stages="auto").stages == ("auto",)


def test_features_bring_their_own():
    given = {"features": "f", "vlm": "demo", "concepts": "c", "out": "o", "stages": "a"}
    with pytest.raises(InputError, match="features bring arrays 'stage:NAME'"):
        RunConfig.parse(given, "test")


@pytest.fixture
def model(tmp_path):
    planted.save_onnx(planted.healthy(), tmp_path / "net.onnx")
    return load_model(f"onnx:{tmp_path / 'net.onnx'}")


def measure(model, folder, **settings):
    source = planted.source(60)
    images = (source, np.zeros(60, bool))
    return measure_images(model, planted.CellVlm(), images, folder, Extraction(**settings))


def test_stages_are_stored_with_the_embeddings(model, tmp_path):
    found = measure(model, tmp_path / "s", stages=("grey", "embedding")).measurements
    assert list(found.stages) == ["grey", "embedding"]
    np.testing.assert_allclose(found.stages["embedding"], found.embeddings, rtol=1e-5)
    assert found.stages["grey"].shape == (len(found.labels), 32)
    again = measure(model, tmp_path / "s", stages=("grey", "embedding")).measurements
    np.testing.assert_array_equal(again.stages["grey"], found.stages["grey"])


def test_a_run_with_and_one_without_stages_share_a_folder(model, tmp_path):
    without = measure(model, tmp_path / "s").measurements
    assert without.stages == {}
    with_stages = measure(model, tmp_path / "s", stages=("grey",)).measurements
    np.testing.assert_array_equal(with_stages.logits, without.logits)
    assert len(list((tmp_path / "s").glob("model-*"))) == 2


def test_an_unknown_stage_is_told_before_anything_runs(model, tmp_path):
    with pytest.raises(InputError, match="got 'gray'; did you mean 'grey'"):
        measure(model, tmp_path / "s", stages=("gray",))
    assert not (tmp_path / "s").exists()


def features(path, metadata, **more):
    classifier, vlm, source = planted.healthy(), planted.CellVlm(), planted.source(50)
    batch = np.stack([classifier.prepare(source.load(i)) for i in range(50)])
    arrays = {**classifier.encode(batch), "label": source.labels}
    arrays["vlm_embedding"] = vlm.encode(batch)["embedding"]
    names = {"class_names": json.dumps(planted.CLASSES)}
    save_arrays(path, {**arrays, **more}, names | metadata)
    return measure_features(path, vlm, limit=30)[0].measurements


def test_features_carry_stages_in_their_order(tmp_path):
    b, a = (np.arange(100, dtype=np.float32).reshape(50, 2) * k for k in (1, 2))
    more = {"stage:b": b, "stage:a": a}
    path = tmp_path / "f.safetensors"
    found = features(path, {"stages": json.dumps(["b", "a"])}, **more)
    assert list(found.stages) == ["b", "a"]
    np.testing.assert_array_equal(found.stages["a"], 2 * found.stages["b"])
    assert len(found.stages["a"]) == len(found.labels) == 30
    assert list(features(path, {}, **more).stages) == ["a", "b"]


def test_features_whose_stages_do_not_fit_are_refused(tmp_path):
    path = tmp_path / "f.safetensors"
    ones = np.ones((50, 2), np.float32)
    with pytest.raises(InputError, match=r"must name the arrays stage:NAME, got \['b'\]"):
        features(path, {"stages": '["b"]'}, **{"stage:a": ones})
    with pytest.raises(InputError, match="stage:a must have 50 rows, got 49"):
        features(path, {}, **{"stage:a": ones[:49]})
    with pytest.raises(InputError, match="unknown array 'stages:a'"):
        features(path, {}, **{"stages:a": ones})


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    from faultlens.analysis import analyse

    vlm = planted.CellVlm()
    file = ConceptFile.parse(planted.concepts_yaml())
    vocabulary = Vocabulary.build(file, planted.CLASSES, vlm.encode_text)
    images = (planted.source(300), np.zeros(300, bool))
    folder = tmp_path_factory.mktemp("case")
    m = measure_images(planted.swapped_head(), vlm, images, folder, Extraction()).measurements
    analysis = analyse(m, vocabulary, vlm.encode_text)
    return Case(analysis, planted.CLASSES, vocabulary.concepts)


def stage(name, accuracy):
    is_right = np.arange(100) < 100 * accuracy
    return Stage(name, 2, accuracy / 2, 0.8, is_right, np.ones(100), np.array([1.0, 3.0]), 0.0)


def measured(found):
    return Stages((stage("stage1", 0.4), stage("stage2", 0.9)), 0.3, found, 100)


def test_no_break_no_claim(case):
    assert claim(case, None) == []
    assert claim(case, measured(None)) == []


def test_the_claim_names_the_stage_and_shows_the_table(case):
    found = Break(1, "channels", np.log(4), np.log(1.2), 0.6, (0.5, 0.7), 1e-9)
    (finding,) = claim(case, measured(found))
    assert (finding.id, finding.kind, finding.subject) == (
        "stage", "localization.encoder", "stage2",
    )  # fmt: skip
    assert finding.claim == (
        "The encoder breaks at stage2: the sizes of its channels differ by a factor of 4.0, "
        "against a factor of 1.2 before it. The network is right on 30 % of the images; a linear "
        "probe of its stages would be on 90 %."
    )
    assert [row["probe_accuracy"] for row in finding.evidence["stages"]] == [0.4, 0.9]
    assert finding.evidence["sign"] == "channels"
    assert json.dumps(finding.to_json())


@pytest.mark.parametrize(
    ("sign", "value", "usual", "words"),
    [
        ("twin", 0.7, 0.0, "differ from the healthy twin's by a factor of 2.0"),
        ("dead", 0.5, 0.0, "50 % of its channels never change, against 0 % before it"),
        ("scale", 20.0, 1.0, "its activations are 20 times larger than those before it"),
        ("scale", 0.1, 1.0, "its activations are 10 times smaller than those before it"),
        ("information", 0.3, 0.5, "reads the class off it in 30 % of the images, against 50 %"),
        ("map", 0.03, 0.22, "R² 0.03 against 0.22 before it"),
    ],
)
def test_every_sign_has_its_words(case, sign, value, usual, words):
    (finding,) = claim(case, measured(Break(1, sign, value, usual, 0.6, (0.5, 0.7), 1e-9)))
    assert words in finding.claim


def test_the_first_stage_may_not_be_where_it_began(case):
    found = Break(0, "channels", 1.0, float("nan"), 0.6, (0.5, 0.7), 1e-9)
    (finding,) = claim(case, measured(found))
    assert "breaks at stage1, the first one watched, or before it" in finding.claim
    assert finding.evidence["usual"] is None
