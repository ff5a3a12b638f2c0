"""The stages of a run, from images to a finished folder; each resumes what it finds there."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from faultlens import consistency_check, files, reporting
from faultlens.analysis import Analysis, analyse
from faultlens.claims import collect
from faultlens.claims.case import Case
from faultlens.claims.diagnosis import diagnose
from faultlens.claims.erasure import SEED, Erasure
from faultlens.claims.modules import overall_numbers
from faultlens.concepts import ConceptFile, Vocabulary
from faultlens.config import RunConfig
from faultlens.data.images import ImageSource, open_images
from faultlens.errors import InputError
from faultlens.features import TextSide, measure_features
from faultlens.finding import SCHEMA
from faultlens.heatmaps import ClassCounts
from faultlens.localize.breaks import Stages, find_break
from faultlens.localize.consistency import Consistency
from faultlens.localize.stages import measure_stages, sample
from faultlens.measure import (
    Extraction,
    Measured,
    Progress,
    limited,
    measure_images,
    select,
)  # fmt: skip
from faultlens.models.classifier import Classifier
from faultlens.models.drift import ChannelScales
from faultlens.models.load import load_model
from faultlens.packs import read_concepts
from faultlens.report.html import render
from faultlens.vlm.backend import VlmBackend
from faultlens.vlm.load import load_vlm
from faultlens.vlm.sentences import CachedTextEncoder

COUNTS = ("correct", "false_negative", "false_positive")


@dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """What a run works on: loaded, or as the user wrote it.

    Attributes:
        model: Classifier or SPEC; None with features.
        images: Source, folder or CSV file; None with features.
        vlm: Vision-language model or SPEC.
        concepts: Concepts or their file.
    """

    model: Classifier | str | None
    images: ImageSource | str | Path | None
    vlm: TextSide | str
    concepts: ConceptFile | str | Path


def run(config: RunConfig, inputs: Inputs, progress: Progress | None = None) -> None:
    """Run every stage and write the session's folder.

    Raises:
        InputError: Something given is wrong; mismatches are told before anything is computed.
        InsufficientDataError: Too few images.
    """
    out = config.out
    _check_folder(out)
    file = inputs.concepts
    if not isinstance(file, ConceptFile):
        file = read_concepts(file)
    measured, backend = _measured(config, inputs, file, progress)
    encode_text = CachedTextEncoder(backend, out / "embeddings").encode_text
    vocabulary = Vocabulary.build(file, measured.classes, encode_text)
    report = progress or (lambda stage, done, total: None)
    analysis = analyse(
        measured.measurements, vocabulary, encode_text,
        lambda done, total: report("analysis", done, total),
    )  # fmt: skip
    _save(config, measured, vocabulary, analysis)


def _measured(
    config: RunConfig, inputs: Inputs, file: ConceptFile, progress: Progress | None
) -> tuple[Measured, TextSide]:
    if config.features is not None:
        return measure_features(
            config.features, inputs.vlm,
            head=config.head, classes=config.classes, limit=config.limit,
        )  # fmt: skip
    if inputs.images is None or inputs.model is None:
        raise InputError("model and images are both needed (or features instead of them)")
    images = inputs.images
    source = images if isinstance(images, ImageSource) else open_images(images)
    model = _model(config, inputs.model)
    chosen, is_reference = select(source, config.split, config.reference_split)
    chosen = chosen.match_classes(model.class_names)
    if config.limit is not None:
        chosen, is_reference = limited(chosen, is_reference, config.limit)
    file.check_classes(model.class_names)
    backend = _vlm(inputs.vlm)
    settings = Extraction(
        config.batch_size, config.max_failures, config.max_pixels, config.stages or ()
    )
    folder = config.out / "embeddings"
    return measure_images(
        model, backend, (chosen, is_reference), folder, settings, progress
    ), backend


def _vlm(vlm: TextSide | str) -> VlmBackend:
    backend = load_vlm(vlm) if isinstance(vlm, str) else vlm
    if isinstance(backend, VlmBackend):
        return backend
    raise InputError(f"vlm must see images, got '{backend.name}', a bridge over stored logits")


def _model(config: RunConfig, model: Classifier | str) -> Classifier:
    if not isinstance(model, str):
        return model
    return load_model(
        model,
        weights=config.weights,
        preprocess=config.preprocess,
        split_at=config.split_at,
        allow_pickle=config.allow_pickle,
    )


def _check_folder(out: Path) -> None:
    if out.is_file():
        raise InputError(f"out must be a folder, got the file {out}; give another name")
    is_session = (out / "session.json").exists() or (out / "embeddings").is_dir()
    if out.is_dir() and any(out.iterdir()) and not is_session:
        raise InputError(
            f"out must be empty or an earlier session, got {out} with other files; "
            "give a new folder"
        )


def case_of(measured: Measured, vocabulary: Vocabulary, analysis: Analysis) -> Case:
    """Gather what claims are made of."""
    return Case(
        analysis,
        measured.classes,
        vocabulary.concepts,
        {name: mask[analysis.rows] for name, mask in measured.slices.items()},
        reporting.dead_dimensions(measured),
        measured.is_independent,
        _erasure(measured, vocabulary),
        vocabulary.relevant,
        measured.drifts,
        None if measured.vanishing is None else measured.vanishing[analysis.rows],
        measured.input_trials,
        _stages(measured, vocabulary, analysis),
        _consistency(measured, vocabulary, analysis),
        _channels(measured, analysis),
    )


def _channels(measured: Measured, analysis: Analysis) -> ChannelScales | None:
    found = measured.channels
    return None if found is None else replace(found, pooled=found.pooled[analysis.rows])


def _consistency(
    measured: Measured, vocabulary: Vocabulary, analysis: Analysis
) -> Consistency | None:
    """Ask both models about changed pictures, where there are pictures."""
    if measured.models is None or measured.source is None:
        return None
    source = measured.source.select(analysis.rows)
    rng = np.random.default_rng(SEED)
    return consistency_check.check(*measured.models, source, analysis, vocabulary.directions, rng)


def _stages(measured: Measured, vocabulary: Vocabulary, analysis: Analysis) -> Stages | None:
    """Look at the encoder stage by stage, where stages were named."""
    m, rows = measured.measurements, analysis.rows
    if not m.stages:
        return None
    found = measure_stages(
        {name: a[rows] for name, a in m.stages.items()},
        m.vlm_embeddings[rows], m.labels[rows], m.folds[rows],
        vocabulary.directions[analysis.seen_concepts],
    )  # fmt: skip
    is_right = ~analysis.evidence.is_error[sample(len(rows))]
    return find_break(found, is_right)


def _save(
    config: RunConfig, measured: Measured, vocabulary: Vocabulary, analysis: Analysis
) -> None:
    case = case_of(measured, vocabulary, analysis)
    found = [*collect.findings(case), *reporting.run_notices(case, measured, config)]
    state = collect.status(case, found)
    headline = collect.headline(case, found, state)
    outcome: dict[str, Any] = {"schema": SCHEMA, "status": state, "headline": headline}
    outcome["diagnosis"] = diagnose(case, found).to_json()
    images = reporting.image_rows(case, measured)
    info = outcome | _info(case, measured, config)
    content = reporting.content(case, measured, found, images, (state, headline), info)
    counts = {"model": analysis.counts_model, "vlm": analysis.counts_vlm}
    strengths = {"model": analysis.strengths_model, "vlm": analysis.strengths_vlm}
    contents: dict[str, Any] = {
        "images.json": images,
        "concepts.json": reporting.concepts_json(vocabulary, analysis),
        "alignment.safetensors": reporting.alignment_arrays(vocabulary, analysis),
        "heatmaps.safetensors": _heatmap_arrays(counts),
        "strengths.safetensors": strengths,
        "findings.json": outcome | {"findings": [f.to_json() for f in found]},
        "report.html": render(content),
    }
    hashes = {name: _write(config.out / name, value) for name, value in contents.items()}
    # Last, so that a folder with this file is a finished session.
    files.write_json(config.out / "session.json", info | {"files": hashes})


def _info(case: Case, measured: Measured, config: RunConfig) -> dict[str, Any]:
    """Describe the run: its numbers, what went in, and how the maps and heads were fitted."""
    a = case.analysis
    return {
        "numbers": overall_numbers(case),
        "valid_concepts": a.valid_concepts.tolist(),
        "classes": list(case.classes),
        "config": json.loads(config.model_dump_json()),
        "versions": reporting.versions(),
        "facts": files.json_value(measured.facts),
        "failures": dict(measured.failures),
        "fit": {
            "n_fits": len(a.fits),
            "is_cross_fitted": len(a.fits) > 1,
            "ridge": [f.map.ridge for f in a.fits],
            "head_penalty": a.fits[0].head.penalty,
            "random_seed": SEED,
        },
    }


def _write(path: Path, value: Any) -> str:
    """Write arrays, a JSON value or a page, as the file's name says, and return its SHA-256."""
    if path.suffix == ".safetensors":
        return files.save_arrays(path, value)
    if path.suffix == ".json":
        return files.write_json(path, value)
    files.write_atomic(path, value.encode())
    return files.sha256_file(path)


def _erasure(measured: Measured, vocabulary: Vocabulary) -> Erasure | None:
    m, head = measured.measurements, measured.head
    if head is None:
        return None
    return Erasure(m.embeddings, m.is_reference, vocabulary.directions, head, head.is_linear)


def _heatmap_arrays(counts: Mapping[str, ClassCounts]) -> dict[str, Any]:
    return {
        f"{source}.{part}.{key}": getattr(getattr(c, part), key).astype(np.int32)
        for source, c in counts.items()
        for part in COUNTS
        for key in ("wins", "n")
    }
