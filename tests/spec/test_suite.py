import pytest

from faultlens.errors import SpecError
from faultlens.spec.suite import ORDER, Outcome, exit_code, joined, outcome, worst


@pytest.mark.parametrize(
    ("verdict", "expect", "found"),
    [
        ("HOLDS", None, "passed"),
        ("PROVED", None, "passed"),
        ("FAILS", None, "failed"),
        ("REFUTED", "proved", "failed"),
        ("REFUTED", "refuted", "passed"),
        ("FAILS", "refuted", "passed"),
        ("PROVED", "fails", "failed"),
        ("UNKNOWN", None, "unknown"),
        ("UNKNOWN", "refuted", "unknown"),
        ("UNKNOWN", "unknown", "passed"),
        ("VACUOUS", None, "unknown"),
        ("VACUOUS", "vacuous", "passed"),
        ("PROVED", "vacuous", "failed"),
        ("ERROR", "unknown", "error"),
    ],
)
def test_a_verdict_is_held_against_what_was_expected(verdict, expect, found):
    assert outcome(verdict, expect).value == found


@pytest.mark.parametrize("word", ["provd", "error", ""])
def test_an_unknown_expectation_is_told(word):
    if not word:
        assert outcome("HOLDS", word) is Outcome.PASSED
        return
    with pytest.raises(SpecError, match=f"got '{word}'"):
        outcome("HOLDS", word)


def test_a_suite_is_as_good_as_its_worst():
    assert worst(ORDER) == "ERROR"
    assert [worst(ORDER[i:]) for i in range(len(ORDER))] == list(ORDER)
    assert worst([]) is None


def test_regions_join_as_their_union():
    assert joined(["PROVED", "VACUOUS", "PROVED"]) == "PROVED"
    assert joined(["VACUOUS"]) == "VACUOUS"
    assert joined(["PROVED", "UNKNOWN", "VACUOUS"]) == "UNKNOWN"
    assert joined(["UNKNOWN", "REFUTED"]) == "REFUTED"
    assert joined([]) == "UNKNOWN"


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ([], 0),
        (["passed"], 0),
        (["passed", "unknown"], 3),
        (["unknown", "failed"], 1),
        (["failed", "error"], 2),
    ],
)
def test_exit_codes(outcomes, code):
    assert exit_code(Outcome(o) for o in outcomes) == code
