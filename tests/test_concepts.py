import numpy as np
import pytest

import planted
from faultlens.concepts import ConceptFile, Vocabulary, strengths, zero_shot
from faultlens.errors import InputError
from faultlens.validity import agreement, class_validity, concept_validity


def parsed():
    return ConceptFile.parse(planted.concepts_yaml())


def test_short_and_long_forms_mean_the_same(tmp_path):
    path = tmp_path / "concepts.yaml"
    path.write_text(
        "concepts:\n  wheels:\n  fur: [fur, hair]\n"
        "  sky: {prompts: [blue sky], templates: ['{} above']}\n  wet: damp\n"
        "classes:\n  car: [car, automobile]\n  cat: {relevant: [fur]}\n  dog:\n"
    )
    file = ConceptFile.read(path)
    assert file.concepts["wheels"].prompts == ("wheels",)
    assert file.concepts["fur"].prompts == ("fur", "hair")
    assert file.concepts["sky"].templates == ("{} above",)
    assert file.concepts["wet"].prompts == ("damp",)
    assert file.classes["car"].names == ("car", "automobile")
    assert file.classes["cat"].relevant == ("fur",)
    assert file.classes["dog"].names == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("concept: [a, b]", "unknown key 'concept'; did you mean 'concepts'?"),
        ("concepts: {a: {promts: [x]}, b: }", "did you mean 'prompts'?"),
        ("concepts: [a]", "at least 2 concepts, got 1"),
        ("concepts: [wheels, fur]\nclasses: {car: {relevant: [weels]}}", "did you mean 'wheels'?"),
        ("concepts: [a, b]\ntemplates: ['photo']", "template must contain {} once, got 'photo'"),
        ("- a\n- b", "must be a mapping with the key 'concepts', got list"),
        ("concepts: [a", "must be a YAML file"),
        ("concepts: {a: {prompts: []}, b: }", "concepts.a.prompts"),
    ],
)
def test_a_wrong_file_says_what_is_wrong(tmp_path, text, message):
    path = tmp_path / "concepts.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        ConceptFile.read(path)
    assert message in str(caught.value)
    assert "concepts.yaml" in str(caught.value)


def test_a_missing_file_and_an_unknown_class_are_told():
    with pytest.raises(InputError, match=r"nowhere\.yaml must be a file"):
        ConceptFile.read("nowhere.yaml")
    with pytest.raises(InputError, match="unknown class 'bird'; did you mean 'birds'"):
        Vocabulary.build(parsed(), ("birds", "car"), planted.CellVlm().encode_text)


def test_directions_are_the_normalised_mean_of_normalised_prompts():
    vlm = planted.CellVlm()
    file = ConceptFile.parse(
        {"concepts": {"wheels": ["wheels", "road"], "fur": None}, "templates": ["{}", "a {}"]}
    )
    vocabulary = Vocabulary.build(file, ("car", "cat"), vlm.encode_text)
    vectors = vlm.encode_text(["wheels", "a wheels", "road", "a road"])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    mean = vectors.mean(axis=0)
    assert np.allclose(vocabulary.directions[0], mean / np.linalg.norm(mean), atol=1e-6)
    assert np.allclose(np.linalg.norm(vocabulary.class_directions, axis=1), 1, atol=1e-6)


def test_strengths_are_cosines_and_centring_removes_the_mean():
    rng = np.random.default_rng(0)
    v, q = rng.normal(size=(50, 5)), np.eye(5)[:3]
    raw = strengths(v, q)
    expected = v[:, :3] / np.linalg.norm(v, axis=1, keepdims=True)
    assert np.allclose(raw, expected, atol=1e-6)
    assert np.allclose(strengths(v * 7, q), raw, atol=1e-6)
    assert np.allclose(strengths(v, q, raw.mean(axis=0)).mean(axis=0), 0, atol=1e-6)


def test_zero_shot_reads_the_planted_classes():
    vlm = planted.CellVlm()
    vocabulary = Vocabulary.build(parsed(), planted.CLASSES, vlm.encode_text)
    source = planted.source(300)
    batch = np.stack([vlm.prepare(source.load(i)) for i in range(300)])
    predicted = zero_shot(vlm.encode(batch)["embedding"], vocabulary.class_directions)
    assert (predicted == source.labels).mean() > 0.9


def measured(vlm, n=400):
    source = planted.source(n)
    batch = np.stack([vlm.prepare(source.load(i)) for i in range(n)])
    vocabulary = Vocabulary.build(parsed(), planted.CLASSES, vlm.encode_text)
    return vlm.encode(batch)["embedding"], source.labels, vocabulary


def test_the_gate_says_yes_to_true_concepts():
    vlm = planted.CellVlm()
    v, y, vocabulary = measured(vlm)
    verdicts = concept_validity(v, y, vocabulary, vlm.encode_text, np.ones(8))
    assert all(c.is_valid for c in verdicts)
    assert {c.source for c in verdicts} == {"relevance"}
    assert min(c.auroc for c in verdicts) > 0.9


def test_the_gate_says_no_to_shuffled_names():
    class Shuffled(planted.CellVlm):
        def encode_text(self, texts):
            swap = dict(zip(planted.CONCEPTS, planted.CONCEPTS[3:] + planted.CONCEPTS[:3]))  # noqa: B905
            return super().encode_text([" ".join(swap.get(w, w) for w in t.split()) for t in texts])

    vlm = Shuffled()
    v, y, vocabulary = measured(vlm)
    verdicts = concept_validity(v, y, vocabulary, vlm.encode_text, np.ones(8))
    assert sum(c.is_valid for c in verdicts) <= 2
    assert "needs 0.75" in next(c.reason for c in verdicts if not c.is_valid)


def test_attribute_labels_win_over_relevance():
    vlm = planted.CellVlm()
    v, y, vocabulary = measured(vlm)
    random = np.random.default_rng(0).integers(0, 2, len(y))
    few = np.full(len(y), -1)
    few[:5] = 1
    verdicts = {
        c.concept: c
        for c in concept_validity(
            v, y, vocabulary, vlm.encode_text, np.ones(8), {"fur": random, "wings": few}
        )
    }
    assert verdicts["fur"].source == "attributes"
    assert not verdicts["fur"].is_valid
    assert verdicts["wings"].source == "relevance"


def test_without_labels_wordings_decoys_and_the_map_decide():
    vlm = planted.CellVlm()
    v, y, _ = measured(vlm)
    file = ConceptFile.parse({"concepts": ["fur", "sails", "melancholy"]})
    vocabulary = Vocabulary.build(file, planted.CLASSES, vlm.encode_text)
    verdicts = {
        c.concept: c
        for c in concept_validity(v, y, vocabulary, vlm.encode_text, np.array([0.9, 0.0, 0.9]))
    }
    assert verdicts["fur"].is_valid
    assert "R² through the map" in verdicts["sails"].reason
    assert not verdicts["melancholy"].is_valid
    assert {c.source for c in verdicts.values()} == {"agreement"}


def test_agreement_is_the_intraclass_correlation():
    rng = np.random.default_rng(1)
    image, error = rng.normal(size=(500, 1)), rng.normal(size=(4, 500, 1))
    assert agreement(image + error)[0] == pytest.approx(0.5, abs=0.07)
    assert agreement(image + 0 * error + np.arange(4)[:, None, None])[0] == pytest.approx(1)
    assert abs(agreement(error)[0]) < 0.07


def test_class_validity_judges_all_and_each():
    y = np.repeat([0, 1, 2, 3], 25)
    predicted = y.copy()
    predicted[y == 3] = 0
    judged = class_validity(y, predicted, 5)
    assert judged.is_usable
    assert judged.is_valid.tolist() == [True, True, True, False, False]
    assert np.isnan(judged.recall[4])
    blind = class_validity(y, np.random.default_rng(0).integers(0, 4, 100), 4)
    assert not blind.is_usable
    # Always saying the largest class is not knowing anything.
    y = np.r_[np.zeros(90, int), np.ones(10, int)]
    assert not class_validity(y, np.zeros(100, int), 2).is_usable
