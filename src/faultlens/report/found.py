"""The contact sheet of a query: the images on which a formula holds, the clearest first."""

from collections.abc import Mapping
from typing import Any

from faultlens.report.templating import environment, picture

#: Classes and confusions listed above the pictures.
MAX_GROUPS = 12


def render_found(document: Mapping[str, Any], thumbnails: Mapping[str, bytes]) -> str:
    """Render a query's images as one self-contained HTML document.

    Args:
        document: As `Selection.to_json` makes it.
        thumbnails: JPEG bytes by image name.

    Returns:
        The document's text, to be written as UTF-8; it runs no script and asks no network.
    """
    return (
        environment()
        .get_template("found.html.j2")
        .render(
            document=document,
            pictures={name: picture(jpeg) for name, jpeg in thumbnails.items()},
            groups=[
                (title, list(document[key].items())[:MAX_GROUPS], len(document[key]) - MAX_GROUPS)
                for title, key in (("labelled", "by_class"), ("misclassified", "by_confusion"))
            ],
        )
    )
