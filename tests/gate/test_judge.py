import pytest

from faultlens.gate.config import GateConfig, Limit
from faultlens.gate.judge import Value, judge, share
from faultlens.spec.suite import Outcome

CONFIG = GateConfig.parse({"accuracy": {"min": 0.5}})


def verdict(value, config=CONFIG, **limit):
    return judge("metrics", value, Limit(**limit), config).case


def test_an_estimate_is_compared_itself_and_told_to_be_unsure():
    value = share("accuracy", 90, 100, 0.95)
    assert verdict(value, min=0.9).outcome is Outcome.PASSED
    assert verdict(value, min=0.901).outcome is Outcome.FAILED
    assert "not surely" in verdict(value, min=0.9).message
    assert "not surely" not in verdict(value, min=0.7).message
    assert judge("m", value, Limit(min=0.9), CONFIG).told == "PASSED, not surely"


def test_a_bound_asks_the_whole_interval():
    value = share("error", 5, 100, 0.95)
    high = value.interval[1]
    assert verdict(value, max=high, judge="bound").outcome is Outcome.PASSED
    assert verdict(value, max=high - 1e-6, judge="bound").outcome is Outcome.FAILED
    strict = GateConfig.parse({"accuracy": {"min": 0.5}, "judge": "bound"})
    assert verdict(value, strict, max=0.05).outcome is Outcome.FAILED
    assert verdict(value, strict, max=0.05, judge="estimate").outcome is Outcome.PASSED


def test_a_bound_without_an_interval_fails():
    value = Value("map_r2", 0.9, is_share=False)
    case = verdict(value, min=0.1, judge="bound")
    assert case.outcome is Outcome.FAILED
    assert "no interval to judge by" in case.message
    assert verdict(value, min=0.1).outcome is Outcome.PASSED


@pytest.mark.parametrize("value", [None, float("nan")])
def test_what_cannot_be_computed_never_passes(value):
    case = verdict(Value("map_r2", value, reason="no map"), min=0.0, too_few="skip")
    assert case.outcome is Outcome.FAILED
    assert "could not be computed" in case.message


def test_too_few_images_fail_or_are_skipped_and_say_so():
    value = share("error of ship", 0, 6, 0.95)
    case = verdict(value, max=0.5)
    assert case.outcome is Outcome.FAILED
    assert "6 images, fewer than 10: too few to judge" in case.message
    skipped = verdict(value, max=0.5, too_few="skip")
    assert (skipped.outcome, skipped.verdict) == (Outcome.UNKNOWN, "SKIPPED")
    assert verdict(share("x", 0, 0, 0.95), max=0.5).outcome is Outcome.FAILED
    assert verdict(share("x", 0, 0, 0.95), max=0.5, too_few="skip").outcome is Outcome.UNKNOWN
