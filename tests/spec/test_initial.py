import numpy as np
import pytest

from faultlens.spec.ground import Scope, ground
from faultlens.spec.initial import Known, initial, quoted
from faultlens.spec.parse import parse

CLASSES = ("truck", "pick-up", 'the "cat"')
CONCEPTS = ("wheels", "long snout", "fur", "and", "noise")


def known(n=300, **changed):
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 3
    relevant = np.array([[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 1, 1, 0]], bool)
    given = {
        "classes": CLASSES,
        "concepts": CONCEPTS,
        "valid": np.array([True, True, True, True, False]),
        "relevant": relevant,
        "strengths": relevant[labels] + rng.normal(0, 0.3, (n, 5)),
        "labels": labels,
        "predictions": labels,
    } | changed
    return Known(**given)


def specs(text):
    return list(ground(parse(text), Scope(CONCEPTS, CLASSES)))


def test_every_relevant_concept_is_held_against_every_irrelevant_one():
    found = [s for s in specs(initial(known(), "out")) if s.name.startswith("truck has")]
    assert [s.name for s in found] == [
        "truck has[a=wheels,b=long snout]", "truck has[a=wheels,b=fur]", "truck has[a=wheels,b=and]"
    ]  # fmt: skip
    assert {s.cls for s in found} == {0}
    assert [p.kind for p in found[0].region.parts] == ["slabs"]


def test_each_has_its_observed_rate_as_a_comment():
    k = known()
    text = initial(k, "out")
    own = k.strengths[k.labels == 0]
    wins = int((own[:, 0] > own[:, 2]).sum())
    assert f"#   wheels > fur: {wins}/100 = {wins / 100:.3f} [" in text


def test_concepts_that_cannot_be_trusted_are_left_out():
    assert "noise" not in initial(known(), "out")


def test_regularities_are_of_correct_images_and_special_to_the_class():
    k = known()
    # Trucks have less of `and` than of `long snout`, which says nothing the file did not.
    strengths = k.strengths.copy()
    strengths[k.labels == 0, 1] += 2
    found = [
        s for s in specs(initial(known(strengths=strengths), "out"))
        if s.name.startswith("truck: ")
    ]  # fmt: skip
    assert found[0].name.startswith("truck: long snout over ")
    assert found[0].cls == 0
    assert len(found[0].given.parts) == 2


def test_too_few_images_or_words_propose_nothing():
    text = initial(known(valid=np.zeros(5, bool)), "out\nspec evil: true;")
    assert "Nothing to propose" in text
    assert specs(text) == []


@pytest.mark.parametrize(
    ("name", "written"),
    [("wheels", "wheels"), ("and", '"and"'), ("a b", '"a b"'), ('a"b\\c', r'"a\"b\\c"')],
)
def test_names_are_quoted_where_they_must_be(name, written):
    assert quoted(name) == written
