"""The vision-language model's opinion of the classes, for monitors that ask for it."""

from collections.abc import Iterable, Sequence
from itertools import islice

import numpy as np
from PIL import Image

from faultlens import reopen, vlm_again
from faultlens.arrays import FloatArray
from faultlens.errors import FaultlensError, InputError
from faultlens.monitor.vlm_classes import VlmClasses
from faultlens.session import DebugSession
from faultlens.vlm.backend import VlmBackend
from faultlens.vlm.load import load_vlm

_BATCH = 32


def classes_of(session: DebugSession) -> VlmClasses:
    """Return the classes as a session's vision-language model knows them."""
    return VlmClasses(
        session.info["config"]["vlm"],
        session.info["facts"]["vlm"]["content_hash"],
        np.asarray(session.arrays("alignment")["class_directions"]),
    )


def of_session(session: DebugSession, names: Sequence[str], asked: VlmClasses) -> FloatArray:
    """Return the opinion of images of a session from their stored embeddings.

    Args:
        session: Finished, over pictures.
        names: N of its images, reference images among them.
        asked: The classes as the monitor knows them.

    Returns:
        (N, K) scores.

    Raises:
        InputError: The session used another vision-language model, or its images went away.
        StoreError: The embeddings of the run are missing or damaged.
    """
    _check(asked, session.info["facts"]["vlm"]["content_hash"], "session")
    rows = reopen.images(session)
    seen = vlm_again.embeddings(session)
    if rows.vlm is not None:
        seen = np.concatenate([seen, rows.vlm])
    place = {name: i for i, name in enumerate(rows.names)}
    return asked.scores(seen[[place[name] for name in names]])


class VlmReader:
    """The vision-language model that a monitor asks, over pictures.

    Args:
        asked: The classes as the monitor knows them.
        vlm: The model; loaded by its SPEC unless given.

    Raises:
        InputError: It cannot be loaded, or is another one.
    """

    def __init__(self, asked: VlmClasses, vlm: VlmBackend | None = None) -> None:
        self._asked = asked
        self._vlm = _load(asked.spec) if vlm is None else vlm
        _check(asked, self._vlm.content_hash, "vlm")

    def __call__(self, images: Iterable[Image.Image]) -> FloatArray:
        """Return (N, K) scores of the classes for N pictures, at least one."""
        left, found = iter(images), []
        while batch := [self._vlm.prepare(image) for image in islice(left, _BATCH)]:
            found.append(self._vlm.encode(np.stack(batch))["embedding"])
        return self._asked.scores(np.concatenate(found))


def _load(spec: str) -> VlmBackend:
    try:
        return load_vlm(spec)
    except (FaultlensError, ImportError) as error:
        raise InputError(
            f"vlm must be where the monitor was fitted with it, got '{spec}' ({error}); put it "
            "back, or name its place"
        ) from error


def _check(asked: VlmClasses, content_hash: str, name: str) -> None:
    if content_hash != asked.content_hash:
        raise InputError(
            f"{name} must be of the vision-language model that the monitor asks ('{asked.spec}'), "
            "got another one; use that one, or fit the monitor again"
        )
