"""Suggesting concepts for a session: words that tell its wrong images from its right ones.

Candidates are ranked on one part of the images; every figure that is shown comes from the other.
"""

import contextlib
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from faultlens import files, reopen
from faultlens.alignment import normalize
from faultlens.arrays import BoolArray, FloatArray, IntArray
from faultlens.concepts import ConceptEntry, ConceptFile, prompts_of, strengths
from faultlens.data.duplicates import folds
from faultlens.errors import InputError, InsufficientDataError
from faultlens.features import TextSide
from faultlens.localize.separation import Separation, separation
from faultlens.packs import pack_names, read_concepts
from faultlens.session import DebugSession
from faultlens.stats import holm
from faultlens.validity import DECOYS, MIN_DECOY_QUANTILE
from faultlens.vlm_again import Seen, see_again

#: Strengths that rise and fall together this much over the images say the same.
SAME = 0.9
#: Words whose directions are this near mean the same, whatever the images are.
SAME_DIRECTION = 0.99
#: Fewer wrong or right images than this in either part show nothing.
MIN_SIDE = 10
_LEVEL = 0.05


@dataclass(frozen=True, slots=True)
class Suggestion:
    """One candidate, with figures from images that had no part in ranking it.

    Attributes:
        concept: Its name.
        auroc: Of wrong against right images of the same class; above 0.5: more of it in wrong ones.
        interval: Of the AUROC, with a confidence of 0.95.
        p_value: That wrong and right images are alike, adjusted (Holm) for all that are shown.
        decoy_quantile: Share of meaningless words that separate less.
        also: Candidates that say the same, better ones first; they are not suggested again.
        like: A concept of the session that says the same; None if new.
        is_chosen: New, significant, the same way round in both parts, and above the decoys.
        prompts: Its prompts that the model understands.
        templates: Sentences they stand in.
    """

    concept: str
    auroc: float
    interval: tuple[float, float]
    p_value: float
    decoy_quantile: float
    also: tuple[str, ...]
    like: str | None
    is_chosen: bool
    prompts: tuple[str, ...]
    templates: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Suggestions:
    """What came out.

    Attributes:
        suggestions: In the order of the ranking.
        vocabulary: Where the candidates came from.
        n_candidates: Candidates that the model understands and the session does not name.
        unknown: Candidates with no word that the model understands.
        n_wrong: Wrong images that the figures come from.
        n_right: Right ones.
        n_ranking: Images that the ranking comes from.
    """

    suggestions: tuple[Suggestion, ...]
    vocabulary: str
    n_candidates: int
    unknown: tuple[str, ...]
    n_wrong: int
    n_right: int
    n_ranking: int

    @property
    def chosen(self) -> tuple[Suggestion, ...]:
        """Those worth adding to the session's concepts."""
        return tuple(s for s in self.suggestions if s.is_chosen)

    def to_json(self) -> dict[str, Any]:
        """Return everything as one JSON object."""
        return dict(files.json_value(asdict(self)))

    def write(self, path: str | Path) -> None:
        """Write the chosen ones as a file of concepts: `--concepts mine.yaml+FILE` adds them.

        Raises:
            InputError: None was chosen.
            StoreError: The file cannot be written.
        """
        if not self.chosen:
            raise InputError("suggestions must hold a chosen one to be written, got none")
        entries = {
            s.concept: {"prompts": list(s.prompts), "templates": list(s.templates)}
            for s in self.chosen
        }
        value = {"about": f"suggested from {self.vocabulary}", "concepts": entries}
        text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
        files.write_atomic(Path(path), text.encode())


@dataclass(frozen=True, slots=True, eq=False)
class _Candidates:
    """Candidates as directions.

    Attributes:
        names: C names.
        directions: (C, E) unit.
        prompts: Of each, those the model understands.
        templates: Of each.
        unknown: Names of those without any.
    """

    names: tuple[str, ...]
    directions: FloatArray
    prompts: tuple[tuple[str, ...], ...]
    templates: tuple[tuple[str, ...], ...]
    unknown: tuple[str, ...]


def suggest(
    session: DebugSession,
    vocabulary: str | Path | ConceptFile | None = None,
    *,
    n: int = 20,
    vlm: TextSide | None = None,
) -> Suggestions:
    """Rank the concepts of a vocabulary by how they separate wrong from right images.

    Two fifths of the images rank the candidates; the others give every figure. Near-duplicate
    images stay on one side; of features, where there are no pictures, those with equal embeddings.
    Candidates that say the same are suggested once, under the name that ranks first.

    Args:
        session: Finished.
        vocabulary: File, packs, or both (see `faultlens.packs`); all packs by default.
        n: How many of the best candidates are looked at, those that say the same counted once.
        vlm: The vision-language model, where the session cannot load it by its SPEC.

    Raises:
        InputError: The vocabulary is wrong or holds no word that the model understands, n is not
            positive, or model or images are no longer where they were.
        InsufficientDataError: Too few wrong or right images in either part.
        StoreError: The embeddings of the run are missing or damaged.
    """
    if n < 1:
        raise InputError(f"n must be at least 1, got {n}; ask for one or more")
    spec = "+".join(pack_names()) if vocabulary is None else vocabulary
    file = spec if isinstance(spec, ConceptFile) else read_concepts(spec)
    named = "the given concepts" if isinstance(spec, ConceptFile) else str(spec)
    is_wrong, labels = _truth(session)
    seen = see_again(session, vlm)
    ranking = _ranking_part(session)
    _check_enough(is_wrong, labels, ranking)
    found = _candidates(file, session.concepts, seen)
    if not found.names:
        raise InputError(
            "vocabulary must hold concepts that the session lacks, in words that its "
            f"vision-language model understands, got none in {named}; give another"
        )
    s = strengths(seen.embeddings, found.directions)
    first = separation(s[ranking], is_wrong[ranking], labels[ranking])
    order = np.argsort(-np.abs(first.auroc - 0.5), kind="stable")
    own = session.arrays("alignment")["directions"]
    like = _like(seen, own, s, found.directions, session.concepts)
    same = _grouped(order, _likeness(s, found.directions), like)[:n]
    top = np.array([group[0] for group in same], np.int64)
    held = separation(s[~ranking][:, top], is_wrong[~ranking], labels[~ranking])
    decoys = strengths(seen.embeddings[~ranking], _unit(seen.encode_text(DECOYS)))
    above = _above(held, separation(decoys, is_wrong[~ranking], labels[~ranking]))
    same_way = (first.auroc[top] > 0.5) == (held.auroc > 0.5)
    return Suggestions(
        suggestions=tuple(_rows(found, same, held, above, like, same_way)),
        vocabulary=named,
        n_candidates=len(found.names),
        unknown=found.unknown,
        n_wrong=held.n_wrong,
        n_right=held.n_right,
        n_ranking=int(ranking.sum()),
    )


def _rows(
    found: _Candidates,
    same: Sequence[Sequence[int]],
    held: Separation,
    above: FloatArray,
    like: Sequence[str | None],
    same_way: BoolArray,
) -> Iterable[Suggestion]:
    p = holm(held.p_value)
    is_good = (p <= _LEVEL) & (above >= MIN_DECOY_QUANTILE) & same_way
    for j, (i, *others) in enumerate(same):
        yield Suggestion(
            concept=found.names[i],
            auroc=float(held.auroc[j]),
            interval=(float(held.low[j]), float(held.high[j])),
            p_value=float(p[j]),
            decoy_quantile=float(above[j]),
            also=tuple(found.names[k] for k in others),
            like=like[i],
            is_chosen=bool(is_good[j]) and like[i] is None,
            prompts=found.prompts[i],
            templates=found.templates[i],
        )


def _truth(session: DebugSession) -> tuple[BoolArray, IntArray]:
    place = {name: k for k, name in enumerate(session.classes)}
    labels = np.array([place[row["label"]] for row in session.images], np.int64)
    predicted = np.array([place[row["prediction"]] for row in session.images], np.int64)
    return labels != predicted, labels


def _ranking_part(session: DebugSession) -> BoolArray:
    """Choose two fifths of the images by what they are, near-duplicates together."""
    if session.info["fit"]["is_cross_fitted"]:
        fold = np.array([row["fit"] for row in session.images])
        return np.asarray(fold % 2 == 1)
    groups = reopen.near_duplicates(session)
    digests = [hashlib.sha256(row["name"].encode()).hexdigest() for row in session.images]
    return np.asarray(folds(digests, groups) % 2 == 1)


def _check_enough(is_wrong: BoolArray, labels: IntArray, ranking: BoolArray) -> None:
    for part in (ranking, ~ranking):
        both = np.intersect1d(labels[part & is_wrong], labels[part & ~is_wrong])
        of_both = part & np.isin(labels, both)
        n_wrong, n_right = int((of_both & is_wrong).sum()), int((of_both & ~is_wrong).sum())
        if min(n_wrong, n_right) < MIN_SIDE:
            raise InsufficientDataError(
                f"images must be at least {MIN_SIDE} wrong and {MIN_SIDE} right ones of the same "
                f"classes in each of two parts, got {n_wrong} and {n_right}; give the run more"
            )


def _candidates(file: ConceptFile, own: Sequence[str], seen: Seen) -> _Candidates:
    """Encode what the session does not name yet, as far as the model understands it."""
    named = {_plain(name) for name in own}
    entries = {name: e for name, e in file.concepts.items() if _plain(name) not in named}
    sentences = {name: _sentences(e, file.templates) for name, e in entries.items()}
    vectors = _known([ts for each in sentences.values() for ts in each.values()], seen)
    understood = {
        name: tuple(p for p, ts in each.items() if all(t in vectors for t in ts))
        for name, each in sentences.items()
    }
    names = tuple(name for name, prompts in understood.items() if prompts)
    directions = [
        np.mean([vectors[t] for p in understood[name] for t in sentences[name][p]], axis=0)
        for name in names
    ]
    return _Candidates(
        names=names,
        directions=normalize(np.array(directions, np.float32)) if names else np.empty((0, 0)),
        prompts=tuple(understood[name] for name in names),
        templates=tuple(entries[name].templates or file.templates for name in names),
        unknown=tuple(name for name, prompts in understood.items() if not prompts),
    )


def _sentences(entry: ConceptEntry, templates: tuple[str, ...]) -> dict[str, list[str]]:
    """Return the full sentences of each prompt by itself."""
    alone = (entry.model_copy(update={"prompts": (p,)}) for p in entry.prompts)
    return {e.prompts[0]: prompts_of(e, templates) for e in alone}


def _known(prompts: Sequence[Sequence[str]], seen: Seen) -> Mapping[str, FloatArray]:
    """Encode the sentences of prompts; some models know few words, and refuse the others."""
    texts = list(dict.fromkeys(t for sentences in prompts for t in sentences))
    if not texts:
        return {}
    try:
        return dict(zip(texts, _unit(seen.encode_text(texts)), strict=True))
    except InputError:
        found: dict[str, FloatArray] = {}
        for sentences in prompts:
            with contextlib.suppress(InputError):
                found |= zip(sentences, _unit(seen.encode_now(sentences)), strict=True)
        return found


def _unit(vectors: FloatArray) -> FloatArray:
    return normalize(np.asarray(vectors, np.float32))


def _above(held: Separation, decoys: Separation) -> FloatArray:
    ours, theirs = np.abs(held.auroc - 0.5), np.abs(decoys.auroc - 0.5)
    return np.asarray((theirs[None, :] < ours[:, None]).mean(axis=1))


def _likeness(s: FloatArray, directions: FloatArray) -> FloatArray:
    """Return (C, C), how much two candidates say the same: from 1, the same, down to -1.

    Args:
        s: (N, C) strengths.
        directions: (C, E) unit.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        together = np.nan_to_num(np.corrcoef(s, rowvar=False)).reshape(s.shape[1], -1)
    return np.where(directions @ directions.T >= SAME_DIRECTION, 1.0, together)


def _grouped(order: IntArray, likeness: FloatArray, like: Sequence[str | None]) -> list[list[int]]:
    """Put each candidate to the one before it that says the same, if there is one.

    News stays apart from what a concept of the session says already.

    Returns:
        Groups in the order of the ranking, each with its first candidate first.
    """
    groups: list[list[int]] = []
    for i in order:
        alike = [g for g in groups if like[g[0]] == like[i] and likeness[g[0], i] >= SAME]
        if alike:
            max(alike, key=lambda g: likeness[g[0], i]).append(int(i))
        else:
            groups.append([int(i)])
    return groups


def _like(
    seen: Seen, own: FloatArray, s: FloatArray, directions: FloatArray, names: Sequence[str]
) -> list[str | None]:
    """Name for each candidate the session's concept that says the same, if there is one."""
    both = np.c_[strengths(seen.embeddings, own), s]
    likeness = _likeness(both, np.r_[own, directions])[len(own) :, : len(own)]
    best = likeness.argmax(axis=1)
    is_same = likeness[np.arange(len(best)), best] >= SAME
    return [names[c] if same else None for c, same in zip(best, is_same, strict=True)]


def _plain(name: str) -> str:
    return name.replace("-", " ").replace("_", " ").casefold()
