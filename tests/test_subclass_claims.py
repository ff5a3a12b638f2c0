"""Parts of a class that training lacked are told as such; parts that are hard are only noted."""

from functools import cache

import numpy as np
import pytest

from faultlens.analysis import Measurements, analyse
from faultlens.claims import subclasses
from faultlens.claims.case import Case
from faultlens.concepts import ConceptFile, Vocabulary
from planted import CLASSES, CONCEPTS, CellVlm, cells_of, concepts_yaml, draw, healthy

CAR, SHIP = CLASSES.index("car"), CLASSES.index("ship")


def vocabulary() -> Vocabulary:
    """The world's concepts; sky is no part of any class."""
    given = concepts_yaml()
    for entry in given["classes"].values():
        entry["relevant"] = [c for c in entry["relevant"] if c != "sky"]
    return Vocabulary.build(ConceptFile.parse(given), CLASSES, CellVlm().encode_text)


def pictures(n: int = 1500, seed: int = 3):
    """Pictures (n, 3, 4, 32) in which sky is there or not, their labels, and where sky is."""
    pixels, labels = draw(n, seed)
    sky = np.random.default_rng(seed).random(n) < 0.4
    cell = CONCEPTS.index("sky") * 4
    pixels[:, :, cell : cell + 4] = np.where(sky, 235, 20)[:, None, None]
    grey = np.repeat(pixels[:, None].astype(np.float32) / 255, 3, axis=1)
    return grey, labels, sky


@cache
def case_of(change) -> Case:
    """A sound model, changed: `change(z, logits, labels, sky)` plants the fault in place."""
    batch, labels, sky = pictures()
    model, vlm = healthy(), CellVlm()
    # Nothing in this model listens to the sky.
    still = batch.copy()
    cell = CONCEPTS.index("sky") * 4
    still[..., cell : cell + 4] = 0.5
    z = np.c_[model.encode(still)["embedding"], cells_of(batch)[:, [CONCEPTS.index("sky")]]]
    logits = model.encode(still)["logits"].copy()
    change(z, logits, labels, sky)
    n = len(labels)
    measured = Measurements(
        z.astype(np.float32), logits, labels, vlm.encode(batch)["embedding"],
        np.arange(n) % 5, np.zeros(n, bool),
    )  # fmt: skip
    words = vocabulary()
    return Case(analyse(measured, words, vlm.encode_text), CLASSES, words.concepts)


def told(case: Case, explained=None):
    explained = np.zeros(case.n, bool) if explained is None else explained
    return subclasses.findings(case, subclasses.find(case, explained), set())


def mislabelled(z, logits, labels, sky):
    """Cars before the sky were called ships in training; the embeddings are fine."""
    logits[(labels == CAR) & sky, SHIP] = logits.max() + 1


def never_seen(z, logits, labels, sky):
    """The encoder takes cars before the sky for one of two other things."""
    rows = np.flatnonzero((labels == CAR) & sky)
    rng = np.random.default_rng(0)
    others = np.flatnonzero((labels == SHIP) | (labels == CLASSES.index("cat")))
    twins = rng.choice(others, len(rows))
    z[rows], logits[rows] = z[twins], logits[twins]


def test_a_mislabelled_part_is_a_fault_of_the_training_data():
    case = case_of(mislabelled)
    (first,) = [f for f in told(case) if f.subject == "car"]
    assert (first.id, first.kind) == ("subclass-car-sky", "localization.data")
    assert first.severity == "fault"
    e = first.evidence
    assert (e["subclass_concept"], e["presence"], e["called"]) == ("sky", "with", "ship")
    assert e["classes"] == ["car"]
    assert e["repaired_by_refit"] > 0.7
    assert e["share_of_repairs"] > 0.7
    assert not e["is_cue"]
    assert e["p_value"] < 1e-6
    assert first.claim.startswith("car with sky is called ship in 100 % of ")
    assert "no other class with sky is drawn to ship" in first.claim
    assert first.claim.endswith("the training data lacked or mislabelled them.")
    assert first.interval[0] > 0.5
    assert 0.5 < first.confidence < 1
    e_ = case.analysis.evidence
    judged = e_.is_gated & (e_.labels == CAR)
    assert e["n_errors"] == pytest.approx((judged & (e_.predictions == SHIP)).sum(), abs=3)
    assert "labelled ship" in first.advice


def test_a_part_that_no_head_can_repair_is_only_noted():
    (first,) = [f for f in told(case_of(never_seen)) if f.subject == "car"]
    assert (first.severity, first.kind) == ("notice", "concepts.subclass")
    assert first.evidence["subclass_concept"] == "sky"
    assert first.claim.startswith("car with sky is missed in ")
    assert first.evidence["repaired_by_refit"] < 0.2
    assert first.claim.endswith("a part that this model finds hard, for whatever reason.")


def test_a_cue_is_not_told_as_a_part():
    def every_class(z, logits, labels, sky):
        logits[sky, SHIP] = logits.max() + 1

    found = told(case_of(every_class))
    assert {f.subject for f in found} == set(CLASSES) - {"ship"}
    assert {f.severity for f in found} == {"notice"}
    assert all("less a part of this class than a cue" in f.claim for f in found)


def test_what_another_claim_explains_is_not_told_again():
    case = case_of(mislabelled)
    assert told(case, explained=case.is_error) == []
    parts = subclasses.find(case, np.zeros(case.n, bool))
    assert (subclasses.explained(case, parts) == parts[0].errors).all()
    # A part that is only hard explains nothing away.
    hard = case_of(never_seen)
    parts = subclasses.find(hard, np.zeros(hard.n, bool))
    assert parts
    assert not subclasses.explained(hard, parts).any()


def test_classes_that_another_claim_speaks_of_get_no_notice():
    fault, hard = case_of(mislabelled), case_of(never_seen)
    nothing = np.zeros(fault.n, bool)
    (found,) = subclasses.findings(fault, subclasses.find(fault, nothing), {"car"})
    assert found.severity == "fault"
    assert subclasses.findings(hard, subclasses.find(hard, nothing), {"car"}) == []


def test_a_sound_model_has_no_part():
    assert told(case_of(lambda z, logits, labels, sky: None)) == []


def test_nothing_is_said_where_the_vlm_may_not_judge():
    case = case_of(mislabelled)
    shared = Case(case.analysis, case.classes, case.concepts, is_independent=False)
    assert subclasses.find(shared, np.zeros(case.n, bool)) == []
