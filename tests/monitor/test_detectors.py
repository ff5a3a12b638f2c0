"""One battery over every registered detector."""

import importlib

import numpy as np
import pytest

from faultlens.errors import (
    InputError,
    InsufficientDataError,
    NotFittedError,
    ShapeError,
    StoreError,
)
from faultlens.monitor.detector import DETECTORS, Detector, load_detector
from faultlens.monitor.features import Features

every = pytest.mark.parametrize("name", sorted(DETECTORS))


@every
def test_it_is_a_detector_by_its_registered_name(name):
    detector = load_detector(name)
    assert isinstance(detector, Detector)
    assert detector.name == name


@every
def test_score_and_state_before_fit_raise(name, fresh):
    with pytest.raises(NotFittedError, match=r"call fit\(\) first"):
        load_detector(name).score(fresh[0])
    with pytest.raises(NotFittedError, match=name):
        load_detector(name).state()


@every
def test_fit_returns_the_detector_and_scores_are_finite_float64(name, reference, fresh):
    detector = load_detector(name)
    assert detector.fit(*reference) is detector
    scores = detector.score(fresh[0])
    assert scores.shape == (len(fresh[0]),)
    assert scores.dtype == np.float64
    assert np.isfinite(scores).all()
    assert len(np.unique(scores)) > 5


@every
def test_restored_state_gives_identical_scores(name, reference, fresh):
    detector = load_detector(name).fit(*reference)
    state = {k: v.copy() for k, v in detector.state().items()}
    restored = DETECTORS.load(name).restore(state)
    assert restored.name == name
    assert np.array_equal(restored.score(fresh[0]), detector.score(fresh[0]))
    assert restored.state().keys() == state.keys()
    assert all(np.array_equal(restored.state()[k], state[k]) for k in state)
    assert all(v.dtype.kind in "fiub" for v in state.values())


@every
def test_a_restored_detector_can_be_fitted_again(name, reference, fresh):
    first = load_detector(name).fit(*reference)
    again = DETECTORS.load(name).restore(first.state()).fit(*reference)
    assert np.array_equal(again.score(fresh[0]), first.score(fresh[0]))


@every
def test_a_state_without_the_options_is_refused(name, reference):
    detector = load_detector(name).fit(*reference)
    bare = {k: v for k, v in detector.state().items() if not k.startswith("option.")}
    if bare.keys() == detector.state().keys():
        pytest.skip("it has no options")
    with pytest.raises(StoreError, match="fit the monitor again"):
        DETECTORS.load(name).restore(bare)


@every
def test_the_order_of_images_does_not_matter(name, reference, fresh):
    detector = load_detector(name).fit(*reference)
    order = np.random.default_rng(0).permutation(len(fresh[0]))
    np.testing.assert_allclose(
        detector.score(fresh[0].select(order)), detector.score(fresh[0])[order], 1e-5, 1e-6
    )


@every
def test_a_batch_of_one_scores_as_in_the_crowd(name, reference, fresh):
    detector = load_detector(name).fit(*reference)
    alone = np.concatenate([detector.score(fresh[0].select([i])) for i in range(20)])
    np.testing.assert_allclose(alone, detector.score(fresh[0])[:20], 1e-4, 1e-5)


@every
def test_float32_logits_score_as_float64_ones(name, reference, fresh):
    def single(f: Features) -> Features:
        return Features(f.embeddings, f.logits.astype(np.float32), f.strengths, f.layers)

    double = load_detector(name).fit(*reference).score(fresh[0])
    scores = load_detector(name).fit(single(reference[0]), reference[1]).score(single(fresh[0]))
    np.testing.assert_allclose(scores, double, 2e-3, 1e-4)


@every
def test_errors_score_higher_than_correct_images(name, reference, fresh):
    features, labels = fresh
    wrong = features.predictions != labels
    scores = load_detector(name).fit(*reference).score(features)
    bad, good = scores[wrong][:, None], scores[~wrong]
    above = (bad > good).mean() + 0.5 * (bad == good).mean()
    assert wrong.sum() > 30
    assert above > 0.6, f"{name}: AUROC {above:.3f}"


@every
def test_neither_fit_nor_score_changes_its_input(name, reference, fresh):
    features = fresh[0].select(slice(None))
    before = [a.copy() for a in (features.embeddings, features.logits, features.strengths)]
    load_detector(name).fit(features, fresh[1]).score(features)
    after = (features.embeddings, features.logits, features.strengths)
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


@every
def test_labels_that_do_not_fit_are_refused(name, reference):
    features, labels = reference
    with pytest.raises(ShapeError, match="labels must have one entry an image"):
        load_detector(name).fit(features, labels[1:])
    with pytest.raises(ShapeError, match=r"labels must be in \[0, 4\), got 4"):
        load_detector(name).fit(features, labels + 1)
    with pytest.raises(ShapeError, match="labels must hold integers"):
        load_detector(name).fit(features, labels * 0.5)


@every
def test_features_of_another_width_are_refused(name, reference, fresh):
    detector = load_detector(name).fit(*reference)
    f = fresh[0]
    layers = {name: values[:, 1:] for name, values in f.layers.items() if name != "attacked"}
    other = Features(f.embeddings[:, 1:], f.logits[:, 1:], f.strengths[:, 1:], layers)
    with pytest.raises(ShapeError, match="wide as in fit"):
        detector.score(other)


def complete(points: np.ndarray, logits: np.ndarray) -> Features:
    """Return features of every kind: points stand for strengths and a stage too."""
    attacked = np.arange(len(points))[:, None] % 3 == 1
    layers = {
        "stage:low": points, "squeeze:flip": logits[:, ::-1], "vlm": logits, "attacked": attacked,
    }  # fmt: skip
    return Features(points, logits, points, layers)


def degenerate() -> dict[str, tuple[Features, np.ndarray]]:
    rng = np.random.default_rng(2)
    z, y = rng.normal(size=(60, 5)), rng.integers(3, size=60)
    one = np.ones((60, 5))
    logits = z[:, :3] * 3
    return {
        "one class": (complete(z, logits), np.zeros(60, int)),
        "constant features": (complete(one, np.ones((60, 3))), y),
        "dead channels": (complete(z * [1, 1, 0, 0, 0], logits), y),
        "zeros": (complete(one * 0, one[:, :3] * 0), y),
        "no errors": (complete(z, logits), logits.argmax(axis=1)),
        "only errors": (complete(z, logits), (logits.argmax(axis=1) + 1) % 3),
        "one image": (complete(z[:1], logits[:1]), logits[:1].argmax(axis=1)),
        "huge logits": (complete(z, logits * 1e5), y),
    }


#: What cannot be learned from some images, and must be said: which errors to tell, what right
#: predictions look like, or anything held out.
REFUSED = {
    "fused": {"no errors", "only errors", "one image"},
    "fused-benign": {"only errors", "one image"},
    "fused-full": {"only errors", "one image"},
    "heatmap-attacked": {"only errors", "one image"},
    "layers": {"only errors"},
    "squeezed-joint": {"only errors"},
}


@every
@pytest.mark.parametrize("case", sorted(degenerate()))
def test_degenerate_input_never_gives_nan(name, case):
    features, labels = degenerate()[case]
    if case in REFUSED.get(name, ()):
        with pytest.raises(InsufficientDataError, match="features must h"):
            load_detector(name).fit(features, labels)
        return
    detector = load_detector(name).fit(features, labels)
    assert np.isfinite(detector.score(features)).all()
    ordinary = degenerate()["no errors"][0]
    assert np.isfinite(detector.score(ordinary)).all()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("layers", "stage:"),
        ("squeezed-margin", "squeeze:"),
        ("squeezed-joint", "squeeze:"),
        ("vlm-disagreement", "vlm"),
    ],
)
def test_features_without_what_the_full_mode_adds_are_refused(name, kind, reference):
    f, labels = reference
    bare = Features(f.embeddings, f.logits, f.strengths)
    with pytest.raises(InputError, match=f"layers must hold '{kind}' …"):
        load_detector(name).fit(bare, labels)


@every
def test_it_says_where_it_comes_from(name):
    module = importlib.import_module(DETECTORS[name].partition(":")[0])
    assert "References:" in (module.__doc__ or "")
    assert "eviation" in (module.__doc__ or "")


def test_an_unknown_detector_gets_the_nearest_name():
    with pytest.raises(InputError, match="did you mean 'margin'"):
        load_detector("margins")


def test_an_unknown_option_is_named():
    with pytest.raises(InputError, match="options must be those of detector 'msp', got k"):
        load_detector("msp", k=3)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("energy", {"temperature": 0.0}, "temperature must be above 0"),
        ("doctor-alpha", {"temperature": -1.0}, "temperature must be above 0"),
        ("relative-uncertainty", {"balance": 2.0}, r"balance must be in \(0, 1\]"),
        ("relative-uncertainty", {"temperature": 0.0}, "temperature must be above 0"),
        ("nearest", {"k": 0}, "k and bank must be at least 1"),
        ("trust", {"alpha": 1.0}, r"alpha must be in \[0, 1\)"),
        ("trust", {"bank": 0}, "k and bank must be at least 1"),
        ("vim", {"dimensions": -1}, "dimensions must be at least 0"),
        ("heatmap", {"shrink": 0.0}, "shrink must be above 0"),
        ("heatmap-jaccard", {"threshold": 0.4}, r"threshold must be in \[0.5, 1\]"),
    ],
)
def test_options_out_of_range_are_refused(name, options, message):
    with pytest.raises(InputError, match=message):
        load_detector(name, **options)


def test_options_survive_a_restore(reference):
    kept = DETECTORS.load("trust").restore(
        load_detector("trust", alpha=0.1, k=3, space="stem").fit(*reference).state()
    )
    assert (kept.alpha, kept.k, kept.space, kept.name) == (0.1, 3, "stem", "trust-stem")
