import dataclasses

import numpy as np
import pytest

from faultlens.finding import Finding
from faultlens.report.cells import MAX_CELLS, CellFinder, strongest_pairs
from faultlens.report.chain import MAX_STRENGTHS, Cells, chain, gauge
from faultlens.report.page import Page, badge


def finding(**evidence):
    return Finding(
        "a", "localization.data", "fault", "ship", "Wrong.", 0.4, (0.3, 0.5), 20, 0.8,
        evidence=evidence,
    )  # fmt: skip


def links(**evidence):
    return chain(finding(**evidence), (), Cells(), "out")


RATE = {"share": 0.41, "interval": [0.38, 0.44], "random_quantiles": [0.0, 0.01, 0.03]}


def test_the_figure_shows_share_interval_and_random_band():
    g = gauge({"repaired": RATE})
    assert (g.value, g.low, g.high, g.random_low, g.random_high) == (41, 38, 44, 0, 3)


@pytest.mark.parametrize(
    "rate",
    [None, {}, {"share": 0.4}, {**RATE, "share": None}, {**RATE, "random_quantiles": [None, None]}],
)
def test_an_intervention_without_random_directions_has_no_figure(rate):
    found = links(intervention={"told": "The rows were swapped back.", "repaired": rate})
    assert found.gauge is None
    assert found.told == "The rows were swapped back."
    assert found.no_intervention == ""


def test_a_cause_confirmed_otherwise_says_so():
    found = chain(dataclasses.replace(finding(), confirmed=True), (), Cells(), "out")
    assert found.no_intervention.startswith("no concept was erased")


@pytest.mark.parametrize(
    ("fix", "said", "is_tried"),
    [
        (None, "no fix tried yet: `faultlens fix out`", False),
        ({"told": "Refit.", "gain": 0.05, "interval": [0.01, 0.09], "is_advised": True},
         "Refit: accuracy +5.0 points [1.0, 9.0], advised", True),
        ({"told": "Refit.", "gain": -0.05, "interval": [-0.09, -0.01], "is_advised": False},
         "Refit: accuracy −5.0 points [−9.0, −1.0], not advised", True),
        ({"told": "Collect images.", "gain": None, "interval": None, "is_advised": False},
         "Collect images: gain not measured", True),
    ],
)  # fmt: skip
def test_the_fix_says_what_it_gains(fix, said, is_tried):
    found = links(**({"fix": fix} if fix else {}))
    assert (found.fix, found.is_fix_tried) == (said, is_tried)
    assert found.is_fix_advised == bool(fix and fix["is_advised"])


def test_strengths_are_shortened_and_the_rest_counted(content):
    card = Page(content).cards[0]
    shown, whole = card.chain.strengths, card.bars[0]
    assert [b.name for b in shown.bars] == [b.name for b in whole.bars[:MAX_STRENGTHS]]
    assert len(shown.bars) + shown.n_more == len(whole.bars) + whole.n_more


def cells(content, f):
    page = Page(content)
    return CellFinder(content, page.trusted).of_finding(f, page._classes_of(f))


def test_cells_are_the_strongest_of_the_heatmap_of_the_class(content):
    found = cells(content, finding())
    delta = content.counts["model"].differential(0)
    usable = delta.significant() & (np.arange(12) != 11)
    a, b = np.unravel_index(np.argmax(np.abs(np.where(usable, delta.values, 0))), (12, 12))
    first, second = sorted((a, b))
    assert found.target == "#cells-class-0"
    assert found.rows[0][0] == f"{content.concepts[first]} > {content.concepts[second]}"
    assert found.rows == strongest_pairs(delta, {"spots": False})[:MAX_CELLS]


@pytest.mark.parametrize(
    ("subject", "evidence", "target"),
    [
        ("ship -> plane", {}, "#cells-confusion-0"),
        ("the model", {"classes": ["deer"]}, "deer"),
        ("the model", {"confusions": [{"label": "ship", "predicted": "plane", "n": 3}]},
         "#cells-confusion-0"),
        ("the model", {"confusions": [{"label": "ship", "predicted": "boat", "n": 3}]}, ""),
        ("the model", {}, ""),
    ],
)  # fmt: skip
def test_cells_come_from_where_the_finding_points(content, subject, evidence, target):
    found = cells(content, dataclasses.replace(finding(**evidence), subject=subject))
    assert target in (found.target, found.where)
    assert bool(found.rows) != bool(found.missing)


def test_too_few_errors_have_no_cells(content):
    found = cells(content, dataclasses.replace(finding(), subject="plane"))
    assert found.rows == ()
    assert found.missing == "too few errors of plane for a heatmap"


def test_notices_have_no_chain(content):
    page = Page(content)
    assert [c.chain is None for c in page.cards] == [False, False, True, True]
    assert [c.finding.id for c in page.suspected] == ["encoder-1"]


def test_an_input_fault_has_its_badge():
    assert badge("localization.input") == "input"
