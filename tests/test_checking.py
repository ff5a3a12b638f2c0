import json

import numpy as np
import pytest

import planted
from faultlens import signals
from faultlens.checking import check, write_initial
from faultlens.concepts import ConceptFile
from faultlens.data.images import ImageSource
from faultlens.errors import InputError, SpecError, SpecNameError
from faultlens.session import DebugSession
from faultlens.spec.check import Rule
from faultlens.spec.parse import parse

N = 1500
SUITE = """
region R = slabs(coverage=0.9);
spec fur on R(cat): fur > water;
spec wrong on R(cat) expect refuted: water > fur;
spec called on R(ship): predict(ship);
"""


def run(model, out, n=N, vlm=None, source=None, **settings):
    return DebugSession.run(
        model,
        images=source or planted.source(n),
        vlm=vlm or planted.CellVlm(),
        concepts=ConceptFile.parse(planted.concepts_yaml()),
        out=out,
        **settings,
    )


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    return run(planted.healthy(), tmp_path_factory.mktemp("a") / "healthy")


@pytest.fixture(scope="module")
def swapped(tmp_path_factory):
    return run(planted.swapped_head(), tmp_path_factory.mktemp("b") / "swapped")


def results(report, source="model"):
    return {s["name"]: s["results"][source] for s in report.document["specs"]}


def test_a_healthy_model_holds_what_is_true_of_its_pictures(healthy):
    report = check(healthy, parse(SUITE))
    found = results(report)
    assert {k: v["verdict"] for k, v in found.items()} == {
        "fur": "HOLDS", "wrong": "FAILS", "called": "HOLDS"
    }  # fmt: skip
    assert {v["outcome"] for v in found.values()} == {"passed"}
    assert (report.status, report.exit_code) == ("FAILS", 0)
    n_cats = sum(row["label"] == "cat" for row in healthy.images)
    assert found["fur"]["n"] == n_cats
    assert json.loads(report.path.read_text()) == report.to_json()


def test_a_swapped_head_fails_and_the_violations_are_named(swapped):
    report = check(swapped, parse(SUITE))
    called = results(report)["called"]
    assert (called["verdict"], report.exit_code) == ("FAILS", 1)
    violations = called["violations"]
    assert violations["by_confusion"][0]["label"] == "ship"
    assert violations["by_confusion"][0]["prediction"] == "plane"
    assert violations["by_class"]["ship"]["violations"] == violations["n"]
    names = {row["name"]: row for row in swapped.images}
    assert all(names[name]["prediction"] != "ship" for name in violations["images"])
    assert results(report)["fur"]["verdict"] == "HOLDS"
    case = next(c for c in report.suites["swapped"] if c.name == "called")
    assert "ship -> plane" in case.detail
    assert f"images labelled ship ({called['rate']:.1%}" in case.message
    assert any("called (model)" in line for line in report.remarks)


def test_the_vlm_stands_beside_and_does_not_decide(swapped):
    report = check(swapped, parse(SUITE))
    assert results(report, "vlm")["called"]["verdict"] == "HOLDS"
    rows = {row["name"]: row for row in swapped.images}
    kept = sum(r["label"] == r["vlm"] == "ship" for r in rows.values())
    assert results(report, "vlm")["called"]["n_holds"] == kept


def test_what_asks_for_logits_is_not_asked_of_the_vlm(healthy):
    text = (
        "spec top: top(2, ship) or not top(2, ship); spec size: logit(ship) > 0; "
        "spec not_called: not predict(ship); spec both: predict(ship) => water > fur;"
    )
    asked = {s["name"]: set(s["results"]) for s in check(healthy, parse(text)).document["specs"]}
    assert asked["top"] == asked["size"] == {"model"}
    assert asked["not_called"] == asked["both"] == {"model", "vlm"}


def test_sessions_are_compared_side_by_side(healthy, swapped):
    report = check([healthy, swapped], parse(SUITE))
    called = next(s for s in report.document["specs"] if s["name"] == "called")
    assert called["results"]["healthy:model"]["verdict"] == "HOLDS"
    assert called["results"]["swapped:model"]["verdict"] == "FAILS"
    assert report.exit_code == 1
    assert set(report.suites) == {"healthy", "swapped"}
    assert report.path.parent == healthy.folder / "specs"
    assert "| called |" in report.markdown
    with pytest.raises(InputError, match="sessions must differ"):
        check([healthy, healthy], parse(SUITE))
    with pytest.raises(InputError, match="at least one"):
        check([], parse(SUITE))


def test_strengths_are_linear_and_centred_by_their_reference_images(healthy):
    found = signals.of(healthy)
    n_concepts = len(planted.CONCEPTS)
    own = found.model.images.signals[:, :n_concepts]
    assert np.abs(own.mean(axis=0)).max() < 0.01 * own.std()
    stored = healthy.arrays("alignment")
    fit = found.model.fit_of[7]
    mapped = stored[f"fit{fit}.weight"] @ found.rows.embeddings[7] + stored[f"fit{fit}.bias"]
    expected = stored["directions"] @ mapped - stored[f"fit{fit}.centre_vlm"]
    assert own[7] == pytest.approx(expected, abs=1e-5)
    assert np.array_equal(
        found.vlm.images.signals[:, :n_concepts], healthy.arrays("strengths")["vlm"]
    )
    # Centred cosines order concepts nearly the same way.
    cosines = healthy.arrays("strengths")["model"]
    same = (own[:, :, None] > own[:, None, :]) == (cosines[:, :, None] > cosines[:, None, :])
    assert same.mean() > 0.98


def test_thresholds_come_from_the_other_folds(healthy):
    found = signals.of(healthy).model
    c = planted.CONCEPTS.index("fur")
    values = [t.values[c] for t in found.thresholds]
    assert 1 < len(set(values)) <= len(values) == healthy.info["fit"]["n_fits"]
    checked = results(check(healthy, parse("spec has: hasCon(fur);")))["has"]
    own = np.array(values)[found.fit_of]
    assert checked["n_holds"] == int((found.images.signals[:, c] > own).sum())


def test_a_concept_without_a_threshold_says_why(tmp_path):
    concepts = planted.concepts_yaml()
    concepts["classes"] = {k: {} for k in concepts["classes"]}
    session = DebugSession.run(
        planted.healthy(), images=planted.source(300), vlm=planted.CellVlm(),
        concepts=ConceptFile.parse(concepts), out=tmp_path,
    )  # fmt: skip
    with pytest.raises(SpecError, match="no class lists it as relevant and no image") as error:
        check(session, parse("spec has: hasCon(fur);", "a.con"))
    assert "a.con:1:11" in str(error.value)
    assert "such as > 0.1" in str(error.value)
    report = check(session, parse("spec has: hasCon(fur, > 0.1) or not hasCon(fur, > 0.1);"))
    assert results(report)["has"]["rate"] == 1


def test_a_reference_split_calibrates_and_is_not_checked(tmp_path):
    pixels, labels = planted.draw(900)
    source = ImageSource.from_arrays(
        pixels, labels, planted.CLASSES, splits=["test" if i % 3 else "val" for i in range(900)]
    )
    session = run(planted.healthy(), tmp_path, source=source, split="test", reference_split="val")
    with pytest.raises(InputError, match="where the run found them, got 'pictures in memory'"):
        # Pictures in memory are not there a second time.
        check(session, parse(SUITE))


def test_a_vlm_that_does_not_know_the_pictures_decides_nothing_about_strengths(tmp_path):
    session = run(planted.healthy(), tmp_path, n=600, vlm=planted.CellVlm(blind=True))
    report = check(session, parse(SUITE))
    found = results(report)
    assert found["fur"]["verdict"] == "UNKNOWN"
    assert "does not know these images" in found["fur"]["reason"]
    assert found["called"]["verdict"] == "HOLDS"
    assert report.exit_code == 3


def test_asking_one_after_the_other_asks_fewer(healthy):
    all_of_them, some = check(healthy, parse(SUITE)), check(healthy, parse(SUITE), seed=3)
    for name, result in results(some).items():
        assert result["verdict"] == results(all_of_them)[name]["verdict"]
        assert result["n"] < results(all_of_them)[name]["n"]
    assert (some.document["control"], some.document["seed"]) == ("sequential", 3)
    assert some.to_json() == check(healthy, parse(SUITE), seed=3).to_json()


def test_the_session_checks_a_file(healthy, tmp_path):
    path = tmp_path / "a.con"
    path.write_text(SUITE)
    report = healthy.check(path, required_rate=0.5)
    assert report.exit_code == 0
    assert report.document["file"] == str(path)
    assert report.document["required_rate"] == 0.5


def test_mistakes_are_told(healthy, tmp_path):
    with pytest.raises(SpecNameError, match="did you mean 'fur'"):
        check(healthy, parse("spec a: furr > water;"))
    with pytest.raises(SpecError, match="at least one specification"):
        check(healthy, parse("# nothing\n"))
    with pytest.raises(InputError, match=r"none\.con"):
        check(healthy, tmp_path / "none.con")
    with pytest.raises(InputError, match="required_rate must be in"):
        check(healthy, parse(SUITE), Rule(required_rate=95))


def test_the_first_file_holds_where_the_pictures_do(healthy, tmp_path):
    path = write_initial(healthy, tmp_path / "first.con")
    report = healthy.check(path, required_rate=0.9)
    names = [s["name"] for s in report.document["specs"]]
    assert "cat has[a=fur,b=water]" in names
    assert all(r["rate"] > 0.85 for r in results(report).values())
    with pytest.raises(InputError, match="must be a new file"):
        write_initial(healthy, path)
    assert write_initial(healthy) == healthy.folder / "specs" / "initial.con"


def test_the_session_is_as_whole_as_before(healthy):
    check(healthy, parse(SUITE))
    assert DebugSession.open(healthy.folder).status == healthy.status
