"""Consistency check: a sample of the pictures, changed as no label minds, through both models."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from faultlens.analysis import Analysis
from faultlens.arrays import FloatArray, IntArray
from faultlens.concepts import strengths
from faultlens.embeddings.extract import Encoder, Source
from faultlens.localize.consistency import Consistency, inconsistency, training_weights

N_IMAGES = 256
#: Pictures at once, each in all its ways.
_BATCH = 8
#: Share of the picture's side that a crop leaves.
_KEPT = 0.875


def views(image: Image.Image) -> list[Image.Image]:
    """Return the picture cropped, mirrored, darker, brighter and blurred, each of its own size.

    Example:
        >>> [v.size for v in views(Image.new("RGB", (80, 64)))]
        [(80, 64), (80, 64), (80, 64), (80, 64), (80, 64)]
    """
    dx, dy = (round(side * (1 - _KEPT) / 2) for side in image.size)
    inner = image.crop((dx, dy, image.width - dx, image.height - dy))
    light = ImageEnhance.Brightness(image)
    return [
        inner.resize(image.size, Image.Resampling.BICUBIC),
        ImageOps.mirror(image),
        light.enhance(0.8),
        light.enhance(1.2),
        image.filter(ImageFilter.GaussianBlur(min(image.size) / 100)),
    ]


def sample(labels: IntArray, size: int, rng: np.random.Generator) -> IntArray:
    """Return at most `size` rows, the classes as even as they allow.

    Example:
        >>> y = np.repeat([0, 1], [90, 4])
        >>> rows = sample(y, 10, np.random.default_rng(0))
        >>> np.bincount(y[rows]).tolist()
        [6, 4]
    """
    order = rng.permutation(len(labels))
    turns = np.empty(len(labels), np.int64)
    for k in np.unique(labels):
        of = order[labels[order] == k]
        turns[of] = np.arange(len(of))
    return np.sort(order[np.argsort(turns[order], kind="stable")][:size])


def check(  # noqa: PLR0913, PLR0917 (two models, their pictures, and what reads both)
    model: Encoder,
    vlm: Encoder,
    source: Source,
    analysis: Analysis,
    directions: Float[np.ndarray, "C E"],
    rng: np.random.Generator,
    progress: Callable[[int, int], None] | None = None,
) -> Consistency | None:
    """Ask both models again about changed pictures.

    Args:
        model: The classifier.
        vlm: The vision-language model.
        source: The n analysed images, in the analysis' order.
        analysis: Of the same images; each picture goes through the map that never saw it.
        directions: Unit concept directions.
        rng: Chooses at most 256 images, the classes as even as they allow.
        progress: Called as `progress(done, total)` after each batch.

    Returns:
        None where fewer than two concepts are valid.
    """
    valid = analysis.valid_concepts
    if len(valid) < 2:
        return None
    e = analysis.evidence
    rows = sample(e.labels, N_IMAGES, rng)
    report = progress or (lambda done, total: None)
    parts = []
    for batch in np.array_split(rows, max(1, -(-len(rows) // _BATCH))):
        parts.append(_seen(model, vlm, [views(source.load(int(i))) for i in batch]))
        report(sum(p[0].shape[1] for p in parts), len(rows))
    z, logits, v = (np.concatenate(p, axis=1) for p in zip(*parts, strict=True))
    predictions = logits.argmax(axis=2)
    own = e.predictions[rows]
    wrong = np.concatenate([own[None], predictions]) != e.labels[rows]
    of_model, of_vlm = _strengths(analysis, rows, z, v, directions)
    changed = inconsistency(analysis.strengths_model[np.ix_(rows, valid)], of_model[:, :, valid])
    lost = inconsistency(analysis.strengths_vlm[np.ix_(rows, valid)], of_vlm[:, :, valid])
    return Consistency(
        rows=rows,
        model=changed,
        vlm=lost,
        flips=(predictions != own).mean(axis=0),
        weight=training_weights(changed - lost, wrong.mean(axis=0), e.is_gated[rows]),
    )


def _seen(
    model: Encoder, vlm: Encoder, changed: list[list[Image.Image]]
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Embeddings, logits and VLM embeddings, (A, n, …) for n pictures in A ways each."""

    def shaped(x: FloatArray) -> FloatArray:
        return x.reshape(len(changed), -1, x.shape[1]).swapaxes(0, 1)

    every = [picture for ways in changed for picture in ways]
    out = model.encode(np.stack([model.prepare(p) for p in every]))
    v = vlm.encode(np.stack([vlm.prepare(p) for p in every]))["embedding"]
    return shaped(out["embedding"]), shaped(out["logits"]), shaped(v)


def _strengths(
    analysis: Analysis,
    rows: IntArray,
    z: Float[np.ndarray, "A n D"],
    v: Float[np.ndarray, "A n E"],
    directions: Float[np.ndarray, "C E"],
) -> tuple[Float[np.ndarray, "A n C"], Float[np.ndarray, "A n C"]]:
    """Strengths of the changed pictures in both models, each through the fit of its own picture."""
    model = np.empty((*z.shape[:2], len(directions)), np.float32)
    vlm = np.empty_like(model)
    for i, fit in enumerate(analysis.fits):
        mine = analysis.fit_of[rows] == i
        for a in range(len(z)):
            model[a, mine] = strengths(fit.map(z[a, mine]), directions, fit.centre_model)
            vlm[a, mine] = strengths(v[a, mine], directions, fit.centre_vlm)
    return model, vlm
