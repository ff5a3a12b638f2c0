import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

import planted
from faultlens import files
from faultlens.concepts import ConceptFile
from faultlens.data.images import ImageSource
from faultlens.errors import InputError, InsufficientDataError, StoreError
from faultlens.heatmaps import DifferentialHeatmap
from faultlens.session import DebugSession, as_json


def run(model, out, n=600, vlm=None, source=None, **settings):
    return DebugSession.run(
        model,
        images=source or planted.source(n),
        vlm=vlm or planted.CellVlm(),
        concepts=ConceptFile.parse(planted.concepts_yaml()),
        out=out,
        **settings,
    )


def faults(session):
    return [f for f in session.findings if f.severity == "fault"]


@pytest.fixture(scope="module")
def swapped(tmp_path_factory):
    return run(planted.swapped_head(), tmp_path_factory.mktemp("swapped"))


def test_a_healthy_classifier_is_clean(tmp_path):
    session = run(planted.healthy(), tmp_path)
    assert faults(session) == []
    assert session.status == "clean"
    assert session.exit_code == 0
    assert "nothing stands out" in session.headline


@pytest.mark.parametrize("seed", range(8))
def test_a_healthy_classifier_stays_clean_on_other_images(tmp_path, seed):
    session = run(planted.healthy(seed), tmp_path, source=planted.source(500, seed=100 + seed))
    assert faults(session) == []


def test_swapped_head_rows_are_a_head_fault_of_these_classes(swapped):
    first = faults(swapped)[0]
    assert first.kind == "localization.head"
    assert set(first.evidence["classes"]) == {"ship", "plane"}
    assert first.interval[0] > 0.2
    assert swapped.numbers["head_share"] > 0.8
    assert swapped.exit_code == 1
    named = {c["concept"] for c in first.evidence["concepts"]}
    assert named & {"sails", "water", "wings", "sky"}
    assert all(c["view"] == "head" for c in first.evidence["concepts"])


def test_a_blind_encoder_is_an_encoder_fault_and_the_lost_concept_is_named(tmp_path):
    session = run(planted.blind_encoder("sails", "water", "fur"), tmp_path)
    first = faults(session)[0]
    assert first.kind == "localization.encoder"
    assert all(f.kind != "localization.head" for f in faults(session))
    lost = {
        c["concept"] for f in faults(session) for c in f.evidence["concepts"] if c["effect"] < 0
    }
    assert lost & {"sails", "water", "fur"}


def test_dead_dimensions_are_the_encoders_fault(tmp_path):
    model = planted.healthy()
    mix = model.mix.copy()
    mix[:4] = 0
    session = run(planted.CellClassifier(mix, model.head, name="dead"), tmp_path)
    found = next(f for f in faults(session) if f.id == "dead-dimensions")
    assert found.evidence["dimensions"] == [0, 1, 2, 3]
    assert all(f.kind != "localization.head" for f in faults(session))


def test_wrong_labels_are_listed(tmp_path):
    pixels, labels = planted.draw(600, noise=0.08)
    wrong = np.arange(0, 600, 60)
    given = labels.copy()
    given[wrong] = (labels[wrong] + 1) % 5
    source = ImageSource.from_arrays(pixels, given, planted.CLASSES)
    session = run(planted.healthy(), tmp_path, source=source)
    found = next(f for f in session.findings if f.kind == "data.labels")
    assert found.severity == "notice"
    listed = set(found.evidence["images"])
    assert len(listed & set(wrong.tolist())) >= 8
    assert len(listed - set(wrong.tolist())) <= 1


def test_a_failing_subclass_is_named(tmp_path):
    pixels, labels = planted.draw(800)
    odd = (labels == planted.CLASSES.index("cat")) & (np.arange(800) % 3 == 0)
    other, drawn = planted.draw(4000, seed=5)
    pixels[odd] = other[drawn == planted.CLASSES.index("bird")][: odd.sum()]
    subclasses = ["sphynx" if o else ("tabby" if k == 2 else "") for o, k in zip(odd, labels)]  # noqa: B905
    source = ImageSource.from_arrays(pixels, labels, planted.CLASSES, subclasses=subclasses)
    session = run(planted.healthy(), tmp_path, source=source)
    found = next(f for f in faults(session) if f.subject.startswith("sphynx"))
    assert found.statistic > 0.7
    assert "called bird" in found.claim


def test_a_blind_vlm_says_unknown_and_blames_no_one(tmp_path):
    session = run(planted.swapped_head(), tmp_path, vlm=planted.CellVlm(blind=True))
    assert session.status == "unknown"
    assert session.exit_code == 3
    assert any(f.id == "vlm-invalid" for f in session.findings)
    assert all(not f.evidence["concepts"] for f in faults(session))


def test_a_shared_encoder_proves_nothing(tmp_path):
    vlm = planted.CellVlm(tensor_hashes=frozenset({"mix"}))
    session = run(planted.healthy(), tmp_path, vlm=vlm)
    assert any("proves nothing" in f.claim for f in session.findings)


def test_preprocessing_that_was_taken_from_a_record_is_told_and_stored(tmp_path):
    model = replace(planted.healthy(), preprocessing=planted.PLAIN.taken_from("a library's record"))
    session = run(model, tmp_path, n=200)
    told = [f.claim for f in session.findings if f.kind == "run.warning"]
    assert told == [
        "The preprocessing is a library's record: resize none, no crop, mean 0 0 0, std 1 1 1."
    ]
    facts = session.info["facts"]["model"]
    assert facts["preprocessing_from"] == "a library's record"
    assert facts["preprocessing"]["std"] == [1, 1, 1]


def test_too_few_images_end_as_insufficient(tmp_path):
    with pytest.raises(InsufficientDataError, match="at least 30"):
        run(planted.healthy(), tmp_path, n=20)


def test_a_reference_split_is_fitted_on_and_never_reported(tmp_path):
    splits = ["test" if i % 2 else "train" for i in range(800)]
    source = planted.source(800, splits=splits)
    session = run(planted.healthy(), tmp_path, source=source, split="test", reference_split="train")
    assert session.numbers["n_images"] == 400
    assert session.info["fit"]["n_fits"] == 1
    assert {int(r["name"][6:-1]) % 2 for r in session.images} == {1}
    assert any("training split" in f.claim for f in session.findings)


def test_splits_must_be_named(tmp_path):
    source = planted.source(100, splits=["train", "test"] * 50)
    with pytest.raises(InputError, match="split must be one of test, train, got none"):
        run(planted.healthy(), tmp_path, source=source)
    with pytest.raises(InputError, match="tset"):
        run(planted.healthy(), tmp_path, source=source, split="tset")


def test_reference_images_that_repeat_analysed_ones_are_left_out(tmp_path):
    pixels, labels = planted.draw(400)
    pixels, labels = np.concatenate([pixels, pixels[:40]]), np.concatenate([labels, labels[:40]])
    splits = ["test" if i < 200 or i >= 400 else "val" for i in range(440)]
    pixels[400:] = pixels[200:240]
    labels[400:] = labels[200:240]
    source = ImageSource.from_arrays(pixels, labels, planted.CLASSES, splits=splits)
    session = run(planted.healthy(), tmp_path, source=source, split="test", reference_split="val")
    assert any("near-duplicates of analysed" in f.claim for f in session.findings)


def test_a_second_run_computes_no_embedding_again(tmp_path):
    model = planted.healthy()
    first = run(model, tmp_path)
    done, stored = len(model.n_encoded), sorted(tmp_path.rglob("shard-*.safetensors"))
    before = [path.stat().st_mtime_ns for path in stored]
    second = run(model, tmp_path)
    assert [path.stat().st_mtime_ns for path in stored] == before
    # What is asked again of changed pictures is asked anew; no picture itself is.
    assert sum(model.n_encoded[:done]) - sum(model.n_encoded[done:]) == len(first.images)
    assert [f.to_json() for f in second.findings] == [f.to_json() for f in first.findings]
    assert second.info["files"] == first.info["files"]


def test_results_do_not_depend_on_the_order_of_images(tmp_path):
    source = planted.source(500)
    order = np.random.default_rng(0).permutation(500)
    a = run(planted.swapped_head(), tmp_path / "a", source=source)
    b = run(planted.swapped_head(), tmp_path / "b", source=source.select(order))
    verdicts = [{r["name"]: r["verdict"] for r in s.images} for s in (a, b)]
    same = np.mean([verdicts[0][k] == verdicts[1][k] for k in verdicts[0]])
    assert same > 0.99
    assert [f.id for f in a.findings] == [f.id for f in b.findings]


def test_opening_gives_back_what_the_run_gave(swapped):
    opened = DebugSession.open(swapped.folder)
    assert opened.findings == swapped.findings
    assert opened.heatmap("ground-truth", "ship").n == swapped.heatmap("ground-truth", "ship").n
    delta = opened.heatmap("differential", "ship", source="vlm")
    assert isinstance(delta, DifferentialHeatmap)
    with pytest.raises(InputError, match="did you mean 'ship'"):
        opened.heatmap(cls="shp")
    with pytest.raises(InputError, match="kind must be one of"):
        opened.heatmap(kind="differental")
    with pytest.raises(InputError, match="source must be"):
        opened.heatmap(source="clip")


@pytest.mark.parametrize(
    "name",
    [
        "findings.json", "heatmaps.safetensors", "alignment.safetensors", "concepts.json",
        "images.json", "strengths.safetensors", "report.html",
    ],
)  # fmt: skip
def test_a_damaged_or_missing_file_is_named(swapped, name):
    path = swapped.folder / name
    data = path.read_bytes()
    try:
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        with pytest.raises(StoreError, match=rf"{name}.*damaged; run 'faultlens debug'"):
            DebugSession.open(swapped.folder)
        path.unlink()
        with pytest.raises(StoreError, match=rf"{name}.*missing; run 'faultlens debug'"):
            DebugSession.open(swapped.folder)
    finally:
        path.write_bytes(data)


def test_a_folder_with_other_files_is_not_touched(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(InputError, match="must be empty or an earlier session"):
        run(planted.healthy(), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_explain_a_known_image(swapped):
    row = next(r for r in swapped.images if r["verdict"] == "head" and r["label"] == "ship")
    explained = swapped.explain(row["name"])
    assert explained.prediction == "plane"
    assert explained.label == "ship"
    assert explained.verdict == "head"
    assert next(iter(explained.strengths)) in {"sails", "water"}
    assert {p.stronger for p in explained.contradictions} & {"sails", "water"}


def test_explain_a_new_picture(swapped, tmp_path):
    source = planted.source(3, seed=77)
    path = tmp_path / "new.png"
    source.load(0).save(path)
    explained = swapped.explain(path, planted.swapped_head())
    assert explained.label is None
    assert explained.verdict is None
    assert explained.prediction in planted.CLASSES
    assert -1 <= (explained.similarity_correct or 0) <= 1
    with pytest.raises(InputError, match="model must be given"):
        swapped.explain(path)
    with pytest.raises(InputError, match="image must be one of the run or a file"):
        swapped.explain("array[99999]")


def test_explaining_a_new_picture_agrees_with_the_run(swapped, tmp_path):
    path = tmp_path / "again.png"
    planted.source(600).load(5).save(path)
    new = swapped.explain(path, planted.swapped_head())
    known = swapped.explain("array[5]")
    assert new.prediction == known.prediction
    assert new.confidence == pytest.approx(known.confidence, abs=1e-5)
    for concept, value in known.strengths.items():
        assert new.strengths[concept] == pytest.approx(value, abs=0.05)


def test_json_holds_only_json(swapped):
    text = json.dumps(as_json(swapped), allow_nan=False)
    assert json.loads(text)["exit_code"] == 1
    for name in ("session.json", "findings.json", "concepts.json", "images.json"):
        json.dumps(files.read_json(swapped.folder / name), allow_nan=False)


def test_no_claim_names_an_invalid_concept(tmp_path):
    concepts = planted.concepts_yaml()
    concepts["concepts"].append("melancholy")
    concepts["classes"]["cat"]["relevant"].append("melancholy")
    session = DebugSession.run(
        planted.swapped_head(), images=planted.source(500), vlm=planted.CellVlm(),
        concepts=ConceptFile.parse(concepts), out=tmp_path,
    )  # fmt: skip
    assert 8 not in session.valid_concepts
    for f in session.findings:
        if f.kind != "validity.concepts":
            assert all(c["concept"] != "melancholy" for c in f.evidence.get("concepts", []))
            assert "melancholy" not in f.claim


def test_the_run_is_reproducible_in_another_process(swapped, tmp_path):
    code = (
        "import sys; sys.path.insert(0, sys.argv[2]); import planted\n"
        "from faultlens.session import DebugSession\n"
        "from faultlens.concepts import ConceptFile\n"
        "DebugSession.run(planted.swapped_head(), images=planted.source(600),\n"
        "    vlm=planted.CellVlm(), concepts=ConceptFile.parse(planted.concepts_yaml()),\n"
        "    out=sys.argv[1])\n"
    )
    here = str(planted.__file__).rsplit("/", 1)[0]
    subprocess.run([sys.executable, "-c", code, str(tmp_path), here], check=True)
    again = DebugSession.open(tmp_path)
    assert [f.id for f in again.findings] == [f.id for f in swapped.findings]
    for name in ("images.json", "findings.json"):
        assert again.info["files"][name] == swapped.info["files"][name]
