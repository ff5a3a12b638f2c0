"""Near-duplicates: pictures that must stay on one side when images are divided."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from faultlens.arrays import Array, IntArray, check_array
from faultlens.errors import InputError, ShapeError

SIGNATURE_LENGTH = 56
"""Bytes of a signature: 8 of the difference hash, 48 of the 4 x 4 mean colours."""

MAX_BITS = 3
"""Near-duplicates differ in at most this many of the 64 bits of the difference hash."""

MAX_COLOUR = 10
"""… and by less than this many grey levels in every channel of every mean colour."""

_STEP = 2.0  # grey levels; smaller differences are compression noise
_MIN_STEPS = 8  # a picture with fewer real differences than this is flat
_WINDOW = 64  # pictures that share a band are compared with this many neighbours at most


def signature(image: Image.Image) -> Array:
    """Return 56 bytes that are nearly the same for nearly the same pictures.

    Bytes 0–7 hold a difference hash: the picture is reduced to 9 x 8 grey cells, and each bit says
    whether a cell is darker than its right neighbour. Bytes 8–55 hold the mean colours of
    4 x 4 cells. A picture that is nearly flat has no usable differences; its hash is that of its
    pixels, so it joins only its equals.

    Args:
        image: An RGB picture.

    Returns:
        (56,) uint8.

    References:
        N. Krawetz, "Kind of Like That", 2013 (difference hash). Deviations: a step counts only
        above 2 grey levels, colours are compared too, and flat pictures are set apart.

    Example:
        >>> ramp = Image.linear_gradient("L").rotate(90).convert("RGB")
        >>> a, b = signature(ramp), signature(ramp.resize((99, 55)))
        >>> a.shape, int(np.bitwise_count(a[:8] ^ b[:8]).sum())
        ((56,), 0)
    """
    cells = image.resize((36, 32), Image.Resampling.BILINEAR, reducing_gap=3.0)
    rgb = np.asarray(cells, dtype=np.float64)
    grey = (rgb @ [0.299, 0.587, 0.114]).reshape(8, 4, 9, 4).mean(axis=(1, 3))
    steps = np.diff(grey, axis=1)
    colours = rgb.reshape(4, 8, 4, 9, 3).mean(axis=(1, 3))
    if np.count_nonzero(np.abs(steps) > _STEP) < _MIN_STEPS:
        bits = np.frombuffer(hashlib.sha256(image.tobytes()).digest()[:8], dtype=np.uint8)
    else:
        bits = np.packbits(steps > _STEP)
    return np.concatenate([bits, np.rint(colours).astype(np.uint8).ravel()])


def duplicate_groups(digests: Sequence[str], signatures: Any) -> IntArray:
    """Group images that are the same or nearly the same; groups are closed under both.

    Images belong together if their files are equal, or if their difference hashes differ in at
    most 3 bits and all their mean colours by less than 10 grey levels. Two hashes that differ in
    at most 3 bits agree in at least one of four bands of 16 bits, so only those are compared; of
    the images that share a band, each with its 64 next in sorted order, which bounds the work
    (beyond that, a pair can be missed).

    Args:
        digests: N hashes of the files' bytes.
        signatures: (N, 56) uint8, from `signature`.

    Returns:
        (N,) int64, the group of each image, numbered in order of appearance.

    Raises:
        ShapeError: Not (N, 56) uint8, or not as many as digests.

    Example:
        >>> signatures = np.zeros((3, 56), np.uint8)
        >>> signatures[2] = 200
        >>> duplicate_groups(["aa", "bb", "cc"], signatures)
        array([0, 0, 1])
    """
    codes = _check_signatures(signatures, len(digests))
    # Equal signatures are one node, so that a thousand equal pictures do not fill a window.
    unique, node = np.unique(codes.view(f"V{SIGNATURE_LENGTH}"), return_inverse=True)
    near = _near_components(unique.view(np.uint8).reshape(-1, SIGNATURE_LENGTH))[node.ravel()]
    _, file = np.unique(np.array(digests, dtype="S"), return_inverse=True)
    file += len(unique)
    component = _connect(int(file.max()) + 1, np.stack([near, file]))[file]
    _, first, group = np.unique(component, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[group].astype(np.int64)


def folds(digests: Sequence[str], groups: Any, n_folds: int = 5) -> IntArray:
    """Divide images into folds by a hash, so that a group stays in one.

    The fold of a group follows from its smallest digest alone: neither the order of the images
    nor the other groups matter. Folds are therefore equal in size only on average.

    Args:
        digests: N hashes of the files' bytes, in hex.
        groups: (N,) integers, from `duplicate_groups`.
        n_folds: Number of folds, at least 2.

    Returns:
        (N,) int64, from 0 to `n_folds` - 1.

    Raises:
        ShapeError: Not as many groups as digests.
        InputError: Fewer than 2 folds.

    Example:
        >>> folds(["0a", "0b", "0c"], [0, 0, 1], n_folds=2)
        array([1, 1, 0])
    """
    group = check_array(groups, "N", name="groups", kind="int")
    if len(group) != len(digests):
        raise ShapeError(f"groups must be as many as digests ({len(digests)}), got {len(group)}")
    if n_folds < 2:
        raise InputError(f"n_folds must be at least 2, got {n_folds}")
    digest = np.array(digests, dtype="S")
    order = np.lexsort((digest, group))
    _, first, member_of = np.unique(group[order], return_index=True, return_inverse=True)
    smallest = digest[order[first]]
    # Of the smallest digest the leading digits are biased to 0, so the fold is a hash of it.
    numbers = [int.from_bytes(hashlib.sha256(d).digest()[:8]) % n_folds for d in smallest]
    fold = np.empty(len(group), dtype=np.int64)
    fold[order] = np.array(numbers, dtype=np.int64)[member_of]
    return fold


def _check_signatures(signatures: Any, n: int) -> Array:
    codes = check_array(signatures, "N S", name="signatures", kind="int")
    if codes.dtype != np.uint8 or codes.shape != (n, SIGNATURE_LENGTH):
        raise ShapeError(
            f"signatures must be uint8 of shape ({n}, {SIGNATURE_LENGTH}), one for each digest, "
            f"got {codes.dtype} of shape {codes.shape}"
        )
    return np.ascontiguousarray(codes)


def _near_components(codes: Array) -> IntArray:
    """Number the groups of near-duplicates among distinct signatures: (N,)."""
    n = len(codes)
    hashes = np.ascontiguousarray(codes[:, :8]).view(">u8").astype(np.uint64).ravel()
    colours = np.ascontiguousarray(codes[:, 8:].T).astype(np.int16)
    component: IntArray = np.arange(n)
    links: IntArray = np.empty((2, 0), dtype=np.int64)
    for pairs in _pairs_of_like_hash(hashes):
        apart = pairs[:, component[pairs[0]] != component[pairs[1]]]
        links = np.concatenate([links, _of_like_colour(colours, apart)], axis=1)
        if (
            links.shape[1] > n
        ):  # so that a crowd of like pictures costs no more memory than the images
            component = _connect(n, component[links])[component]
            links = links[:, :0]
    return _connect(n, component[links])[component]


def _pairs_of_like_hash(hashes: Array) -> Iterator[IntArray]:
    """Yield pairs (2, M) that share a band and differ in at most MAX_BITS bits, some at a time."""
    for turn in np.array([0, 16, 32, 48], dtype=np.uint64):
        rolled = (hashes << turn) | (hashes >> (np.uint64(64) - turn)) if turn else hashes
        order = np.argsort(rolled, kind="stable")
        rolled = rolled[order]
        band = (rolled >> np.uint64(48)).astype(np.uint16)
        left = np.arange(len(hashes))
        for step in range(1, _WINDOW + 1):
            left = left[left + step < len(hashes)]
            left = left[band[left] == band[left + step]]
            if not len(left):
                break
            near = left[np.bitwise_count(rolled[left] ^ rolled[left + step]) <= MAX_BITS]
            yield np.stack([order[near], order[near + step]])


def _of_like_colour(colours: Array, pairs: IntArray) -> IntArray:
    for channel in colours:  # one by one, as the first few settle nearly every pair
        pairs = pairs[:, np.abs(channel[pairs[0]] - channel[pairs[1]]) < MAX_COLOUR]
    return pairs


def _connect(n: int, links: IntArray) -> IntArray:
    ones = np.ones(links.shape[1], dtype=np.int8)
    graph = coo_array((ones, (links[0], links[1])), shape=(n, n))
    component: IntArray = connected_components(graph, directed=False)[1]
    return component
