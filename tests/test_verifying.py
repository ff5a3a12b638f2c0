import json

import numpy as np
import pytest

import planted
from faultlens import signals
from faultlens.concepts import ConceptFile
from faultlens.errors import InputError, SpecError, SpecSyntaxError
from faultlens.session import DebugSession
from faultlens.spec.formula import holds
from faultlens.spec.parse import parse
from faultlens.verifying import Settings, verify


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    return DebugSession.run(
        planted.healthy(),
        images=planted.source(900),
        vlm=planted.CellVlm(),
        concepts=ConceptFile.parse(planted.concepts_yaml()),
        out=tmp_path_factory.mktemp("out"),
    )


def run(session, text, settings=None, **changed):
    return verify(session, parse(text), settings, model=planted.healthy(), **changed)


def entry(report, name="s"):
    return next(s for s in report.document["specs"] if s["name"] == name)


def test_what_slabs_were_shaped_by_is_proved_where_most_images_are(session):
    report = run(session, "region R = slabs(coverage=.8); spec s on R(cat): fur > water;")
    found = entry(report)
    assert (found["verdict"], found["outcome"], report.exit_code) == ("PROVED", "passed", 0)
    (case,) = found["regions"]
    assert case["class"] == "cat"
    assert case["slack"] > 0
    coverage = case["coverage"]
    heldout = [r for r in session.images if r["label"] == "cat" and r["fit"] in (1, 3)]
    assert coverage["n"] == sum(r["prediction"] == "cat" for r in heldout)
    assert coverage["n_inside"] / coverage["n"] > 0.6
    assert coverage["interval"][0] < coverage["n_inside"] / coverage["n"]
    assert not coverage["is_low"]
    assert report.remarks == ()
    star = case["gamma_star"]
    assert star["gamma"] > 0
    assert star["coverage"]["n_inside"] > coverage["n_inside"] / 2


def test_a_proof_over_a_region_without_images_says_so(session):
    report = run(session, "region B = box(gamma=.05); spec s on B(cat): fur > water;")
    assert entry(report)["verdict"] == "PROVED"
    assert entry(report)["regions"][0]["coverage"]["is_low"]
    assert "LOW-COVERAGE: s: proved over regions that surely hold fewer" in report.remarks[0]
    assert "LOW-COVERAGE" in report.markdown


def test_a_refutation_names_the_nearest_image(session):
    report = run(session, "region B = box(gamma=3); spec s on B(cat): water > fur;")
    (case,) = entry(report)["regions"]
    assert (case["verdict"], report.exit_code) == ("REFUTED", 1)
    assert 0 < (case["gamma_star"]["gamma"] or 1e-9) < 3
    assert case["witness"]["image"] in {row["name"] for row in session.images}
    found = signals.of(session)
    row = [r["name"] for r in session.images].index(case["witness"]["image"])
    if case["witness"]["kind"] != "SYNTHETIC":
        readout = signals.readout(session, planted.healthy().head)
        z = found.rows.embeddings[row]
        strengths = readout.concept_rows @ z + readout.concept_offsets
        c = planted.CONCEPTS.index
        assert strengths[c("water")] <= strengths[c("fur")]


def test_without_a_region_every_class_gets_one(session):
    report = run(session, "spec s: predict(ship) => not predict(cat);")
    found = entry(report)
    assert [c["class"] for c in found["regions"]] == list(session.classes)
    assert found["region"] == "slabs(coverage=0.9)"
    assert found["verdict"] == "PROVED"
    star = run(
        session, "region R = box(gamma=.5); spec s on R(*): predict(ship) or not predict(ship);"
    )
    assert len(entry(star)["regions"]) == len(session.classes)


def test_the_default_region_can_be_chosen_and_is_checked(session):
    report = run(session, "spec s: fur > water or water >= fur;", Settings(region="box(gamma=0.5)"))
    assert entry(report)["region"] == "box(gamma=0.5)"
    with pytest.raises(InputError, match="boxx"):
        run(session, "spec s: fur > water;", Settings(region="boxx(gamma=1)"))
    with pytest.raises(SpecSyntaxError, match="--region:1:"):
        run(session, "spec s: fur > water;", Settings(region="box(gamma="))
    with pytest.raises(InputError, match="one region"):
        run(session, "spec s: fur > water;", Settings(region="nonneg; spec x: true"))
    with pytest.raises(InputError, match="timeout must be above 0"):
        Settings(timeout_s=0)


def test_a_hypothesis_that_holds_nowhere_is_vacuous(session):
    text = (
        "region B = box(gamma=.05); "
        "spec s on B(cat) given predict(ship): fur > water; "
        "spec expected on B(cat) given predict(ship) expect vacuous: fur > water;"
    )
    report = run(session, text)
    assert entry(report)["verdict"] == "VACUOUS"
    assert entry(report)["regions"][0]["reason"] == "antecedent unsatisfiable"
    assert entry(report)["outcome"] == "unknown"
    assert entry(report, "expected")["outcome"] == "passed"
    assert report.exit_code == 3


def test_what_is_expected_to_be_refuted_passes(session):
    report = run(session, "region B = box(gamma=3); spec s on B(cat) expect refuted: water > fur;")
    assert (report.status, report.exit_code) == ("REFUTED", 0)


def test_too_few_images_are_unknown_with_the_reason(session):
    report = run(session, "region R = slabs(coverage=.999); spec s on R(cat): fur > water;")
    (case,) = entry(report)["regions"]
    assert case["verdict"] == "UNKNOWN"
    assert "at least 1998 embeddings" in case["reason"]
    assert (case["coverage"], report.exit_code) == (None, 3)


def test_the_meaning_is_that_of_checking(session):
    """Strengths through `full` order concepts on images as those of the folds do."""
    found = signals.of(session)
    readout = signals.readout(session, planted.healthy().head)
    z = found.rows.embeddings.astype(np.float64)
    full = z @ readout.concept_rows.T + readout.concept_offsets
    logits = z @ readout.head_weights[0].T + readout.head_biases[0]
    assert np.allclose(logits, found.rows.logits, atol=1e-4)
    n_concepts = len(planted.CONCEPTS)
    (spec,) = signals.ground(session, "model", parse("spec s: fur > water;"), found.full)
    both = [holds(spec.goal, s) for s in (np.c_[full, logits], found.model.images.signals)]
    assert (both[0] == both[1]).mean() > 0.99
    assert np.abs(full - found.model.images.signals[:, :n_concepts]).mean() < 0.02 * full.std()


def test_the_observed_rate_stands_beside(session):
    text = "region R = slabs(coverage=.8); spec s on R(cat): hasCon(fur);"
    observed = entry(run(session, text))["observed"]
    checked = session.check(_saved(session, text)).document["specs"][0]["results"]["model"]
    assert {k: observed[k] for k in ("n", "n_holds")} == {k: checked[k] for k in ("n", "n_holds")}


def _saved(session, text):
    path = session.folder.parent / "saved.con"
    path.write_text(text)
    return path


def test_the_report_is_on_disk_and_the_session_whole(session):
    steps = []
    report = run(
        session, "spec s: predict(ship) => not predict(cat);",
        progress=lambda *step: steps.append(step),
    )  # fmt: skip
    assert json.loads(report.path.read_text()) == report.to_json()
    assert report.path == session.folder / "specs" / "verify.json"
    assert steps[-1] == ("verifying", 5, 5)
    assert DebugSession.open(session.folder).status == session.status


def test_the_session_verifies_a_file(session):
    path = _saved(session, "region R = slabs(coverage=.8); spec s on R(cat): fur > water;")
    report = session.verify(path, model=planted.healthy(), timeout_s=10)
    assert (report.status, report.document["file"]) == ("PROVED", str(path))
    with pytest.raises(InputError, match="another"):
        session.verify(path, model=planted.healthy(2))
    with pytest.raises(InputError, match="knows only its name"):
        session.verify(path)


def test_an_empty_file_is_told(session):
    with pytest.raises(SpecError, match="at least one specification"):
        run(session, "region R = nonneg;")
