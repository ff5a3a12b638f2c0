"""Fixes for planted faults: what is advised helps on new images, and nothing else is advised."""

import csv
import json

import numpy as np
import pytest

import planted
from faultlens import files, fixing, reopen
from faultlens.concepts import ConceptFile
from faultlens.errors import InputError, StoreError
from faultlens.models.head import Head
from faultlens.session import DebugSession
from test_cue_claims import pictures


def accuracy(model, head, source):
    batch = np.stack([model.prepare(source.load(i)) for i in range(len(source))])
    z = model.encode(batch)["embedding"]
    return float((head(z).argmax(axis=1) == source.labels).mean())


def table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_swapped_rows_are_restored_with_the_planted_gain(fixed):
    model, session, found = fixed("swapped")
    planted_gain = (
        accuracy(model, planted.healthy().head, planted.source(600)) - (session.numbers["accuracy"])
    )
    for id_ in ("rows-head", "refit"):
        fix = found[id_]
        assert fix["is_advised"]
        assert fix["finding"] == "head"
        assert fix["gain"] == pytest.approx(planted_gain, abs=0.02)
        assert fix["interval"][0] <= planted_gain <= fix["interval"][1]
        assert fix["broken"] <= 5
        assert fix["n"] == 600
        assert fix["gain"] == pytest.approx((fix["repaired"] - fix["broken"]) / 600)
        assert fix["group"]["gain"] > 0.9
    assert not found["bias-head"]["is_advised"]


def test_the_delivered_head_repairs_new_images(fixed):
    model, session, found = fixed("swapped")
    head = Head.load(session.folder / "fixes" / found["rows-head"]["artefacts"][0])
    fresh = planted.source(500, seed=77)
    assert accuracy(model, head, fresh) > accuracy(model, model.head, fresh) + 0.35
    kept = [k for k, name in enumerate(planted.CLASSES) if name not in ("ship", "plane")]
    np.testing.assert_array_equal(head.weight[kept], model.head.weight[kept])
    assert not np.allclose(head.weight, model.head.weight)


def test_a_healthy_model_gets_no_advice(fixed):
    _, session, found = fixed("healthy")
    assert found == {}
    assert files.read_json(session.folder / "fixes" / "fixes.json")["fixes"] == []


def test_a_blind_encoder_is_not_mended_by_a_head(fixed):
    _, session, found = fixed("blind")
    assert not any(f["is_advised"] for f in found.values())
    assert found["refit"]["interval"][0] < 0
    rows = table(session.folder / "fixes" / "images-class-cat.csv")
    errors = [r for r in session.images if r["label"] == "cat" and r["prediction"] != "cat"]
    assert {r["image"] for r in rows} == {r["name"] for r in errors}
    assert {int(r["n_wanted"]) for r in rows} == {len(errors)}
    assert found["images-class-cat"]["gain"] is None


def test_a_cue_is_unlearnt_by_erasure_and_by_balance(fixed):
    model, session, found = fixed("cue")
    fresh = pictures(600, seed=50)
    before = accuracy(model, model.head, fresh)
    for kind in ("fold", "balanced"):
        fix = found[f"{kind}-cue-car-sky"]
        assert fix["is_advised"]
        assert fix["group"]["interval"][0] > 0.5
        head = Head.load(session.folder / "fixes" / fix["artefacts"][0])
        gain = accuracy(model, head, fresh) - before
        assert gain == pytest.approx(fix["gain"], abs=0.06)
    assert found["balanced-cue-car-sky"]["broken"] < found["fold-cue-car-sky"]["broken"]


def test_images_against_the_cue_are_listed(fixed):
    _, session, _ = fixed("cue")
    rows = table(session.folder / "fixes" / "images-cue-car-sky.csv")
    car = [r for r in rows if r["class"] == "car"]
    others = [r for r in rows if r["class"] != "car"]
    assert {r["presence"] for r in car} == {"without"}
    assert {r["presence"] for r in others} == {"with"}
    assert all(r["label"] == r["class"] for r in rows)
    assert {r["concept"] for r in rows} == {"sky"}
    known = {r["name"]: r for r in session.images}
    assert sum(r["prediction"] != r["label"] for r in car) == int(car[0]["n_errors"]) > 50
    assert all(known[r["image"]]["prediction"] == r["prediction"] for r in rows)


def test_advised_fixes_come_first_and_best_first(fixed):
    _, session, found = fixed("cue")
    entries = files.read_json(session.folder / "fixes" / "fixes.json")["fixes"]
    assert [e["id"] for e in entries] == list(found)
    assert [e["is_advised"] for e in entries] == sorted(e["is_advised"] for e in entries)[::-1]
    gains = [e["gain"] for e in entries if e["is_advised"]]
    assert gains == sorted(gains)[::-1]
    for e in entries:
        assert all((session.folder / "fixes" / name).is_file() for name in e["artefacts"])


def test_label_suspects_are_a_table(session_of, relabelled, tmp_path):
    source, wrong = relabelled
    model = planted.healthy()
    session = session_of(model, tmp_path / "out", source)
    result = fixing.fix(session, finding="labels", model=model, out=tmp_path / "fixes")
    [fix] = result.entries
    assert (fix["kind"], fix["gain"], fix["is_advised"]) == ("labels", None, False)
    rows = table(tmp_path / "fixes" / "relabel.csv")
    listed = {r["image"] for r in rows}
    truth = {source.names[i] for i in wrong}
    assert len(listed & truth) >= 10
    _, labels = planted.draw(600, 8)
    true = {source.names[i]: planted.CLASSES[labels[i]] for i in wrong}
    assert all(r["suggested"] == true[r["image"]] for r in rows if r["image"] in true)


def test_a_reference_split_is_fitted_on_and_the_other_measured(session_of, tmp_path):
    planted.save_folder(tmp_path / "photos", n=300, seed=1, split="train")
    planted.save_folder(tmp_path / "photos", n=400, seed=2, split="test")
    model = planted.swapped_head()
    session = session_of(
        model, tmp_path / "out", tmp_path / "photos", split="test", reference_split="train"
    )
    material = reopen.material(session, model.head)
    n = len(session.images)
    assert len(material.labels) == session.info["facts"]["images"]["n"]
    [part] = material.parts
    assert part.held.tolist() == list(range(n))
    assert part.reference.min() == n
    assert material.full.reference.tolist() == part.reference.tolist()
    found = {f["id"]: f for f in fixing.fix(session, model=model).entries}
    assert found["rows-head"]["is_advised"]
    assert found["rows-head"]["n"] == n
    (tmp_path / "photos").rename(tmp_path / "moved")
    with pytest.raises(InputError, match="images must be where the run found them"):
        fixing.fix(session, model=model)


def features(path, model, source):
    batch = np.stack([model.prepare(source.load(i)) for i in range(len(source))])
    made = model.encode(batch)
    arrays = made | {
        "label": source.labels.astype(np.int64),
        "vlm_embedding": planted.CellVlm().encode(batch)["embedding"],
    }
    files.save_arrays(path, arrays, {"class_names": json.dumps(planted.CLASSES)})


def test_features_are_enough(tmp_path):
    model = planted.swapped_head()
    features(tmp_path / "f.safetensors", model, planted.source(500))
    model.head.save(tmp_path / "head.safetensors")
    session = DebugSession.run(
        vlm=planted.CellVlm(), concepts=ConceptFile.parse(planted.concepts_yaml()),
        out=tmp_path / "out", features=tmp_path / "f.safetensors",
        head=tmp_path / "head.safetensors", limit=400,
    )  # fmt: skip
    # The two encoders are linear in each other here: nobody may judge, but a refit helps.
    assert next(f.kind for f in session.findings) == "localization.unknown"
    found = {f["id"]: f for f in fixing.fix(session).entries}
    assert found["rows-refit"]["is_advised"]
    assert found["rows-refit"]["n"] == 400
    (tmp_path / "f.safetensors").write_bytes(b"other")
    with pytest.raises(InputError, match="features must be those of the run"):
        fixing.fix(session)
    (tmp_path / "f.safetensors").unlink()
    with pytest.raises(InputError, match="features must be where the run found them"):
        fixing.fix(session)


def test_features_without_a_head_cannot_be_mended(tmp_path):
    features(tmp_path / "f.safetensors", planted.swapped_head(), planted.source(400))
    session = DebugSession.run(
        vlm=planted.CellVlm(), concepts=ConceptFile.parse(planted.concepts_yaml()),
        out=tmp_path / "out", features=tmp_path / "f.safetensors",
    )  # fmt: skip
    with pytest.raises(InputError, match="with --head FILE"):
        fixing.fix(session)


def test_a_model_known_by_name_only_must_be_given(fixed):
    _, session, _ = fixed("swapped")
    with pytest.raises(InputError, match="the session knows only its name, got 'swapped'"):
        fixing.fix(session)
    with pytest.raises(InputError, match="model must be the one of the run"):
        fixing.fix(session, model=planted.healthy())


def test_the_wrong_finding_is_suggested(fixed, tmp_path):
    model, session, _ = fixed("swapped")
    with pytest.raises(InputError, match="got 'haed'; did you mean 'head'"):
        fixing.fix(session, finding="haed", model=model, out=tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_folder_with_other_files_is_left_alone(fixed, tmp_path):
    model, session, _ = fixed("swapped")
    (tmp_path / "mine.txt").touch()
    with pytest.raises(InputError, match="out must be empty or hold earlier fixes"):
        fixing.fix(session, model=model, out=tmp_path)


def test_embeddings_that_are_gone_are_named(session_of, tmp_path):
    model = planted.swapped_head()
    session = session_of(model, tmp_path / "out")
    [shard, *_] = sorted((tmp_path / "out" / "embeddings").glob("model-*/shard-*"))
    shard.write_bytes(b"")
    with pytest.raises(StoreError, match="must hold the embeddings of the run"):
        fixing.fix(session, model=model)


def test_the_store_of_another_model_in_the_same_folder_is_not_taken(session_of, tmp_path):
    session_of(planted.healthy(), tmp_path / "out")
    model = planted.swapped_head()
    session = session_of(model, tmp_path / "out")
    assert len(list((tmp_path / "out" / "embeddings").glob("model-*"))) == 2
    material = reopen.material(session, model.head)
    called = [planted.CLASSES[k] for k in model.head(material.embeddings).argmax(axis=1)]
    assert called == [row["prediction"] for row in session.images]
