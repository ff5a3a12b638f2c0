"""The consistency check: pictures changed as no label minds, through both models."""

from functools import cache

import numpy as np
import pytest
from PIL import Image

from faultlens.analysis import Measurements, analyse
from faultlens.claims import consistency
from faultlens.claims.case import Case
from faultlens.concepts import ConceptFile, Vocabulary
from faultlens.consistency_check import check, sample, views
from faultlens.localize.consistency import Consistency

COLORS, CLASSES = ("red", "green", "blue"), ("cherry", "leaf", "sky")
N, SIDE = 360, 16


class Halves:
    """Reads the mean colour of both halves of a picture, left first, as its embedding."""

    def __init__(self, weights):
        self.weights = np.asarray(weights)

    def prepare(self, image):
        return np.asarray(image, np.float32) / 255

    def read(self, batch):
        half = batch.shape[2] // 2
        left, right = batch[:, :, :half].mean((1, 2)), batch[:, :, half:].mean((1, 2))
        return self.weights[0] * left + self.weights[1] * right - 0.5

    def encode(self, batch):
        z = self.read(batch).astype(np.float32)
        return {"embedding": z, "logits": z * 20}


class Vlm(Halves):
    """Sees the mean of both halves and knows the words for colours and classes."""

    def encode_text(self, texts):
        rows = []
        for i, text in enumerate(texts):
            words = text.split()
            known = [c in words or k in words for c, k in zip(COLORS, CLASSES, strict=True)]
            noise = np.random.default_rng(i).normal(size=3) * (0.01 if any(known) else 1.0)
            rows.append(np.array(known, float) - 0.2 + noise)
        return np.stack(rows).astype(np.float32)


class Pictures:
    """Class k is mostly of colour k; skies have halves that differ, the others do not."""

    names = tuple(f"{i}.png" for i in range(N))

    def __init__(self):
        rng = np.random.default_rng(0)
        self.labels = np.arange(N) % 3
        color = 0.35 + 0.25 * np.eye(3)[self.labels] + rng.normal(0, 0.05, (N, 3))
        apart = rng.normal(0, 0.2, (N, 3)) * (self.labels == 2)[:, None]
        halves = np.stack([color + apart, color - apart], axis=1).clip(0, 1)
        self.pixels = np.repeat(halves, SIDE // 2, axis=1)[:, None].repeat(SIDE, axis=1)

    def __len__(self):
        return N

    def load(self, index):
        return Image.fromarray((self.pixels[index] * 255).round().astype(np.uint8))


@cache
def run(weights):
    """Check a classifier that listens so much to the left and the right half."""
    source, model, vlm = Pictures(), Halves(weights), Vlm((0.5, 0.5))
    batch = np.stack([model.prepare(source.load(i)) for i in range(N)])
    out = model.encode(batch)
    measured = Measurements(
        out["embedding"], out["logits"], source.labels, vlm.encode(batch)["embedding"],
        np.arange(N) // 3 % 5, np.zeros(N, bool),
    )  # fmt: skip
    relevant = {k: {"relevant": [c]} for k, c in zip(CLASSES, COLORS, strict=True)}
    file = ConceptFile.parse({"concepts": list(COLORS), "classes": relevant})
    words = Vocabulary.build(file, CLASSES, vlm.encode_text)
    analysis = analyse(measured, words, vlm.encode_text)
    seen = []
    found = check(
        model, vlm, source, analysis, words.directions, np.random.default_rng(0),
        lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    return Case(analysis, CLASSES, COLORS), found, seen


@pytest.fixture
def lopsided():
    return run((1.0, 0.0))


def test_a_model_that_reads_as_the_vlm_does_loses_what_the_picture_loses():
    case, found, _ = run((0.5, 0.5))
    assert abs(found.excess.mean()) < 0.02
    assert found.flips.mean() < 0.05
    assert consistency.findings(case, found) == []


def test_a_model_that_reads_one_half_is_inconsistent_where_halves_differ(lopsided):
    case, found, seen = lopsided
    labels = case.analysis.evidence.labels[found.rows]
    assert found.excess[labels == 2].mean() > found.excess[labels != 2].mean() + 0.02
    assert seen[-1] == (256, 256)
    assert len(seen) == 32
    (notice,) = consistency.findings(case, found)
    assert (notice.id, notice.kind) == ("consistency-sky", "concepts.consistency")
    assert notice.severity == "notice"
    assert notice.claim.startswith(
        "Cropping, mirroring, lighting or blurring images of sky reverses "
    )
    assert notice.evidence["classes"] == ["sky"]
    assert notice.evidence["n_of_class"] == (labels == 2).sum()
    shown = notice.evidence["images"]
    assert set(case.analysis.evidence.labels[shown]) == {2}
    assert notice.evidence["weights"] == sorted(notice.evidence["weights"], reverse=True)


def test_weights_are_for_images_that_the_vlm_knows_and_the_model_does_not(lopsided):
    case, found, _ = lopsided
    e = case.analysis.evidence
    assert found.weight.min() >= 0
    assert found.weight.max() <= 1
    assert (found.weight[~e.is_gated[found.rows]] == 0).all()
    steady = ~e.is_error[found.rows] & (found.flips == 0)
    assert (found.weight[steady] == 0).all()
    wrong = e.is_error[found.rows] & e.is_gated[found.rows]
    assert wrong.any()
    assert (found.weight[wrong] > 0).all()


def test_views_keep_the_size_and_the_label():
    ramp = np.tile(np.arange(64, dtype=np.uint8)[None, :, None] * 3, (48, 1, 3))
    image = Image.fromarray(ramp)
    cropped, mirrored, dark, bright, blurred = (np.asarray(v, float) for v in views(image))
    assert cropped.shape == mirrored.shape == blurred.shape == (48, 64, 3)
    assert (mirrored == ramp[:, ::-1]).all()
    assert dark.mean() < ramp.mean() < bright.mean()
    assert cropped.mean() == pytest.approx(ramp.mean(), abs=2)
    assert cropped.std() < ramp.std()
    assert np.abs(blurred - ramp).max() < 4


def test_the_sample_is_even_over_classes_and_never_repeats():
    labels = np.repeat(np.arange(4), [500, 100, 30, 5])
    rows = sample(labels, 256, np.random.default_rng(0))
    assert len(set(rows.tolist())) == 256
    counts = np.bincount(labels[rows])
    assert counts[2:].tolist() == [30, 5]
    assert abs(counts[0] - 121) <= 21
    assert counts[1] == 100
    few = sample(labels[:7], 256, np.random.default_rng(0))
    assert few.tolist() == list(range(7))


def test_nothing_is_said_without_an_answer_or_a_judge(lopsided):
    case, found, _ = lopsided
    assert consistency.findings(case, None) == []
    shared = Case(case.analysis, CLASSES, COLORS, is_independent=False)
    assert consistency.findings(shared, found) == []


def test_a_class_that_is_only_a_little_worse_is_not_noted(lopsided):
    case, found, _ = lopsided
    labels = case.analysis.evidence.labels[found.rows]
    rng = np.random.default_rng(0)
    model = found.vlm + 0.012 * (labels == 1) + rng.normal(0, 0.001, len(labels))
    little = Consistency(found.rows, model - 0.004, found.vlm, found.flips, found.weight)
    (notice,) = consistency.findings(case, little)
    assert notice.subject == "leaf"
    model = found.vlm + 0.008 * (labels == 1) + rng.normal(0, 0.001, len(labels))
    less = Consistency(found.rows, model, found.vlm, found.flips, found.weight)
    assert consistency.findings(case, less) == []
