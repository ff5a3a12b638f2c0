"""The smallest edit that flips a prediction, in words and checked by the head."""

import shutil

import numpy as np
import pytest
from PIL import Image

import planted
from faultlens.concepts import ConceptFile
from faultlens.explain.edit import MAX_CHANGE, smallest_edit
from faultlens.files import save_arrays
from faultlens.localize.counterfactual import ConceptMoves
from faultlens.models.head import Head
from faultlens.session import DebugSession, explanation_json
from test_cue_claims import concepts, taught_sky
from test_features import NAMES, arrays
from test_features import run as run_features


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Pictures as files; sky is there or not, whatever the class."""
    root = tmp_path_factory.mktemp("photos")
    pixels, labels = planted.draw(500, 3)
    sky = np.random.default_rng(3).random(500) < 0.4
    cell = planted.CONCEPTS.index("sky") * planted.CELL
    pixels[:, :, cell : cell + planted.CELL] = np.where(sky, 235, 20)[:, None, None]
    for i, (picture, label) in enumerate(zip(pixels, labels, strict=True)):
        path = root / planted.CLASSES[label] / f"{i:04d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(picture).save(path)
    return root


@pytest.fixture(scope="module")
def session(photos, tmp_path_factory):
    return DebugSession.run(
        taught_sky(), images=photos, vlm=planted.CellVlm(), concepts=concepts(),
        out=tmp_path_factory.mktemp("session"),
    )  # fmt: skip


def error(session, label="cat"):
    rows = (r for r in session.images if (r["label"], r["prediction"]) == (label, "car"))
    return next(rows)["name"]


def test_an_error_is_flipped_by_less_of_what_misled_the_model(session):
    e = session.explain(error(session), taught_sky()).edit
    assert e.target == "cat"
    assert next(iter(e.changes)) == "sky"
    assert -MAX_CHANGE <= e.changes["sky"] < 0
    assert e.told.startswith("would be cat with less sky (")
    sizes = [abs(v) for v in e.changes.values()]
    assert sizes == sorted(sizes, reverse=True)
    assert 0 < len(e.changes) <= 3


def test_the_head_itself_says_the_target_after_the_edit():
    rng = np.random.default_rng(0)
    head = Head((rng.normal(size=(4, 6)),), (rng.normal(size=4),))
    moves = ConceptMoves(tuple("abc"), rng.normal(size=(3, 6)), np.ones(3))
    n_found = 0
    for z in rng.normal(size=(40, 6)):
        e = smallest_edit(z, 2, head, moves, ("p", "q", "r", "s"))
        change = sum(a * moves.moves["abc".index(c)] for c, a in e.changes.items())
        if e.changes:
            n_found += 1
            assert head((z + change)[None]).argmax() == 2
            assert max(map(abs, e.changes.values())) <= MAX_CHANGE
            half = z + 0.95 * change
            assert head(half[None]).argmax() != 2 or head(z[None]).argmax() == 2
        else:
            assert e.told.startswith(("would not be r", "is r already"))
    assert n_found > 20


def test_an_edit_that_leaves_what_images_show_is_none():
    head = Head((np.eye(2),), (np.zeros(2),))
    moves = ConceptMoves(("wet",), np.array([[1.0, 0.0]]), np.ones(1))
    far = smallest_edit(np.array([MAX_CHANGE + 1.5, 1.0]), 1, head, moves, ("ship", "car"))
    assert far.changes == {}
    assert far.told == (
        "would not be car by any small change of these concepts; it takes less wet (3.5 sd)"
    )
    stuck = ConceptMoves(("wet",), np.zeros((1, 2)), np.ones(1))
    never = smallest_edit(np.array([2.0, 1.0]), 1, head, stuck, ("ship", "car"))
    assert never.told == "would not be car by any change of these concepts"
    near = smallest_edit(np.array([1.001, 1.0]), 1, head, moves, ("ship", "car"))
    assert near.told == "would be car with the slightest change, such as less wet"


def test_a_right_prediction_needs_no_edit_and_no_model(session):
    right = next(r["name"] for r in session.images if r["label"] == r["prediction"])
    assert session.explain(right).edit is None


def test_a_new_picture_is_edited_towards_the_class_in_second_place(session, photos, tmp_path):
    path = tmp_path / "new.png"
    shutil.copy(photos / error(session), path)
    model = taught_sky()
    e = session.explain(path, model)
    z = model.prepare(Image.open(path).convert("RGB"))[None]
    second = np.argsort(-model.encode(z)["logits"][0])[1]
    assert e.edit.target == planted.CLASSES[second] != e.prediction
    assert e.edit.told.startswith(f"would be {e.edit.target} with")


def test_only_trusted_concepts_change(photos, tmp_path):
    file = concepts()
    known = planted.concepts_yaml()
    known["concepts"].append("melancholy")
    known["classes"] = {k: {"relevant": list(v.relevant)} for k, v in file.classes.items()}
    known["classes"]["cat"]["relevant"].append("melancholy")
    session = DebugSession.run(
        taught_sky(), images=photos, vlm=planted.CellVlm(), concepts=ConceptFile.parse(known),
        out=tmp_path,
    )  # fmt: skip
    trusted = {session.concepts[c] for c in session.valid_concepts}
    assert "melancholy" not in trusted
    for row in [r for r in session.images if r["label"] != r["prediction"]][:20]:
        assert set(session.explain(row["name"], taught_sky()).edit.changes) <= trusted


def not_sought(explanation):
    """Why there is no edit; the rest of the explanation must be there."""
    assert explanation.strengths
    assert explanation.edit.changes == {}
    opening = f"no edit towards {explanation.label} was sought: "
    assert explanation.edit.told.startswith(opening)
    return explanation.edit.told.removeprefix(opening)


def test_without_the_model_the_rest_is_told(session):
    assert "model must be given" in not_sought(session.explain(error(session)))


def test_another_model_is_refused(session):
    why = not_sought(session.explain(error(session), planted.healthy()))
    assert "model must be the one of the run" in why


def test_a_picture_that_is_gone_or_changed_is_told(session, photos):
    name = error(session)
    path, other = photos / name, session.images[-1]["name"]
    kept = path.read_bytes()
    try:
        path.unlink()
        assert "No such file" in not_sought(session.explain(name, taught_sky()))
        shutil.copy(photos / other, path)
        assert "no longer predicted" in not_sought(session.explain(name, taught_sky()))
    finally:
        path.write_bytes(kept)


def test_pictures_that_were_no_files_are_told(tmp_path):
    session = DebugSession.run(
        planted.swapped_head(), images=planted.source(300), vlm=planted.CellVlm(),
        concepts=ConceptFile.parse(planted.concepts_yaml()), out=tmp_path,
    )  # fmt: skip
    row = next(r for r in session.images if r["verdict"] == "head")
    assert "were no files" in not_sought(session.explain(row["name"], planted.swapped_head()))


def test_embeddings_that_are_gone_are_told(session, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(session.folder, copy)
    name, model = error(session), taught_sky()
    again = DebugSession.open(copy)
    assert again.explain(name, model).edit == session.explain(name, model).edit
    shutil.rmtree(copy / "embeddings")
    assert "must hold the embeddings of the run" in not_sought(again.explain(name, model))


def test_the_stores_of_other_models_are_left_alone(session, photos, tmp_path):
    """A folder in which two models ran holds both their embeddings."""
    copy = tmp_path / "copy"
    shutil.copytree(session.folder, copy)
    DebugSession.run(
        planted.blind_encoder("fur"), images=photos, vlm=planted.CellVlm(), concepts=concepts(),
        out=copy,
    )  # fmt: skip
    again = DebugSession.run(
        taught_sky(), images=photos, vlm=planted.CellVlm(), concepts=concepts(), out=copy
    )
    assert len(list((copy / "embeddings").glob("model-*"))) == 2
    name, model = error(session), taught_sky()
    assert again.explain(name, model).edit == session.explain(name, model).edit


def test_a_reference_split_serves_as_well(photos, tmp_path):
    for i, path in enumerate(sorted(photos.glob("*/*.png"))):
        out = tmp_path / "split" / ("test" if i % 2 else "val") / path.parent.name / path.name
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, out)
    session = DebugSession.run(
        taught_sky(), images=tmp_path / "split", vlm=planted.CellVlm(), concepts=concepts(),
        out=tmp_path / "out", split="test", reference_split="val",
    )  # fmt: skip
    e = session.explain(error(session), taught_sky()).edit
    assert next(iter(e.changes)) == "sky"


def test_features_need_no_model(tmp_path):
    path, head = tmp_path / "features.safetensors", tmp_path / "head.safetensors"
    save_arrays(path, arrays(planted.swapped_head()), NAMES)
    planted.swapped_head().head.save(head)
    session = run_features(path, tmp_path / "out", head=head)
    row = next(r for r in session.images if (r["label"], r["prediction"]) == ("ship", "plane"))
    found = session.explain(row["name"])
    assert found.edit.target == "ship"
    assert found.edit.changes
    [document] = explanation_json([found])
    assert document["edit"]["changes"] == found.edit.changes
    headless = run_features(path, tmp_path / "headless")
    assert "without a head" in not_sought(headless.explain(row["name"]))
    path.write_bytes(path.read_bytes() + b" ")
    assert "features must be where and as" in not_sought(session.explain(row["name"]))
