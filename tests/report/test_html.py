import dataclasses
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from plotly.offline import get_plotlyjs

from faultlens.alignment import AlignmentReport
from faultlens.report.html import render

VOID = {"meta", "link", "img", "input", "br", "hr"}


class Reader(HTMLParser):
    """Collects the text under some ids, all ids, links and elements."""

    def __init__(self, wanted=()):
        super().__init__()
        self.wanted, self.stack, self.lines = set(wanted), [], []
        self.ids, self.links, self.tags, self.handlers, self.unclosed = [], [], [], [], []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.append((tag, values))
        self.handlers += [name for name in values if name.startswith("on")]
        if "id" in values:
            self.ids.append(values["id"])
        if tag == "a":
            self.links.append(values["href"])
        if tag not in VOID:
            self.stack.append((tag, values.get("id")))

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.stack.pop()

    def handle_endtag(self, tag):
        opened, _ = self.stack.pop()
        if opened != tag:
            self.unclosed.append((opened, tag))

    def handle_data(self, data):
        hidden = {"style", "script", "title"} & {tag for tag, _ in self.stack}
        if not hidden and self.wanted & {i for _, i in self.stack} and data.strip():
            self.lines.append(" ".join(data.split(" ")).strip())


def read(html, *wanted):
    reader = Reader(wanted)
    reader.feed(html)
    return reader


def first_page(html):
    sections = "summary", "findings", "suspected", "noted"
    return "\n".join(read(html, *sections).lines) + "\n"


def test_first_page(content, golden):
    golden("report/first_page_fault.txt", first_page(render(content)))


def test_first_page_of_a_clean_run(make, golden):
    golden("report/first_page_clean.txt", first_page(render(make(status="clean"))))


def test_first_page_of_an_undecided_run(make, golden):
    golden("report/first_page_unknown.txt", first_page(render(make(status="unknown"))))


def test_elements_are_closed_and_links_lead_somewhere(content):
    page = read(render(content))
    assert page.unclosed == []
    assert page.stack == []
    assert len(page.ids) == len(set(page.ids))
    assert {link.removeprefix("#") for link in page.links} <= set(page.ids)
    assert all(values.get("alt") for tag, values in page.tags if tag == "img" and "src" in values)


def test_nothing_is_loaded_from_elsewhere(content):
    html = render(content).replace(get_plotlyjs(), "")
    assert "http://" not in html
    assert "https://" not in html
    assert not re.search(r"url\(|@import|\bfetch\(|XMLHttpRequest", html)
    sources = [v for _, values in read(html).tags for k, v in values.items() if k == "src"]
    assert sources
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)


def test_hostile_names_stay_text(hostile):
    html = render(hostile)
    page = read(html, "summary", "confusion-matrix", "classes", "trust")
    assert page.unclosed == []
    assert page.handlers == []
    assert [tag for tag, _ in page.tags].count("script") == 3
    assert not any(link.startswith("http") for link in page.links)
    for name in hostile.classes:
        assert name in page.lines
    assert "{{ 7 * 7 }}" in html
    assert "<b>bold" not in html
    # The ends of the three scripts and nothing else.
    assert html.count("</script") == 3


def lines_of(html, section):
    return " ".join(read(html, section).lines)


def test_confirmed_causes_come_first_and_the_others_stand_apart(content):
    head, encoder, *notices = content.findings
    html = render(dataclasses.replace(content, findings=(*notices, encoder, head)))
    assert html.index('id="findings"') < html.index('id="suspected"') < html.index('id="noted"')
    assert head.claim in lines_of(html, "findings")
    assert encoder.claim not in lines_of(html, "findings")
    suspected = lines_of(html, "suspected")
    assert encoder.claim in suspected
    assert "Suspected, not confirmed" in suspected
    assert "? not confirmed by an intervention" in suspected
    assert "confirmed by" not in lines_of(html, "noted")


def test_a_page_of_suspicions_says_that_none_is_confirmed(content):
    html = render(dataclasses.replace(content, findings=content.findings[1:]))
    assert "No cause was confirmed by an intervention." in lines_of(html, "findings")


def test_every_cause_shows_its_chain(content):
    text = lines_of(render(content), "finding-head-1")
    # fmt: off
    links = ["Images", "52 errors", "Strengths", "Cells", "Heatmap of ship → plane", "Intervention",
             "Erasing sky repairs 80 %", "Fewest concepts that carry it: sky", "Fix",
             "Refit the rows of ship and plane: accuracy +9.4 points [6.0, 12.8], advised"]
    # fmt: on
    places = [text.index(link) for link in links]
    assert places == sorted(places)


def test_missing_links_are_shown_as_missing(content):
    bare = dataclasses.replace(content.findings[0], evidence={}, subject="the model")
    text = lines_of(render(dataclasses.replace(content, findings=(bare,))), "finding-head-1")
    for said in (
        "images not listed", "no image to show", "no concept differs by more than chance",
        "no class or confusion to compare", "no concept was erased", "no fix tried yet:",
        "faultlens fix DIR",
    ):  # fmt: skip
        assert said in text


def test_the_diagnosis_is_told_at_the_top(content):
    found = {"module": "input", "confidence": 0.93, "concepts": ["sky"], "told": "It is <blurred>."}
    html = render(dataclasses.replace(content, run={"diagnosis": found}))
    text = lines_of(html, "summary")
    assert "It is &lt;blurred&gt;." in html
    assert "high confidence (0.93)" in text
    assert "concepts: sky" in text
    assert '<span class="badge input">input</span>' in html
    silent = render(dataclasses.replace(content, run={"diagnosis": {"module": "head"}}))
    assert "The head is at fault." in lines_of(silent, "summary")


def test_claims_are_escaped_and_commands_set_as_code(content):
    claim = "Run `faultlens <b>` & see"
    finding = dataclasses.replace(content.findings[0], claim=claim, advice="an odd ` <i>")
    html = render(dataclasses.replace(content, findings=(finding,)))
    assert "<h3>Run <code>faultlens &lt;b&gt;</code> &amp; see</h3>" in html
    assert "an odd ` &lt;i&gt;" in html


def test_what_is_not_known_is_not_a_number(content):
    nan = math.nan
    nothing = dataclasses.replace(
        content.overall, head=nan, n_judged=0, head_interval=(nan, nan), n_errors=0, n_data=0
    )
    html = render(
        dataclasses.replace(
            content, overall=nothing, images=(), confusion=np.zeros((6, 6), np.int64),
            findings=(), confusions=(), thumbnails={}, failures={}, run={},
            alignment=AlignmentReport(
                nan, np.full(4, nan), np.full(12, nan), np.full(12, nan), nan, nan, nan
            ),
        )
    )  # fmt: skip
    body = html.replace(get_plotlyjs(), "")
    text = "\n".join(read(body, "summary", "findings", "trust", "made").lines)
    assert not re.search(r"\bnan\b", text, re.IGNORECASE)
    assert not re.search(r"\b(?:nan|None)%?[;\"]", body)
    assert "No error could be judged." in text
    assert "The map could not be tested." in text


def test_invalid_concepts_are_named(content):
    text = "\n".join(read(render(content), "trust", "classes").lines)
    assert "† not trusted" in text
    assert "left out of every claim: spots." in text


def test_a_vlm_at_chance_is_not_a_judge(content):
    weak = dataclasses.replace(content.class_validity, is_usable=False, accuracy=0.2)
    text = " ".join(read(render(dataclasses.replace(content, class_validity=weak)), "trust").lines)
    assert "it cannot judge this data" in text


def test_every_heatmap_has_its_place(content):
    ids = set(read(render(content)).ids)
    assert {f"heatmap-class-{k}" for k in range(6)} <= ids
    assert {f"heatmap-confusion-{i}-{s}" for i in range(4) for s in ("model", "vlm")} <= ids


@pytest.mark.parametrize(("n_classes", "n_concepts", "limit_mb"), [(13, 26, 15), (20, 100, 25)])
def test_size(make, n_classes, n_concepts, limit_mb):
    content = make(
        classes=tuple(f"class {k}" for k in range(n_classes)),
        concepts=tuple(f"concept {c}" for c in range(n_concepts)),
        n_each=300, n_thumbnails=600, n_confusions=20,
    )  # fmt: skip
    assert len(render(content).encode()) < limit_mb * 1e6
