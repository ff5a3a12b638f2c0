"""Edits: the smallest change of concepts after which a classifier gives one image another class."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from scipy import special

from faultlens.alignment import AffineMap
from faultlens.arrays import FloatArray, IntArray
from faultlens.data.decode import decode
from faultlens.embeddings.store import EmbeddingStore
from faultlens.errors import FaultlensError, InputError, StoreError
from faultlens.files import load_arrays, sha256_file
from faultlens.localize.counterfactual import (
    ConceptMoves,
    concept_moves,
    describe,
    smallest_edits,
)  # fmt: skip
from faultlens.localize.erase import embedding_directions, leace_eraser
from faultlens.models.classifier import Classifier
from faultlens.models.head import Head
from faultlens.remote import RemotePath, place

#: An edit that moves a concept by more standard deviations leaves what images show.
MAX_CHANGE = 3.0
#: Images beyond which the moves hardly change.
MAX_IMAGES = 10_000
#: Changes below this would be told as 0.0.
_TINY = 0.05
#: Confidences are stored to the last digit; processors differ in the one after.
_TOLERANCE = 1e-5


@dataclass(frozen=True, slots=True)
class Edit:
    """The smallest change of concepts that flips a prediction.

    Attributes:
        target: The class wished for: the label, or of a new image the runner-up.
        changes: Concept -> standard deviations, positive: more of it; largest first. Empty where
            no small edit leads there, or none could be sought.
        told: The edit in words, or why there is none.
    """

    target: str
    changes: dict[str, float] = field(default_factory=dict)
    told: str = ""


@runtime_checkable
class Opened(Protocol):
    """A finished session, as far as edits need it; `DebugSession` is one."""

    @property
    def folder(self) -> Path:
        """Where its files are."""
        ...

    @property
    def info(self) -> Mapping[str, Any]:
        """`session.json`."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """K names."""
        ...

    @property
    def concepts(self) -> tuple[str, ...]:
        """C names."""
        ...

    @property
    def valid_concepts(self) -> list[int]:
        """Concepts that passed the gate."""
        ...

    @property
    def images(self) -> tuple[dict[str, Any], ...]:
        """One object an analysed image."""
        ...

    def arrays(self, name: str) -> dict[str, Any]:
        """Stored arrays."""
        ...


def edit_known(session: Opened, i: int, load: Callable[[], Classifier]) -> Edit | None:
    """Edit an image of the run towards its label.

    Args:
        session: Finished.
        i: Index into its images.
        load: Gives the classifier of the run; not called for a run over features.

    Returns:
        None where the prediction is right already. Where model, picture or embeddings are no
        longer there, an edit without changes that says so.
    """
    row = session.images[i]
    if row["label"] == row["prediction"]:
        return None
    try:
        if session.info["config"].get("features"):
            head, z = _head(session), _features(session, [i])[0]
        else:
            path, model = _picture(session, row["name"]), load()
            head, z = model.head, encode(path, model)[0]
        if session.classes[int(head(z[None]).argmax())] != row["prediction"]:
            raise InputError("it is no longer predicted as in the run; run 'faultlens debug' again")
        return _edit(session, (z, head), f"fit{row['fit']}", row["label"])
    except (FaultlensError, ImportError, OSError) as error:
        return _not_sought(row["label"], error)


def edit_new(session: Opened, encoded: tuple[FloatArray, FloatArray], head: Head) -> Edit:
    """Edit an image that was not part of the run towards the class in second place.

    Args:
        session: Finished.
        encoded: (D,) embedding and (K,) logits of the image.
        head: Of the classifier of the run.
    """
    z, logits = encoded
    target = session.classes[int(np.argsort(-logits, kind="stable")[1])]
    try:
        return _edit(session, (z, head), "full", target)
    except (FaultlensError, OSError) as error:
        return _not_sought(target, error)


def _not_sought(target: str, error: Exception) -> Edit:
    return Edit(target, told=f"no edit towards {target} was sought: {error}")


def encode(path: Path | RemotePath, model: Classifier) -> tuple[FloatArray, FloatArray]:
    """Return embedding (D,) and logits (K,) of one picture file."""
    image = decode(path.read_bytes(), name=str(path))
    out = model.encode(model.prepare(image)[None])
    return out["embedding"][0], out["logits"][0]


def smallest_edit(
    z: FloatArray, target: int, head: Head, moves: ConceptMoves, classes: Sequence[str]
) -> Edit:
    """Seek the edit with the least sum of changes, and put it into words.

    Args:
        z: (D,) embedding of the image.
        target: Index of the class wished for.
        head: Asked again after the edit.
        moves: Of the concepts that may change.
        classes: K names.

    Example:
        >>> head = Head((np.array([[1.0, 0.0], [0.0, 1.0]]),), (np.zeros(2),))
        >>> moves = ConceptMoves(("wet",), np.array([[2.0, 0.0]]), np.ones(1))
        >>> smallest_edit(np.array([3.0, 1.0]), 1, head, moves, ("ship", "car")).told
        'would be car with less wet (1.0 sd)'
        >>> smallest_edit(np.array([9.0, 1.0]), 1, head, moves, ("ship", "car")).told
        'would not be car by any small change of these concepts; it takes less wet (4.0 sd)'
    """
    [found] = smallest_edits(z[None], np.array([target]), head, moves, "l1")
    name, told = classes[target], describe(found, moves.concepts, classes)
    size = np.abs(found.amounts)
    if not found.is_found:
        return Edit(name, told=told)
    if size.max() > MAX_CHANGE:
        takes = told.removeprefix(f"would be {name} with ")
        none = f"would not be {name} by any small change of these concepts; it takes {takes}"
        return Edit(name, told=none)
    order = [int(c) for c in np.argsort(-size, kind="stable") if size[c] > 0]
    changes = {moves.concepts[c]: float(found.amounts[c]) for c in order}
    if 0 < size.max() < _TINY:
        how = f"{'more' if found.amounts[order[0]] > 0 else 'less'} {moves.concepts[order[0]]}"
        told = f"would be {name} with the slightest change, such as {how}"
    return Edit(name, changes, told)


def _edit(session: Opened, image: tuple[FloatArray, Head], fit: str, target: str) -> Edit:
    """Edit one image along moves from other images, read through a map that never saw it."""
    z, head = image
    valid = session.valid_concepts
    if not valid:
        raise InputError("no concept can be trusted on these images")
    stored = session.arrays("alignment")
    others = _others(session)
    others = others[np.abs(others - z).max(axis=1) > _TOLERANCE * np.abs(z).max()]
    fitted = AffineMap(stored[f"{fit}.weight"], stored[f"{fit}.bias"], 0.0, 0)
    reading = embedding_directions(fitted, stored["directions"][valid])
    eraser = leace_eraser(others, others @ reading.T)
    moves = concept_moves([session.concepts[c] for c in valid], eraser, others)
    return smallest_edit(z, session.classes.index(target), head, moves, session.classes)


def _others(session: Opened) -> FloatArray:
    """Embeddings of the run's images, reference and analysed; at most 10,000, evenly taken."""
    if session.info["config"].get("features"):
        return _features(session, _spread(len(session.images)))
    known = np.array([row["confidence"] for row in session.images])
    folder = session.folder / "embeddings"
    for path in sorted(folder.glob("model-*")):
        try:
            store = EmbeddingStore.open(path)
        except StoreError:
            continue
        confidence = special.softmax(store.column("logits"), axis=1).max(axis=1)
        if _holds(confidence, known):
            good = np.setdiff1d(np.arange(len(confidence)), list(store.failures))
            return store.rows("embedding", good[_spread(len(good))])
    raise StoreError(
        f"{folder} must hold the embeddings of the run, got none that are complete and give its "
        f"confidences; run 'faultlens debug' with --out {session.folder} again"
    )


def _holds(values: FloatArray, wanted: FloatArray) -> bool:
    """Whether each of the wanted numbers is among the values."""
    ordered = np.sort(values)
    after = np.clip(np.searchsorted(ordered, wanted), 1, len(ordered) - 1)
    gap = np.minimum(np.abs(ordered[after] - wanted), np.abs(ordered[after - 1] - wanted))
    return bool(gap.max() <= _TOLERANCE)


def _spread(n: int) -> IntArray:
    return np.unique(np.linspace(0, n - 1, min(n, MAX_IMAGES)).astype(int))


def _picture(session: Opened, name: str) -> Path | RemotePath:
    root = session.info["facts"].get("images", {}).get("root")
    if not root:
        raise InputError("the pictures of the run were no files")
    return place(root) / name


def _head(session: Opened) -> Head:
    path = session.info["config"].get("head")
    if path is None:
        raise InputError("the run was over features without a head")
    return Head.load(path)


def _features(session: Opened, rows: Sequence[int] | IntArray) -> FloatArray:
    path = Path(session.info["config"]["features"])
    if not path.is_file() or sha256_file(path) != session.info["facts"]["features"]["sha256"]:
        raise InputError(f"features must be where and as the run found them, got '{path}'")
    names = [session.images[i]["name"] for i in rows]
    places = [int(name.removeprefix("row[").removesuffix("]")) for name in names]
    return np.asarray(load_arrays(path)[0]["embedding"], np.float32)[places]
