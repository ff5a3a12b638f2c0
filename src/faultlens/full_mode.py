"""A session's images once more, for a monitor in full mode."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from faultlens import reopen
from faultlens.arrays import FloatArray
from faultlens.data.images import ImageSource, open_images
from faultlens.errors import FaultlensError, InputError
from faultlens.inner_features import DEFAULT, inner_features
from faultlens.models.classifier import Classifier, batches
from faultlens.models.stages import AUTO
from faultlens.monitor.features import SQUEEZE, STAGE, Features
from faultlens.session import DebugSession

#: Logits that differ by more, relative to the largest, are of other pictures.
_TOLERANCE = 1e-2

Progress = Callable[[int, int], None]


def watch_again(
    session: DebugSession,
    names: Sequence[str],
    features: Features,
    layers: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> Features:
    """Run images of a session again, and add what the full mode reads.

    Args:
        session: Finished, over a classifier and pictures.
        names: N of its images.
        features: Of these images, as the session stored them.
        layers: Names of `features.layers` to be taken, as another monitor has them; up to six
            stages and the default changes unless given.
        progress: Called with the images done and all.

    Returns:
        The same features with layers.

    Raises:
        InputError: The session knows no pictures or no classifier, or these have changed.
    """
    if session.info["config"].get("features"):
        raise InputError(
            "full mode must see pictures, got a session over stored features; fit a light monitor"
        )
    model = reopen.classifier(session)
    batches = _batches(model, _pictures(session), names, progress)
    stages, squeezes = wanted(layers) if layers else ((AUTO,), DEFAULT)
    found = inner_features(model, batches, stages=stages, squeezes=squeezes)
    largest = float(np.abs(features.logits).max())
    if np.abs(found.logits - features.logits).max() > _TOLERANCE * max(largest, 1e-6):
        raise InputError(
            "images must be those of the run, got pictures with other logits; run 'faultlens "
            "debug' again"
        )
    return Features(features.embeddings, features.logits, features.strengths, found.layers)


def wanted(layers: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the stages and the changes that layers name.

    Example:
        >>> wanted(["squeeze:flip", "stage:conv1", "stage:conv2"])
        (('conv1', 'conv2'), ('flip',))
    """
    stages, squeezes = (
        tuple(name.removeprefix(kind) for name in layers if name.startswith(kind))
        for kind in (STAGE, SQUEEZE)
    )
    return stages, squeezes


def _pictures(session: DebugSession) -> ImageSource:
    path = session.info["config"]["images"]
    try:
        return open_images(path)
    except FaultlensError as error:
        raise InputError(
            f"images must be where the run found them, got '{path}' ({error}); put them back"
        ) from error


def _batches(
    model: Classifier, source: ImageSource, names: Sequence[str], progress: Progress | None
) -> Iterator[FloatArray]:
    place = {name: i for i, name in enumerate(source.names)}
    gone = [name for name in names if name not in place]
    if gone:
        raise InputError(
            f"images must be those of the run, got none named '{gone[0]}'; put it back"
        )
    n_done = 0
    for batch in batches(model, (source.load(place[name]) for name in names)):
        yield batch
        n_done += len(batch)
        if progress is not None:
            progress(n_done, len(names))
