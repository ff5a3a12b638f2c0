import math

import pytest

from faultlens.report import wording


@pytest.mark.parametrize(
    ("share", "text"), [(0.0, "0\xa0%"), (0.005, "1\xa0%"), (1.0, "100\xa0%"), (math.nan, "–")]
)
def test_percent(share, text):
    assert wording.percent(share) == text


def test_a_rounded_zero_has_no_sign():
    assert wording.signed(-0.001) == wording.signed(0.001) == "0.00"


@pytest.mark.parametrize(
    ("confidence", "word"), [(0.95, "high"), (0.7, "moderate"), (0.2, "low"), (math.nan, "known")]
)
def test_confidence_is_told_in_words(confidence, word):
    assert word in wording.sure(confidence)


def test_intervals_without_a_value():
    assert wording.bounds((math.nan, 0.5)) == "[–, 50]"
