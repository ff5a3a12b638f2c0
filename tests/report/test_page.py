import dataclasses
import math

import numpy as np
import pytest

from faultlens.finding import Finding
from faultlens.report.bars import bar, concept_bars
from faultlens.report.page import MAX_STRIP, Page, statistic, verdict_counts


def finding(**changes):
    base = {
        "id": "a-1", "kind": "localization.head", "severity": "fault", "subject": "ship",
        "claim": "It is wrong.", "statistic": 0.4, "interval": (0.3, 0.5), "n": 20,
        "confidence": 0.8,
    }  # fmt: skip
    return Finding(**(base | changes))


def page_with(content, *findings):
    return Page(dataclasses.replace(content, findings=findings))


@pytest.mark.parametrize(
    ("subject", "target"),
    [
        ("ship", "#class-0"),
        ("ship -> plane", "#confusion-0"),
        ("ship → plane", "#confusion-0"),
        ("confusion ship -> plane", "#confusion-0"),
        ("frog -> deer", "#class-5"),
        ("the model", "#confusion-matrix"),
    ],
)
def test_a_card_leads_to_its_section(content, subject, target):
    first = (content.confusions[0].label, content.confusions[0].predicted)
    assert first == (0, 1)
    assert page_with(content, finding(subject=subject)).cards[0].links[0][0] == target


def test_images_of_a_finding_stay_in_reach(content):
    errors = [i for i, image in enumerate(content.images) if image.label != image.prediction]
    evidence = {"images": [errors[0], 10_000, "x", True, -1, *errors[1:12]]}
    page = page_with(content, finding(evidence=evidence))
    strip = [tile.index for tile in page.cards[0].strip]
    assert strip == errors[:MAX_STRIP]
    assert set(errors[:12]) <= set(page.shown)


def test_images_without_a_thumbnail_are_named(content):
    bare = dataclasses.replace(content, thumbnails={})
    page = page_with(bare, finding(evidence={"images": [5]}))
    tile = page.cards[0].strip[0]
    assert tile.source == ""
    assert "ship/0005.jpg" in tile.alt
    assert page.shown == [5]


@pytest.mark.parametrize(
    ("evidence", "value", "interval", "text"),
    [
        ({"statistic": "head share"}, 0.82, (0.71, 0.9), "head share 82\xa0% [71, 90]"),
        ({"statistic": "R² of the map"}, 0.5, (0.4, 0.6), "R² of the map 0.50 [0.40, 0.60]"),
        ({"statistic": "n_images"}, 4.0, (2.0, 7.0), "n images 4.00 [2.00, 7.00]"),
        ({}, math.nan, (math.nan, math.nan), "statistic – [–, –]"),
    ],
)
def test_statistic(evidence, value, interval, text):
    f = finding(evidence=evidence, statistic=value, interval=interval)
    assert statistic(f) == text


def test_verdicts_add_up_to_the_errors(content):
    for summary in content.class_summaries:
        assert sum(n for _, n in verdict_counts(summary)) == summary.n_errors


def test_bars_share_one_scale_and_show_the_sign():
    groups = concept_bars(
        [
            {"concept": "a", "view": "model", "effect": -0.4, "interval": [-0.5, -0.3]},
            {"concept": "b", "view": "model", "effect": 0.25, "interval": [0.1, 0.4]},
            {"concept": "c", "view": "head", "effect": math.nan, "interval": [0, 0]},
        ],
        {"b": False},
    )
    assert len(groups) == 1
    lost, gained = groups[0].bars
    assert (lost.word, lost.left, lost.width) == ("lost", 10.0, 40.0)
    assert (gained.word, gained.left, gained.is_valid) == ("gained", 50.0, False)


def test_a_bar_beyond_the_scale_ends_at_its_edge():
    assert bar("a", -7.0, (math.nan, math.nan), (-1.0, 1.0)).left == 0


def test_the_faulty_class_is_open(content, make):
    assert Page(content).open_class == 0
    assert page_with(content, finding(subject="deer")).open_class == 3
    assert Page(make(status="clean")).open_class is None


def test_many_classes_leave_those_with_most_errors(content, monkeypatch):
    monkeypatch.setattr("faultlens.report.page.MAX_MATRIX", 2)
    wrong = content.confusion - np.diag(np.diag(content.confusion))
    involved = wrong.sum(axis=0) + wrong.sum(axis=1)
    kept = Page(content).matrix_classes
    assert sorted(involved[kept]) == sorted(involved)[-2:]
