"""Sessions with planted faults, and one with none."""

import pytest

import planted
from faultlens import fixing
from faultlens.concepts import ConceptFile
from faultlens.data.images import ImageSource
from faultlens.session import DebugSession
from test_cue_claims import concepts, pictures, taught_sky


def _session_of(model, out, images=None, known=None, **settings):
    return DebugSession.run(
        model, images=images or planted.source(600), vlm=planted.CellVlm(),
        concepts=known or ConceptFile.parse(planted.concepts_yaml()), out=out, **settings,
    )  # fmt: skip


@pytest.fixture
def session_of():
    """Run a planted model over planted pictures."""
    return _session_of


@pytest.fixture(scope="session")
def fixed(tmp_path_factory):
    """By name: the model, its session, and its fixes by id."""
    made = {}

    def get(name):
        if name not in made:
            out = tmp_path_factory.mktemp(name)
            model = {
                "swapped": planted.swapped_head,
                "healthy": planted.healthy,
                "blind": lambda: planted.blind_encoder("sails", "water", "fur"),
                "cue": taught_sky,
            }[name]()
            images, known = (pictures(), concepts()) if name == "cue" else (None, None)
            session = _session_of(model, out, images, known)
            result = fixing.fix(session, model=model)
            made[name] = model, session, {f["id"]: f for f in result.entries}
        return made[name]

    return get


@pytest.fixture
def relabelled():
    """Pictures of which 12 bear a wrong label; returns them with those places."""
    pixels, labels = planted.draw(600, 8)
    wrong = list(range(0, 120, 10))
    labels = labels.copy()
    labels[wrong] = (labels[wrong] + 2) % len(planted.CLASSES)
    return ImageSource.from_arrays(pixels, labels, planted.CLASSES), wrong
