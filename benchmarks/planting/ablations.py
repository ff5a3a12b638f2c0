"""Ablations: the same subjects seen through changed eyes.

Each function changes one thing that the product is given: the words' truth, the quality of the map,
the vocabulary, or the number of images. What the product makes of it is the benchmark's to measure.
"""

from collections.abc import Collection
from dataclasses import replace
from functools import cache
from itertools import product

import numpy as np
from scipy import linalg

from faultlens.alignment import align, evaluate, normalize
from faultlens.concepts import ConceptFile, Vocabulary
from faultlens.data.world.captions import WORDS
from faultlens.data.world.names import ATTRIBUTES, BACKGROUNDS, CLASSES, COLORS, OCCLUDERS
from faultlens.validity import DECOYS
from planting import subjects
from planting.instances import LIGHT_WORDS, SYNONYMS
from planting.observe import Observed

#: Concepts in a vocabulary, smallest first; each holds all smaller ones.
SIZES = (18, 300, 1_500)
#: R² of the map.
QUALITIES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
#: Images.
N_IMAGES = (100, 300, 1_000)
#: Standard deviation of the noise that keeps the truth's strengths from being tied, in theirs.
NOISE = 0.05

#: Words that can stand before a noun, with the demo's concepts that they state.
ADJECTIVES = {
    **{a: a for a in ("hairy", "metallic", "rectangular", "wet", "long", "tall", "patterned")},
    "dark": "dark",
    "bright": "bright light",
}


# --- true attributes ------------------------------------------------------------------------------


def _standardised(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(axis=0)) / np.maximum(x.std(axis=0), 1e-9)


def true_attributes(
    o: Observed, words: Vocabulary, rng: np.random.Generator
) -> tuple[Observed, Vocabulary]:
    """Return a subject and vocabulary whose VLM knows the truth.

    Every concept and class is an axis of its own, along which an image lies where its standardised
    truth is, but for a little noise; one more axis fills every image up to the same length, so that
    cosines are the truth as well. All axes are orthogonal to what the real text tower makes of the
    decoy words, so it still serves.

    Args:
        o: The subject.
        words: The vocabulary of its truth; concepts whose truth is not known are left out.
        rng: Source of noise.
    """
    known = np.flatnonzero(~np.isnan(o.truth).any(axis=0))
    x = np.hstack([o.truth[:, known], np.eye(len(words.classes))[o.labels]])
    x = _standardised(x) + rng.normal(0, NOISE, x.shape)
    square = (x**2).sum(axis=1)
    fill = np.sqrt(2 * square.max() - square)
    decoys = normalize(subjects.vlm().encode_text(DECOYS))
    axes = linalg.null_space(decoys).T[: x.shape[1] + 1].astype(np.float32)
    v = np.column_stack([x, fill]) @ axes + rng.normal(0, NOISE, o.vlm.shape)
    directions, class_directions = axes[: len(known)], axes[len(known) : -1]
    changed = replace(
        words,
        concepts=tuple(words.concepts[c] for c in known),
        directions=directions,
        subset_directions=np.stack([directions] * 2),
        class_directions=class_directions,
        relevant=words.relevant[:, known],
    )
    return replace(o, vlm=v.astype(np.float32), truth=o.truth[:, known]), changed


# --- the map --------------------------------------------------------------------------------------


def _mapped(o: Observed) -> np.ndarray:
    """(N, E) unit VLM embeddings as the map predicts them, each fifth from the others."""
    fold = np.arange(len(o.labels)) % 5
    out = np.empty(o.vlm.shape, np.float32)
    for f in range(5):
        own = fold == f
        out[own] = align(o.embedding[~own], o.vlm[~own], fold[~own] == (f + 1) % 5)(
            o.embedding[own]
        )
    return out


def map_r2(o: Observed, words: Vocabulary) -> float:
    """R² of the map on held-out images, over all dimensions."""
    seen = (words.directions, words.class_directions, o.labels)
    return evaluate(o.vlm, _mapped(o), *seen).r2


def with_map_r2(o: Observed, words: Vocabulary, r2: float, rng: np.random.Generator) -> Observed:
    """Return the subject with a map of about this R².

    Below what the map has, isotropic noise is added to the VLM's embeddings. Above it, what the map
    misses of them is shrunk: the VLM then sees of a picture little more than the classifier's
    embedding carries. Classifier, labels and words stay as they are.

    Args:
        o: The subject.
        words: Any vocabulary.
        r2: Wanted, in (0, 1).
        rng: Source of noise.
    """
    v, mapped = normalize(o.vlm), _mapped(o)
    noise = rng.normal(0, 1, v.shape).astype(np.float32) * v.std()

    def changed(amount: float) -> Observed:
        """Noisier above 0, closer to the map below it."""
        moved = v + amount * noise if amount > 0 else v - amount * (mapped - v)
        return replace(o, vlm=moved)

    low, high = (-1.0, 0.0) if r2 > map_r2(o, words) else (0.0, 8.0)
    for _ in range(10):
        middle = (low + high) / 2
        if map_r2(changed(middle), words) > r2:
            low = middle
        else:
            high = middle
    return changed((low + high) / 2)


# --- vocabularies ---------------------------------------------------------------------------------


def _concept_of(fact: str) -> str | None:
    """The demo's concept that states a fact of a caption; None for classes."""
    kind, _, value = fact.partition(":")
    return None if kind == "class" else LIGHT_WORDS.get(value, value) or kind


@cache
def meanings() -> dict[str, frozenset[str]]:
    """Return words for a vocabulary as large as any, with the demo's concepts that each states.

    The demo's own concepts come first, then the other words and phrases for them, then pairs such
    as "wet snow", then triples such as "long red truck" (which state an adjective and a colour).
    """
    demo = ConceptFile.read(subjects.CONCEPTS).concepts
    phrases = {p: c for f, ps in WORDS.items() if (c := _concept_of(f)) for p in ps}
    out = {c: frozenset({c}) for c in demo}
    out |= {
        p: frozenset({c}) for p, c in phrases.items() if p.replace("-", " ") != c.replace("-", " ")
    }
    first = {c: WORDS[f][0] for f in WORDS if (c := _concept_of(f))}
    things = [c for c in (*ATTRIBUTES, *BACKGROUNDS, *OCCLUDERS) if c not in ADJECTIVES]
    nouns = {first[c]: {c} for c in things} | {k: set[str]() for k in CLASSES}
    before = ADJECTIVES | {c: c for c in COLORS}
    pairs = {
        f"{a} {noun}": frozenset({before[a], *said})
        for a, (noun, said) in product(before, nouns.items())
    }
    triples = {
        f"{a} {b} {k}": frozenset({before[a], b})
        for a, b, k in product(ADJECTIVES, COLORS, CLASSES)
    }
    for more in (pairs, triples):
        names = np.random.default_rng(1).permutation(sorted(more)).tolist()
        out |= {n: more[n] for n in names if n not in out}
    return out


@cache
def vocabulary(n: int) -> Vocabulary:
    """Return the first n entries of `meanings` as a vocabulary.

    18 are the attributes, 41 the demo's concepts; relevance is the demo's throughout.
    """
    demo = ConceptFile.read(subjects.CONCEPTS)
    entries = list(meanings())[:n]
    concepts = {e: list(demo.concepts[e].prompts) if e in demo.concepts else [e] for e in entries}
    classes = {k: entry.model_dump() for k, entry in demo.classes.items()}
    file = ConceptFile.parse({"concepts": concepts, "classes": classes})
    return Vocabulary.build(file, CLASSES, subjects.vlm().encode_text)


def without(words: Vocabulary, concepts: Collection[str]) -> Vocabulary:
    """Return the vocabulary without these concepts, their synonyms, and all that states them."""
    gone = set(concepts).union(*(s for s in SYNONYMS if not s.isdisjoint(concepts)))
    kept = [c for c, w in enumerate(words.concepts) if gone.isdisjoint(meanings()[w])]
    return replace(
        words,
        concepts=tuple(words.concepts[c] for c in kept),
        directions=words.directions[kept],
        subset_directions=words.subset_directions[:, kept],
        relevant=words.relevant[:, kept],
    )


# --- images ---------------------------------------------------------------------------------------


def stratified(labels: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Return n rows, sorted, with every class in its share; fewer are part of more."""
    place = np.empty(len(labels))
    for k in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == k))
        place[rows] = (np.arange(len(rows)) + rng.random()) / len(rows)
    return np.sort(np.argsort(place, kind="stable")[:n])
