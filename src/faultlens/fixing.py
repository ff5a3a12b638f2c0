"""Fixing: propose fixes for a finished session, try them, and write what comes of them."""

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faultlens import files, reopen
from faultlens.errors import InputError, nearest
from faultlens.finding import SCHEMA, Finding
from faultlens.fixes import advice
from faultlens.fixes.advice import Fix, Proposal
from faultlens.fixes.images import COLLECT, SUSPECTS, Row
from faultlens.models.classifier import Classifier
from faultlens.models.head import Head
from faultlens.session import DebugSession


@dataclass(frozen=True, slots=True, eq=False)
class Fixes:
    """What was tried, advised fixes first.

    Attributes:
        folder: Where `fixes.json` and the artefacts are.
        entries: The objects of `fixes.json`.
    """

    folder: Path
    entries: tuple[dict[str, Any], ...]

    def to_json(self) -> dict[str, Any]:
        """Return one JSON object, as `faultlens fix --json` prints it."""
        return {"schema": SCHEMA, "fixes": list(self.entries), "folder": str(self.folder)}


def fix(
    session: DebugSession,
    *,
    finding: str | None = None,
    out: str | Path | None = None,
    model: Classifier | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Fixes:
    """Propose fixes, measure each on images it never saw, and write the artefacts.

    Args:
        session: Finished.
        finding: Id of the only finding to mend; None mends all.
        out: Folder for the results; None is `fixes` in the session's folder.
        model: The classifier, where the session cannot load it by its SPEC.
        progress: Called as `progress(stage, done, total)`.

    Raises:
        InputError: Unknown finding, or model, features or images are no longer where they were.
        StoreError: The embeddings of the session are missing.
    """
    folder = _folder(session, out)
    findings = _chosen(session, finding)
    head, source = _shipped(session, model)
    material = reopen.material(session, head)
    report = progress or (lambda stage, done, total: None)
    given = advice.proposals(material, findings)
    fixes = advice.tried(material, given, lambda done, total: report("trying fixes", done, total))
    entries = tuple(f.to_json() | _artefacts(folder, source, f) for f in fixes)
    # Last, so that whatever it names is there.
    files.write_json(folder / "fixes.json", {"schema": SCHEMA, "fixes": list(entries)})
    return Fixes(folder, entries)


def _folder(session: DebugSession, out: str | Path | None) -> Path:
    folder = session.folder / "fixes" if out is None else Path(out)
    if folder.is_file():
        raise InputError(f"out must be a folder, got the file {folder}; give another name")
    known = (folder / "fixes.json").exists()
    if out is not None and folder.is_dir() and any(folder.iterdir()) and not known:
        raise InputError(
            f"out must be empty or hold earlier fixes, got {folder} with other files; give a new "
            "folder"
        )
    return folder


def _chosen(session: DebugSession, wanted: str | None) -> list[Finding]:
    found = [f for f in session.findings if wanted in (None, f.id)]
    if wanted is not None and not found:
        known = [f.id for f in session.findings]
        raise InputError(
            f"finding must be one of the session, got '{wanted}'; {nearest(wanted, known)}"
        )
    return found


#: An ONNX file, and the classifier loaded from it.
_Source = tuple[str, Classifier]


def _shipped(session: DebugSession, model: Classifier | None) -> tuple[Head, _Source | None]:
    """Return the shipped head, and the ONNX file that holds it where there is one."""
    config = session.info["config"]
    if config.get("features"):
        return reopen.features_head(session), None
    if model is not None:
        reopen.check_same(session, model)
        return model.head, None
    loaded = reopen.classifier(session)
    spec = str(config["model"])
    is_onnx = spec.startswith("onnx:") or spec.endswith(".onnx")
    return loaded.head, (spec.removeprefix("onnx:"), loaded) if is_onnx else None


def _artefacts(folder: Path, source: _Source | None, tried: Fix) -> dict[str, Any]:
    """Write what a fix is, and return the names of its files with a note."""
    p = tried.proposal
    if p.rows:
        name = f"{p.id}.csv"
        files.write_atomic(folder / name, _csv(p).encode())
        return {"artefacts": [name], "note": ""}
    if p.text:
        name = f"{p.id}.yaml"
        files.write_atomic(folder / name, p.text.encode())
        return {"artefacts": [name], "note": ""}
    if tried.head is None:
        return {"artefacts": [], "note": ""}
    name = f"head-{p.id}.safetensors"
    arrays = {"weight": tried.head.weight, "bias": tried.head.bias}
    files.save_arrays(folder / name, arrays, {"fix": p.id})
    patched = f"model-{p.id}.onnx"
    note = "" if source is None else _patched(folder / patched, source, tried.head)
    is_written = source is not None and not note
    return {"artefacts": [name, patched] if is_written else [name], "note": note}


def _patched(out: Path, source: _Source, head: Head) -> str:
    """Write the ONNX file with its new head; return why that cannot be done, or nothing."""
    # Features and other models need no ONNX Runtime.
    from faultlens.models.onnx import OnnxClassifier  # noqa: PLC0415
    from faultlens.models.onnx_patch import patch_head  # noqa: PLC0415

    path, model = source
    if not isinstance(model, OnnxClassifier):
        return "no patched model: it is no ONNX file"
    try:
        patch_head(path, model, head, out)
    except InputError as error:
        return f"no patched model: {error}"
    return ""


def _csv(proposal: Proposal) -> str:
    columns = SUSPECTS if proposal.kind == "labels" else COLLECT
    rows: tuple[Row, ...] = proposal.rows
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()
