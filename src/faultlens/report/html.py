"""The report as one HTML file that works anywhere: no server, no network, no other file."""

import math
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from faultlens.heatmaps import MIN_IMAGES
from faultlens.report import wording
from faultlens.report.bars import BarGroup, bar
from faultlens.report.content import ReportContent
from faultlens.report.page import Page
from faultlens.report.payload import embed, payload
from faultlens.stats import wilson

_BINS = 20


def render(content: ReportContent) -> str:
    """Render a report as one self-contained HTML document.

    The page carries its script, styles, images and data, makes no network request (a content
    security policy forbids it), and stays readable without JavaScript, apart from the heatmaps.

    Args:
        content: What to show. Names and sentences may hold any text; they are escaped.

    Returns:
        The document's text, to be written as UTF-8.

    Example:
        Write a session's report beside its other files::

            Path("report.html").write_text(render(content), encoding="utf-8")
    """
    page = Page(content)
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            content=content,
            page=page,
            data=Markup(embed(payload(content, page.shown))),
            style=Markup(_asset("style.css")),
            script=Markup(_asset("report.js")),
            plotly=Markup(_plotly()),
            alignment=_alignment(content),
            histogram=_histogram(content.alignment.r2_dimensions),
            checked=_checked(content),
            invalid=[v.concept for v in content.concept_validity if not v.is_valid],
        )
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("faultlens.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": wording.percent, "bounds": wording.bounds, "rounded": wording.rounded,
        "signed": wording.signed, "sure": wording.sure, "plain": _plain,
        "prose": _prose,
    }  # fmt: skip
    environment.tests |= {"number": wording.is_number, "mapping": lambda x: isinstance(x, Mapping)}
    environment.globals |= {
        "plural": wording.plural, "wilson": _wilson, "kinds": wording.KINDS,
        "sources": wording.SOURCES, "status_words": wording.STATUS, "glossary": wording.GLOSSARY,
        "min_images": MIN_IMAGES,
    }  # fmt: skip
    return environment


def _asset(name: str) -> str:
    return files("faultlens.report").joinpath("templates", name).read_text("utf-8")


@cache
def _plotly() -> str:
    # Importing plotly takes a while and only a report needs it.
    from plotly.offline import get_plotlyjs  # noqa: PLC0415

    return str(get_plotlyjs())


def _wilson(successes: int, n: int) -> tuple[float, float]:
    low, high = wilson(successes, n)
    return float(low), float(high)


def _prose(text: str) -> Markup:
    """Set what stands between backticks as code; everything is escaped."""
    pieces = text.split("`")
    if len(pieces) % 2 == 0:
        return escape(text)
    tags = ("{}", "<code>{}</code>")
    return Markup("").join(Markup(tags[i % 2]).format(p) for i, p in enumerate(pieces))


def _plain(value: Any) -> str:
    """Return a leaf of the run's description as text."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return wording.MISSING
    if isinstance(value, list | tuple):
        return ", ".join(_plain(v) for v in value) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _alignment(content: ReportContent) -> BarGroup:
    """R² of every concept's direction on one scale; no intervals."""
    values = np.asarray(content.alignment.r2_concepts, float)
    # A bar far below zero would squeeze all others; the number beside it stays exact.
    lowest = float(np.clip(np.nanmin(values, initial=0.0), -1, 0))
    nothing = (float("nan"), float("nan"))
    bars = [
        bar(name, float(v), nothing, (lowest, 1.0))
        for name, v in zip(content.concepts, values, strict=True)
    ]
    return BarGroup("R² of each concept's direction", "", tuple(bars))


def _histogram(r2: Any) -> list[tuple[float, int, float]]:
    """Return bins of R² over dimensions: lower edge, count, height in percent of the tallest."""
    values = np.asarray(r2, float)
    values = values[np.isfinite(values)]
    # Dimensions that the map predicts worse than their mean share the first bin.
    counts, edges = np.histogram(np.clip(values, 0, 1), bins=_BINS, range=(0, 1))
    tallest = max(int(counts.max()), 1)
    return [
        (float(e), int(c), round(100 * c / tallest, 1))
        for e, c in zip(edges[:-1], counts, strict=True)
    ]


def _checked(content: ReportContent) -> list[str]:
    """Say what was looked at, for a reader who sees no fault."""
    n, plural = len(content.images), wording.plural
    valid = sum(v.is_valid for v in content.concept_validity)
    seen = int(content.class_validity.is_valid.sum())
    summary = content.overall
    k = len(content.classes)
    lines = [
        f"{plural(n, 'image')} of {plural(k, 'class', 'classes')}, "
        f"{plural(summary.n_errors, 'error')} among them",
        f"{plural(summary.n_judged, 'error')} judged as head or encoder, "
        f"{summary.n_data} as likely label errors",
        f"{plural(len(content.confusions), 'confusion')} one by one",
        f"{valid} of {plural(len(content.concepts), 'concept')} can be trusted on this data",
        f"{seen} of {plural(k, 'class', 'classes')} recognised by the VLM itself",
    ]
    return lines
