"""Numbers and fixed sentences as a person reads them."""

import math
from collections.abc import Mapping
from typing import Any

#: Shown where there is no number.
MISSING = "–"

#: `kind` of a class's heatmap, and how the page calls it.
KINDS = (
    ("differential", "Correct minus incorrect (differential)"),
    ("ground-truth", "All images of this class (ground truth)"),
    ("output-label", "All images predicted as this class (output label)"),
    ("correct", "Correctly classified"),
    ("incorrect", "Missed: of this class, predicted otherwise"),
    ("incorrect-output", "Wrongly claimed: predicted as this class, labelled otherwise"),
)
SOURCES = {"model": "Model", "vlm": "VLM"}

#: Verdicts in the order of their bars.
MODULES = ("head", "encoder", "data", "unknown")

STATUS = {
    "fault": "Fault found",
    "clean": "No fault found",
    "unknown": "Unknown",
}

#: What a run concludes as a whole, where it gives no sentence of its own.
CONCLUSIONS = {
    "input": "What the model is given is at fault.",
    "encoder": "The encoder is at fault.",
    "head": "The head is at fault.",
    "data": "What the training data taught is at fault.",
    "none": "No part stands out as faulty.",
}

#: Views of responsible concepts: heading, explanation, words for positive and negative effects.
VIEWS = {
    "model": (
        "What the embedding says",
        "Change, from correct images to errors, in the share of other concepts it beats, as the "
        "classifier's embedding sees them.",
        ("gained", "lost"),
    ),
    "vlm": (
        "What the pictures show",
        "The same change as the vision-language model sees the pictures themselves.",
        ("gained", "lost"),
    ),
    "head": (
        "How the head weighs it",
        "Correlation of the concept with the head's excess score for the class, against a head "
        "refitted on the same embeddings.",
        ("too much", "too little"),
    ),
}

GLOSSARY = (
    ("Encoder", "The part of the classifier that turns an image into an embedding (a vector). "
     "An encoder fault: the vector no longer says what the picture shows."),
    ("Head", "The last layers, which turn an embedding into scores of the classes. "
     "A head fault: the embedding is right, but the class drawn from it is wrong."),
    ("VLM", "Vision-language model: it compares pictures with words. It is the independent judge "
     "here, and only where it is right about an image itself."),
    ("Concept", "A word for something visible, such as wheels or sky. "
     "The VLM's text tower gives it a direction among the embeddings."),
    ("Strength", "How strongly an image shows a concept: the cosine of its embedding with the "
     "concept's direction, relative to the mean over the reference images."),
    ("Semantic heatmap", "For each pair of concepts, the share of images in which the row's is "
     "stronger than the column's. It is what a class looks like, in words."),
    ("Differential heatmap", "Heatmap of the correct images minus heatmap of the errors. "
     "Where it is far from zero, the errors differ from what the class should look like."),
    ("Verdict", "For each misclassified image: head, encoder, data (the label is probably wrong) "
     "or unknown (the VLM could not judge it)."),
    ("Responsible concept", "A concept whose strength differs between the errors and the correct "
     "images of the class by more than chance explains."),
    ("Interval [a, b]", "The range that covers the true value in 95 of 100 repetitions. "
     "Shares use Wilson's, their differences Newcombe's."),
    ("q", "The p-value after accounting for how many comparisons were made (Benjamini and "
     "Hochberg). At q ≤ 0.05, about one in twenty marked cells is a coincidence."),
    ("R²", "The share of the variation that the map explains on images it was not fitted on: "
     "1 is perfect, 0 no better than the mean."),
)  # fmt: skip


def is_number(x: object) -> bool:
    """Return whether `x` is a finite number, not a flag.

    Example:
        >>> is_number(0.5), is_number(float("nan")), is_number("0.5")
        (True, False, False)
    """
    return isinstance(x, (int, float)) and not isinstance(x, bool) and math.isfinite(x)


def rounded(x: float, digits: int = 0) -> str:
    """Round halves away from zero, as readers (and the page's script) do.

    Example:
        >>> rounded(62.5), rounded(-0.25, 1), rounded(-0.001, 2)
        ('63', '−0.3', '0.00')
    """
    if not is_number(x):
        return MISSING
    scale = 10**digits
    whole = math.floor(abs(x) * scale + 0.5)
    text = f"{whole / scale:.{digits}f}"
    return f"−{text}" if x < 0 and whole else text


def percent(share: float, digits: int = 0) -> str:
    r"""Return a share in percent.

    Example:
        >>> percent(0.834), percent(float("nan"))
        ('83\xa0%', '–')
    """
    # The sign never stands alone at the start of a line.
    return f"{rounded(100 * share, digits)}\u00a0%" if is_number(share) else MISSING


def bounds(interval: tuple[float, float], digits: int = 0, scale: float = 100.0) -> str:
    """Return an interval in brackets, of shares in percent unless `scale` is 1.

    Example:
        >>> bounds((0.711, 0.899)), bounds((-0.2, 0.1), 2, 1.0)
        ('[71, 90]', '[−0.20, 0.10]')
    """
    low, high = interval
    return f"[{rounded(scale * low, digits)}, {rounded(scale * high, digits)}]"


def signed(x: float, digits: int = 2) -> str:
    """Return a number with its sign.

    Example:
        >>> signed(0.312), signed(-0.2), signed(0.0)
        ('+0.31', '−0.20', '0.00')
    """
    text = rounded(x, digits)
    return f"+{text}" if is_number(x) and x > 0 and float(text) > 0 else text


def sure(confidence: float) -> str:
    """Return a confidence in words and as a number.

    Example:
        >>> sure(0.93)
        'high confidence (0.93)'
    """
    if not is_number(confidence):
        return "confidence not known"
    word = "high" if confidence >= 0.9 else "moderate" if confidence >= 0.7 else "low"
    return f"{word} confidence ({rounded(confidence, 2)})"


def concluded(diagnosis: Mapping[str, Any]) -> str:
    """Return the sentence of a run's diagnosis.

    Example:
        >>> concluded({"module": "head"}), concluded({"module": "head", "told": "Rows 1 and 2."})
        ('The head is at fault.', 'Rows 1 and 2.')
    """
    unknown = "Which part is at fault cannot be told."
    return str(diagnosis.get("told") or CONCLUSIONS.get(str(diagnosis.get("module")), unknown))


def plural(n: int, singular: str, several: str = "") -> str:
    """Return a count with its noun.

    Example:
        >>> plural(1, "image"), plural(2400, "image"), plural(2, "class", "classes")
        ('1 image', '2,400 images', '2 classes')
    """
    return f"{n:,} {singular if n == 1 else several or singular + 's'}"
