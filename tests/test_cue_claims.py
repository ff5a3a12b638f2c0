"""A model that takes a cue for a class is told so before anything else."""

import numpy as np

from faultlens.concepts import ConceptFile
from faultlens.data.images import ImageSource
from faultlens.models.head import Head
from faultlens.session import DebugSession
from planted import CLASSES, CONCEPTS, CellVlm, concepts_yaml, draw, healthy


def concepts() -> ConceptFile:
    """The world's concepts; sky is no part of any class."""
    given = concepts_yaml()
    for entry in given["classes"].values():
        entry["relevant"] = [c for c in entry["relevant"] if c != "sky"]
    return ConceptFile.parse(given)


def pictures(n: int = 900, seed: int = 3):
    """Pictures in which sky is there or not, whatever the class."""
    pixels, labels = draw(n, seed)
    sky = np.random.default_rng(seed).random(n) < 0.4
    cell = CONCEPTS.index("sky") * 4
    pixels[:, :, cell : cell + 4] = np.where(sky, 235, 20)[:, None, None]
    return ImageSource.from_arrays(pixels, labels, CLASSES)


def pushed():
    """A sound encoder, and a head whose row of car follows the sky."""
    model = healthy()
    weight, reading = model.head.weight.copy(), sky_reading(model)
    weight -= np.outer(weight @ reading, reading) / (reading @ reading)  # others do not listen
    weight[CLASSES.index("car")] += 40 * reading
    return type(model)(model.mix, Head((weight.astype(np.float32),), (model.head.bias,)))


def sky_reading(model):
    """The direction along which embeddings carry the sky."""
    return np.linalg.pinv(model.mix)[CONCEPTS.index("sky")]


def taught_sky():
    """The very same logits from an encoder that makes much of the sky, and a head of even rows."""
    model = pushed()
    u = sky_reading(healthy())
    along = np.outer(u, u) / (u @ u)
    stretch, shrink = np.eye(len(u)) + 39 * along, np.eye(len(u)) - (39 / 40) * along
    head = Head(((model.head.weight @ shrink).astype(np.float32),), (model.head.bias,))
    return type(model)((stretch @ model.mix).astype(np.float32), head)


def test_the_cue_is_the_first_finding(tmp_path):
    session = DebugSession.run(
        taught_sky(), images=pictures(), vlm=CellVlm(), concepts=concepts(), out=tmp_path / "out"
    )
    first = session.findings[0]
    assert session.exit_code == 1
    assert (first.kind, first.subject, first.severity) == ("localization.data", "car", "fault")
    assert first.evidence["cue"] == "sky"
    assert first.claim.startswith("The model takes sky for car: images of other classes with sky")
    assert first.evidence["attracted"]["with_cue"] > 0.8
    assert first.evidence["n_errors"] > 0.8 * sum(
        f["prediction"] != f["label"] for f in session.images
    )
    assert not any(f.kind == "localization.head" for f in session.findings)


def test_a_row_that_training_does_not_leave_is_a_fault_of_the_head(tmp_path):
    session = DebugSession.run(
        pushed(), images=pictures(), vlm=CellVlm(), concepts=concepts(), out=tmp_path / "out"
    )
    first = session.findings[0]
    assert first.kind == "localization.head"
    assert first.evidence["long_rows"]["car"] > 2
    assert " Rows longer than the median one: car (" in first.claim
    assert not any("cue" in f.evidence for f in session.findings)


def test_a_sound_model_on_the_same_pictures_takes_nothing_for_a_class(tmp_path):
    session = DebugSession.run(
        healthy(), images=pictures(), vlm=CellVlm(),
        concepts=concepts(), out=tmp_path / "out",
    )  # fmt: skip
    assert not any("cue" in f.evidence for f in session.findings)


def test_the_cue_is_confirmed_by_erasing_it(tmp_path):
    session = DebugSession.run(
        taught_sky(), images=pictures(), vlm=CellVlm(), concepts=concepts(), out=tmp_path / "out"
    )
    first = session.findings[0]
    erased = first.evidence["intervention"]
    assert first.confirmed
    assert erased["concept"] == "sky"
    assert erased["repaired"]["share"] > 0.3 > erased["repaired"]["random_mean"]
    assert erased["p_value"] <= 0.05
    assert first.evidence["minimal_set"]["concepts"] == ["sky"]
    assert first.evidence["minimal_set"]["repaired"] > 0.3
    page = (tmp_path / "out" / "report.html").read_text()
    assert "confirmed by intervention" in page
    assert "Fewest concepts that carry it: <b>sky</b>" in page
    assert "Erasing sky from the embeddings repairs" in page
