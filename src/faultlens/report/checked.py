"""The page of a check: every specification with its rates, and pictures of its violations."""

import base64
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from faultlens.report.wording import bounds, percent

#: Pictures of one specification's violations.
MAX_PICTURES = 12


def render_check(document: Mapping[str, Any], thumbnails: Mapping[tuple[str, str], bytes]) -> str:
    """Render a check as one self-contained HTML document.

    Args:
        document: As in `check.json`.
        thumbnails: JPEG bytes by source and image name, of some violating images.

    Returns:
        The document's text, to be written as UTF-8; it runs no script and asks no network.
    """
    pictures = {
        key: "data:image/jpeg;base64," + base64.b64encode(data).decode()
        for key, data in thumbnails.items()
    }
    style = files("faultlens.report").joinpath("templates", "style.css").read_text("utf-8")
    template = _environment().get_template("check.html.j2")
    return template.render(
        document=document, pictures=pictures, style=Markup(style), n_pictures=MAX_PICTURES
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
    environment.filters |= {"percent": percent, "bounds": bounds}
    return environment
