"""The world's own answer: are errors repaired when a picture is drawn again without the concept?

This is an intervention on the pictures themselves, which no debugger can make on real ones. It
judges the causes that were confirmed by an intervention on embeddings.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from faultlens.data.world.dataset import render_all
from faultlens.data.world.names import ATTRIBUTES, BACKGROUNDS, COLORS
from faultlens.data.world.scene import Scene
from faultlens.stats import mcnemar_exact
from planting import nets
from planting.instances import LIGHT_WORDS
from planting.subjects import Subject

MAX_ERRORS = 80


def kind_of(word: str) -> tuple[str, str]:
    """Kind and value of a cue in the scene, from the vocabulary's word."""
    lights = {w: x for x, w in LIGHT_WORDS.items()}
    if word in ATTRIBUTES:
        return "attribute", word
    if word in BACKGROUNDS:
        return "background", word
    if word in lights:
        return "light", lights[word]
    if word == "watermark":
        return "watermark", word
    return ("color", word) if word in COLORS else ("occluder", word)


def _has(scene: Scene, kind: str, value: str) -> bool:
    if kind == "attribute":
        return value in scene.attributes
    return scene.watermark if kind == "watermark" else getattr(scene, kind) == value


def _toggled(scene: Scene, kind: str, value: str) -> Scene:
    """The same scene with the concept taken away where it is, or put in where it is not."""
    if kind == "color":
        others = [c for c in COLORS if c != value]
        now = others[scene.seed % len(others)] if scene.color == value else value
        return replace(scene, color=now)
    cue = {"kind": kind, "value": value}
    return nets.with_cue(scene, cue, not _has(scene, kind, value))


def is_causal(subject: Subject, word: str, errors: Sequence[int]) -> bool | None:
    """Whether changing the concept repairs more of the errors than changing the colour does.

    Returns:
        None where the concept cannot be changed in at least 10 of the errors.
    """
    kind, value = kind_of(word)
    rng = np.random.default_rng(0)
    rows = [int(i) for i in rng.permutation(np.asarray(errors, int))][:MAX_ERRORS]
    pairs = [(i, _toggled(subject.drawings.scenes[i], kind, value)) for i in rows]
    pairs = [(i, s) for i, s in pairs if s != subject.drawings.scenes[i]]
    if len(pairs) < 10:
        return None
    names = list(COLORS)
    other = [
        replace(s, color=names[(names.index(s.color) + 1 + s.seed % 9) % len(names)])
        for s in (subject.drawings.scenes[i] for i, _ in pairs)
    ]
    y = subject.drawings.labels[[i for i, _ in pairs]]
    changed = subject.predict(render_all([s for _, s in pairs]).pixels) == y
    control = subject.predict(render_all(other).pixels) == y
    gained, lost = int((changed & ~control).sum()), int((control & ~changed).sum())
    return gained > lost and mcnemar_exact(gained, lost) <= 0.05
