"""A finished session's vision-language model again: its embeddings of the images, and its words."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from faultlens import reopen
from faultlens.arrays import FloatArray, IntArray
from faultlens.concepts import TextEncoder, strengths
from faultlens.embeddings.store import EmbeddingStore
from faultlens.errors import FaultlensError, InputError, StoreError
from faultlens.features import TextSide, measure_features
from faultlens.files import sha256_file
from faultlens.session import DebugSession
from faultlens.vlm.load import load_vlm
from faultlens.vlm.sentences import CachedTextEncoder

#: Stored strengths are repeated by the right embeddings up to rounding.
_TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What the vision-language model saw, and what asks it for words.

    Attributes:
        embeddings: (n, E) of the session's analysed images, in their order.
        encode_text: Its text tower; lists of texts are kept in the session's folder.
        encode_now: The same without keeping anything.
    """

    embeddings: FloatArray
    encode_text: TextEncoder
    encode_now: TextEncoder


def see_again(session: DebugSession, vlm: TextSide | None = None) -> Seen:
    """Find the embeddings of a session's images again, and load the text tower.

    Args:
        session: Finished.
        vlm: The vision-language model, where the session cannot load it by its SPEC.

    Raises:
        InputError: The model, the features or the images of a reference split are no longer where
            they were, or have changed.
        StoreError: The embeddings of the run are missing or damaged.
    """
    if session.info["config"].get("features"):
        return _from_features(session, vlm)
    backend = vlm or _load(session)
    known = session.info["facts"]["vlm"]["content_hash"]
    if backend.content_hash != known:
        raise InputError(
            f"vlm must be the one of the run, got another '{backend.name}'; "
            "run 'faultlens debug' again"
        )
    encode_text = CachedTextEncoder(backend, session.folder / "embeddings").encode_text
    return Seen(embeddings(session), encode_text, backend.encode_text)


def _load(session: DebugSession) -> TextSide:
    spec = session.info["config"]["vlm"]
    try:
        return load_vlm(spec)
    except (FaultlensError, ImportError) as error:
        raise InputError(
            f"vlm must be where the run found it, got '{spec}' ({error}); put it back, or run in "
            "the folder of the run"
        ) from error


def _from_features(session: DebugSession, vlm: TextSide | None) -> Seen:
    config = session.info["config"]
    path = Path(config["features"])
    if not path.is_file() or sha256_file(path) != session.info["facts"]["features"]["sha256"]:
        raise InputError(
            f"features must be where the run found them and unchanged, got '{path}'; put them "
            "back, or run 'faultlens debug' again"
        )
    measured, text = measure_features(path, vlm or config["vlm"], classes=session.classes)
    rows = [measured.names.index(row["name"]) for row in session.images]
    seen = measured.measurements.vlm_embeddings[rows]
    return Seen(seen, text.encode_text, text.encode_text)


def embeddings(session: DebugSession) -> FloatArray:
    """Find the (n, E) embeddings of a session's analysed images, without loading the model.

    They are those that repeat the strengths which the session knows.

    Raises:
        InputError: The images of a reference split are no longer where they were.
        StoreError: The embeddings of the run are missing or damaged.
    """
    folder = session.folder / "embeddings"
    for path in sorted(folder.glob("vlm-*")):
        try:
            store = EmbeddingStore.open(path)
        except StoreError:
            continue
        rows = _rows(session, store.layout.n_rows)
        if rows is None:
            continue
        found = store.rows("embedding", rows)
        if _repeats(session, found):
            return found
    raise StoreError(
        f"{folder} must hold the vision-language model's embeddings of the run, got none that are "
        f"complete; run 'faultlens debug' with --out {session.folder} again"
    )


def _rows(session: DebugSession, n_rows: int) -> IntArray | None:
    """Return where the analysed images are in a store, None in one of other images."""
    if n_rows == len(session.images):
        return np.arange(n_rows)
    names = reopen.listed(session).names
    if len(names) != n_rows:
        return None
    place = {name: i for i, name in enumerate(names)}
    rows = np.array([place.get(row["name"], -1) for row in session.images], np.int64)
    return rows if rows.min() >= 0 else None


def _repeats(session: DebugSession, seen: FloatArray) -> bool:
    stored = session.arrays("alignment")
    if seen.shape[1] != stored["directions"].shape[1]:
        return False
    centre = np.stack([stored[f"fit{i}.centre_vlm"] for i in range(session.info["fit"]["n_fits"])])
    fit_of = np.array([row["fit"] for row in session.images])
    again = strengths(seen, stored["directions"]) - centre[fit_of]
    return bool(np.abs(again - session.arrays("strengths")["vlm"]).max() <= _TOLERANCE)
