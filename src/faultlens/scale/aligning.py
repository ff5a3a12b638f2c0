"""The affine map from two stores of any size, through sums over fixed blocks of rows."""

from collections.abc import Callable
from functools import partial

import numpy as np

from faultlens.alignment import AffineMap, AlignmentSums, fit
from faultlens.arrays import Array
from faultlens.embeddings.store import EmbeddingStore
from faultlens.scale.columns import Folder, blocks, same_rows
from faultlens.scale.partials import Arrays, Partials, key_of

#: Every so many rows one is held out to choose the ridge.
TUNE_EVERY = 5
_FIELDS = ("n", "z", "v", "zz", "zv", "vv")
_SIDES = ("train", "heldout")


def align_job(model: Folder, vlm: Folder, out: Folder) -> Partials[AffineMap]:
    """Return the job that fits the map from the classifier's embeddings to the VLM's.

    Rows that either store could not compute are left out; every fifth row is held out to choose
    the ridge. The map is the same, bit for bit, however parts are shared out and shards are cut.

    Args:
        model: Store of the classifier, with a column `embedding`.
        vlm: Store of the vision-language model, likewise; its rows are the same images.
        out: Folder or URL of the partial sums.

    Raises:
        StoreError: A store is absent or not finished.
        InputError: The stores have different numbers of rows.
    """
    stores = [EmbeddingStore.open(folder, is_checked=False) for folder in (model, vlm)]
    n = same_rows(*stores)
    key = key_of("alignment", TUNE_EVERY, *(store.content_hash for store in stores))
    return Partials(out, f"alignment-{key}", n, partial(_mapper, model, vlm), _map_of)


def _mapper(model: Folder, vlm: Folder) -> Callable[[range], Arrays]:
    stores = [EmbeddingStore.open(folder, is_checked=False) for folder in (model, vlm)]
    columns = [(store, "embedding") for store in stores]

    def sums(rows: range) -> Arrays:
        total: dict[str, AlignmentSums] = {}
        for block in blocks(columns, rows):
            z, v = block.columns
            is_heldout = block.rows % TUNE_EVERY == 0
            for side, chosen in zip(_SIDES, (~is_heldout, is_heldout), strict=True):
                part = AlignmentSums.of_block(z[chosen], v[chosen])
                total[side] = total[side] + part if side in total else part
        shape = [store.layout.columns["embedding"][0] for store in stores]
        return {
            f"{side}.{name}": np.asarray(getattr(total.get(side) or _zeros(*shape), name))
            for side in _SIDES
            for name in _FIELDS
        }

    return sums


def _zeros(d: int, e: int) -> AlignmentSums:
    shapes = ((d,), (e,), (d, d), (d, e), (e,))
    return AlignmentSums(0, *(np.zeros(shape) for shape in shapes))


def _map_of(arrays: Arrays) -> AffineMap:
    train, heldout = (sums_of(arrays, side) for side in _SIDES)
    return fit(train, heldout)


def sums_of(arrays: dict[str, Array], side: str) -> AlignmentSums:
    """Return the sums of one side, `train` or `heldout`, from folded arrays."""
    n, *rest = (arrays[f"{side}.{name}"] for name in _FIELDS)
    return AlignmentSums(int(n), *rest)
