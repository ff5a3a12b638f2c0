import json

import numpy as np
import pytest
from PIL import Image

import planted
from faultlens import signals
from faultlens.checking import check
from faultlens.concepts import ConceptFile
from faultlens.errors import InputError, SpecError, SpecNameError, SpecSyntaxError
from faultlens.session import DebugSession
from faultlens.spec.parse import parse


def run(out, images, **settings):
    return DebugSession.run(
        planted.swapped_head(), images=images, vlm=planted.CellVlm(),
        concepts=ConceptFile.parse(planted.concepts_yaml()), out=out, **settings,
    )  # fmt: skip


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    root = tmp_path_factory.mktemp("query")
    planted.save_folder(root / "photos", n=300)
    return run(root / "out", root / "photos", split="test")


def rows(session, test):
    return {r["name"] for r in session.images if test(r)}


def test_labels_and_predictions_are_those_of_the_run(session):
    def found(formula):
        return set(session.where(formula).names)

    assert found("label(ship)") == rows(session, lambda r: r["label"] == "ship")
    assert found("predict(ship)") == rows(session, lambda r: r["prediction"] == "ship")
    assert found("wrong") == rows(session, lambda r: r["label"] != r["prediction"])
    assert found("correct") == found("not wrong")
    assert found("vlm(cat)") == rows(session, lambda r: r["vlm"] == "cat")
    both = found("label(ship) and predict(plane)")
    assert both == rows(session, lambda r: (r["label"], r["prediction"]) == ("ship", "plane"))
    assert both


def test_the_clearest_image_comes_first(session):
    found = session.where("label(cat) and fur > water")
    seen = signals.of(session).model.images.signals
    fur, water = (planted.CONCEPTS.index(c) for c in ("fur", "water"))
    difference = seen[:, fur] - seen[:, water]
    kept = difference[found.rows]
    assert (kept > 0).all()
    assert (np.diff(kept) <= 0).all()
    assert found.margins == pytest.approx(kept / difference.std())
    first = next(iter(found))
    assert (first["rank"], first["name"]) == (1, found.names[0])
    assert first["margin"] == pytest.approx(found.margins[0])


def test_what_only_labels_decide_keeps_the_order_of_the_run(session):
    found = session.where("label(cat)")
    assert (np.diff(found.rows) > 0).all()
    assert np.isinf(found.margins).all()
    assert next(iter(found))["margin"] is None


def test_queries_narrow_and_part(session):
    wrong = session.where("wrong")
    ships = wrong.where("label(ship)")
    assert set(ships.names) == set(session.where("wrong and label(ship)").names)
    assert ships.formula == "(wrong) and (label(ship))"
    assert (np.diff(ships.margins) <= 0).all()
    groups = wrong.by("class")
    assert sum(map(len, groups.values())) == len(wrong)
    assert list(groups) == sorted(groups, key=lambda k: -len(groups[k]))
    assert set(groups["ship"].names) == set(ships.names)
    assert sum(map(len, wrong.by("confusion").values())) == len(wrong)
    assert session.where("correct").by("confusion") == {}
    with pytest.raises(InputError, match=r"got 'clas'; did you mean 'class'"):
        wrong.by("clas")


def test_heatmaps_of_selections_are_those_of_the_session(session):
    own = session.where("label(ship)").heatmap()
    known = session.heatmap("ground-truth", "ship")
    assert (own.wins == known.wins).all()
    assert own.n == known.n
    delta = session.where("label(ship) and correct").differential(
        session.where("label(ship) and wrong")
    )
    wanted = session.heatmap("differential", "ship")
    assert delta.values == pytest.approx(wanted.values, nan_ok=True)
    by_class = session.where("true").by("class").heatmap("vlm")
    assert (by_class["cat"].wins == session.heatmap("ground-truth", "cat", "vlm").wins).all()
    assert session.where("false").heatmap().n == 0
    with pytest.raises(InputError, match="must share no image"):
        session.where("label(ship)").differential(session.where("true"))


def test_the_vlms_strengths_can_be_asked_instead(session):
    concept = planted.CONCEPTS.index("sails")
    seen = np.asarray(session.arrays("strengths")["vlm"])[:, concept]
    found = session.where("predict(ship) and sails > 0", source="vlm")
    predicted = np.array([r["prediction"] == "ship" for r in session.images])
    assert set(found.rows) == set(np.flatnonzero((seen > 0) & predicted))
    with pytest.raises(InputError, match="source must be 'model' or 'vlm', got 'clip'"):
        session.where("true", source="clip")


@pytest.mark.parametrize(
    ("formula", "error", "message"),
    [
        ("label(shp)", SpecNameError, "did you mean 'ship'?"),
        ("predict(ship", SpecSyntaxError, "expected ')' or ','"),
        ("spec a: true", SpecError, "formula must be one formula"),
        ("true; false", SpecError, "formula must be one formula"),
        ("label(ship) > 1", SpecNameError, "that holds or not, and has no size to compare"),
        ("label(wheels)", SpecNameError, "that is a concept"),
    ],
)
def test_wrong_formulas_say_what_to_do(session, formula, error, message):
    with pytest.raises(error) as caught:
        session.where(formula)
    assert message in str(caught.value)


def test_definitions_and_leading_quantifiers_may_stand_in_a_formula(session):
    found = session.where("let swapped = {ship, plane}; exists k in swapped: label(k);")
    assert set(found.names) == rows(session, lambda r: r["label"] in ("ship", "plane"))
    every = session.where("forall c in {fur, beak}: c > water")
    assert set(every.names) == set(session.where("fur > water and beak > water").names)


def test_check_knows_labels_and_verify_refuses_them(session):
    text = "spec right given label(cat): predict(cat) and correct; spec ship: not vlm(ship);"
    document = check(session, parse(text)).document
    (right, ship) = document["specs"]
    cats = [r for r in session.images if r["label"] == "cat"]
    assert right["results"]["model"]["n"] == len(cats)
    assert right["results"]["model"]["n_holds"] == sum(r["prediction"] == "cat" for r in cats)
    named = sum(r["vlm"] != "ship" for r in session.images)
    assert {r["n_holds"] for r in ship["results"].values()} == {named}
    from faultlens.verifying import verify

    for goal in ("label(cat)", "correct", "wrong => fur > water", "not vlm(cat)"):
        with pytest.raises(SpecError, match="must be asked of images") as caught:
            verify(session, parse(f"spec a: {goal};"), model=planted.swapped_head())
        assert "^" in str(caught.value)


def test_thumbnails_and_a_page_are_saved(session, tmp_path):
    found = session.where("wrong")
    page = found.save_images(tmp_path / "found", limit=3)
    text = page.read_text()
    names = sorted(p.name for p in page.parent.glob("*.jpg"))
    assert len(names) == 3
    assert names[0].startswith("0001-")
    with Image.open(page.parent / names[0]) as picture:
        assert picture.size == (32, 4)
    assert text.count("data:image/jpeg") == 3
    assert "<script" not in text
    document = json.loads((page.parent / "found.json").read_text())
    assert (document["n"], len(document["images"])) == (len(found), 3)
    session.where("label(cat)").save_images(tmp_path / "found", limit=1)
    assert len(list(page.parent.glob("*.jpg"))) == 1
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.txt").write_text("mine")
    with pytest.raises(InputError, match="with other files"):
        found.save_images(tmp_path / "mine")


def test_without_pictures_there_is_nothing_to_save(tmp_path):
    opened = run(tmp_path / "out", planted.source(200))
    with pytest.raises(InputError, match="images must be where the run found them"):
        opened.where("wrong").save_images(tmp_path / "found")
    page = opened.where("true").save_images(tmp_path / "found", 2, planted.source(200))
    assert len(list(page.parent.glob("*.jpg"))) == 2


def test_names_with_markup_stay_text(session, tmp_path):
    from faultlens.report.found import render_found

    document = session.where("wrong").to_json(1)
    document["images"][0]["name"] = "<b>x</b>"
    assert "<b>x</b>" not in render_found(document, {})
