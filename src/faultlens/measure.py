"""Measure: images through both models, into stores that survive a kill; or features from a file."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from faultlens import rerun
from faultlens.analysis import N_FOLDS, Measurements
from faultlens.arrays import Array, BoolArray, IntArray
from faultlens.data.duplicates import duplicate_groups, folds, signature
from faultlens.data.images import ImageSource
from faultlens.data.scan import check_failures
from faultlens.embeddings.extract import Encoder, extract
from faultlens.embeddings.store import EmbeddingStore
from faultlens.errors import InputError
from faultlens.input_check import check_inputs
from faultlens.localize.inputs import InputTrials
from faultlens.models.classifier import Classifier
from faultlens.models.drift import ChannelScales, NormDrift
from faultlens.models.head import Head
from faultlens.models.stages import watch
from faultlens.vlm.backend import VlmBackend

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """Measurements with what is known about the images besides.

    Attributes:
        measurements: Of the N images that could be read.
        names: N names.
        classes: K names.
        source: The same N images, None for features.
        slices: name -> (N,) 1 for images of a subclass or with an attribute, 0 without, -1 unknown.
        head: The classifier's, None if unknown.
        is_independent: Whether classifier and VLM have different encoders.
        drifts: Of the classifier's normalisation layers; empty where they are not known.
        vanishing: (N,) 1 for errors that vanish under small changes of the picture, 0 for those
            that stay, -1 for images not asked about; None where nothing was asked.
        channels: At what sizes channels arrive where the encoder breaks; None where not known.
        input_trials: Other ways to feed the classifier; None where none was tried.
        models: Both, to be asked again; None for features.
        failures: Files that could not be read, with the reason.
        facts: For the run's description.
        warnings: Sentences the user should read.
    """

    measurements: Measurements
    names: tuple[str, ...]
    classes: tuple[str, ...]
    source: ImageSource | None
    slices: Mapping[str, IntArray]
    head: Head | None
    is_independent: bool
    drifts: tuple[NormDrift, ...] = ()
    vanishing: IntArray | None = None
    channels: ChannelScales | None = None
    input_trials: InputTrials | None = None
    models: tuple[Classifier, VlmBackend] | None = None
    failures: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def select(
    source: ImageSource, split: str | None, reference: str | None
) -> tuple[ImageSource, BoolArray]:
    """Return the images of both splits and which of them are reference.

    Raises:
        InputError: The images have splits but none is named, or an unknown one is.
    """
    if source.splits is None:
        if split or reference:
            raise InputError(
                f"split must not be given, got '{split or reference}': these images have none; "
                "arrange them as <split>/<class>/… or leave the option out"
            )
        return source, np.zeros(len(source), bool)
    if split is None:
        known = ", ".join(sorted(set(source.splits)))
        raise InputError(f"split must be one of {known}, got none; add --split")
    chosen = {split} | ({reference} if reference else set())
    for name in chosen:
        source.split(name)  # refuses an unknown name with the nearest ones
    rows = np.flatnonzero([s in chosen for s in source.splits])
    return source.select(rows), np.array([source.splits[i] == reference for i in rows])


@dataclass(frozen=True, slots=True)
class Extraction:
    """How images are read.

    Attributes:
        batch_size: Images at once through a network.
        max_failures: Share of files that may fail.
        max_pixels: Largest picture accepted.
        stages: What is watched inside the encoder; see `faultlens.models.stages.watch`.
    """

    batch_size: int = 16
    max_failures: float = 0.01
    max_pixels: int = 178_956_970
    stages: tuple[str, ...] = ()


def limited(source: ImageSource, is_reference: BoolArray, n: int) -> tuple[ImageSource, BoolArray]:
    """Return at most n images, every class keeping its share, and which of them are reference."""
    if n >= len(source):
        return source, is_reference
    kept = source.limit(n)
    place = {name: i for i, name in enumerate(source.names)}
    return kept, is_reference[[place[name] for name in kept.names]]


def measure_images(
    model: Classifier,
    vlm: VlmBackend,
    images: tuple[ImageSource, BoolArray],
    folder: Path,
    settings: Extraction,
    progress: Progress | None = None,
) -> Measured:
    """Run both models over the images, resuming what is already stored.

    Args:
        model: The classifier.
        vlm: The vision-language model.
        images: N images with the model's labels, and which of them are reference.
        folder: Where the stores go.
        settings: How images are read.
        progress: Called as `progress(stage, done, total)`.

    Raises:
        InputError: Too many files fail, a picture is too large, a model gives no numbers, or a
            stage is not one of its own.
    """
    source, is_reference = images
    watched = watch(model, settings.stages) if settings.stages else model
    report = progress or (lambda stage, done, total: None)
    scan = source.scan(settings.max_pixels, partial(report, "reading files"))
    check_failures(scan.failures, len(source), settings.max_failures)
    widths = {"embedding": model.dimension, "logits": len(model.class_names), "signature": 56}
    stages = _stage_widths(watched, source, scan.failures) if settings.stages else {}
    key = "\n".join([model.content_hash, *stages])
    of_model = _store(
        watched, widths | stages, source, folder / _name("model", key, scan.digests),
        settings.batch_size, partial(report, "classifier"),
    )  # fmt: skip
    of_vlm = _store(
        vlm, {"embedding": vlm.dimension}, source,
        folder / _name("vlm", vlm.content_hash, scan.digests),
        settings.batch_size, partial(report, "vision-language model"),
    )  # fmt: skip
    failures = scan.failures | of_model.failures | of_vlm.failures
    check_failures(failures, len(source), settings.max_failures)
    good = np.array([i for i in range(len(source)) if i not in failures])
    kept = _kept(good, scan.digests, of_model.column("signature"), is_reference)
    used = source.select(kept.rows)
    measurements = Measurements(
        embeddings=of_model.column("embedding")[kept.rows],
        logits=of_model.column("logits")[kept.rows],
        labels=used.labels,
        vlm_embeddings=of_vlm.column("embedding")[kept.rows],
        folds=kept.folds,
        is_reference=is_reference[kept.rows],
        attributes=used.attributes,
        stages={s.removeprefix("stage:"): of_model.column(s)[kept.rows] for s in stages},
    )
    return Measured(
        measurements=measurements,
        names=used.names,
        classes=model.class_names,
        source=used,
        slices=_slices(used),
        head=model.head,
        is_independent=_is_independent(model, vlm),
        models=(model, vlm),
        **_reruns(model, used, measurements, settings.batch_size, report),
        failures={source.names[i]: why for i, why in failures.items()},
        facts=_facts(model, vlm, used) | {"n_near_duplicates": kept.n_near_duplicates},
        warnings=(*_taken(model), *_warnings(used, kept.n_leaked)),
    )


def _stage_widths(
    model: Classifier, source: ImageSource, failures: Mapping[int, str]
) -> dict[str, int]:
    """Return how many channels every watched stage has, asked with the first readable picture."""
    first = next(i for i in range(len(source)) if i not in failures)
    found = model.encode(model.prepare(source.load(first))[None])
    return {name: a.shape[1] for name, a in found.items() if name.startswith("stage:")}


def _reruns(
    model: Classifier,
    source: ImageSource,
    m: Measurements,
    batch_size: int,
    progress: Progress,
) -> dict[str, Any]:
    """Run the checks that ask the model again, about analysed images only."""
    rows = np.flatnonzero(~m.is_reference)
    analysed, predictions = source.select(rows), m.logits[rows].argmax(axis=1)
    vanishing = np.full(len(m.labels), -1, np.int8)
    vanishing[rows] = rerun.vanishing(model, analysed, m.labels[rows], predictions)
    drifts = rerun.drifts(model, analysed)
    return {
        "drifts": drifts,
        "vanishing": vanishing,
        "channels": rerun.channels(model, source, drifts, rows),
        "input_trials": check_inputs(
            model, source, m, batch_size=batch_size, progress=partial(progress, "input check")
        ),
    }


@dataclass(frozen=True, slots=True, eq=False)
class _Kept:
    """The images that can be used: readable, and no reference that repeats an analysed one.

    Attributes:
        rows: (N,) their places among all images.
        folds: (N,) in [0, N_FOLDS); near-duplicates share a fold.
        n_near_duplicates: Readable images that repeat another one.
        n_leaked: Reference images left out.
    """

    rows: IntArray
    folds: IntArray
    n_near_duplicates: int
    n_leaked: int


def _kept(
    good: IntArray, digests: Sequence[str], signatures: Array, is_reference: BoolArray
) -> _Kept:
    digests, is_reference = [digests[i] for i in good], is_reference[good]
    groups = duplicate_groups(digests, signatures[good])
    # Near-duplicates of analysed images are no independent reference.
    leaked = is_reference & np.isin(groups, groups[~is_reference])
    if is_reference.any() and not (is_reference & ~leaked).any():
        raise InputError(
            "reference and analysed images must differ, but every reference image repeats an "
            "analysed one; give another reference split, or none to cross-fit"
        )
    return _Kept(
        rows=good[~leaked],
        folds=folds(digests, groups, N_FOLDS)[~leaked],
        n_near_duplicates=len(good) - len(np.unique(groups)),
        n_leaked=int(leaked.sum()),
    )


def _is_independent(model: Classifier, vlm: VlmBackend) -> bool:
    """Whether the two have different eyes: they share few of the classifier's tensors."""
    shared = len(model.tensor_hashes & vlm.tensor_hashes)
    return shared / max(len(model.tensor_hashes), 1) < 0.5


def _store(
    encoder: Encoder,
    widths: Mapping[str, int],
    source: ImageSource,
    folder: Path,
    batch_size: int,
    progress: Callable[[int, int], None],
) -> EmbeddingStore:
    columns = {n: (w, "uint8" if n == "signature" else "float32") for n, w in widths.items()}
    extras = {"signature": signature} if "signature" in widths else {}
    with EmbeddingStore.create_or_open(folder, folder.name, len(source), columns) as store:
        extract(encoder, source, store, batch_size=batch_size, extras=extras, progress=progress)
        return store


def _name(kind: str, content_hash: str, digests: Sequence[str]) -> str:
    """Name a store after all that goes in: another model or another picture is another store."""
    parts = (content_hash, *digests)
    return f"{kind}-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]}"


def _facts(model: Classifier, vlm: VlmBackend, source: ImageSource) -> dict[str, Any]:
    return {
        "model": {
            "name": model.name,
            "content_hash": model.content_hash,
            "dimension": model.dimension,
            "preprocessing": model.preprocessing.model_dump(mode="json"),
            "preprocessing_from": model.preprocessing.source or None,
        },
        "vlm": {"name": vlm.name, "content_hash": vlm.content_hash, "dimension": vlm.dimension},
        "images": {"root": source.root, "n": len(source)},
    }


def _taken(model: Classifier) -> tuple[str, ...]:
    """Tell preprocessing that the user did not state, and whose record it is."""
    p = model.preprocessing
    return (f"the preprocessing is {p.source}: {p.told}",) if p.source else ()


def _warnings(source: ImageSource, n_leaked: int) -> tuple[str, ...]:
    said = []
    if source.classes_without_images:
        names = ", ".join(source.classes_without_images)
        said.append(f"no images of {names}: nothing is said about them")
    if n_leaked:
        said.append(f"{n_leaked} reference images left out: near-duplicates of analysed ones")
    return tuple(said)


def _slices(source: ImageSource) -> dict[str, IntArray]:
    """Subclasses and attributes as 1, 0, -1; a subclass that is a whole class says nothing new."""
    found: dict[str, IntArray] = {}
    for name in sorted(set(source.subclasses or ()) - {""}):
        group = np.array([s == name for s in source.subclasses or ()])
        labels = np.unique(source.labels[group])
        if not all(group[source.labels == k].all() for k in labels):
            title = f"{name} ({', '.join(source.class_names[k] for k in labels)})"
            found[title] = group.astype(np.int8)
    for name, values in source.attributes.items():
        found[f"images with {name}"] = values
        found[f"images without {name}"] = np.where(values < 0, values, 1 - values)
    return found
