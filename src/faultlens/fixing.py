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
    head, model = _head(session, model)
    material = reopen.material(session, head)
    report = progress or (lambda stage, done, total: None)
    given = advice.proposals(material, findings)
    fixes = advice.tried(material, given, lambda done, total: report("trying fixes", done, total))
    entries = tuple(
        f.to_json() | {"artefacts": _artefacts(folder, session, model, f)} for f in fixes
    )
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


def _head(session: DebugSession, model: Classifier | None) -> tuple[Head, Classifier | None]:
    if session.info["config"].get("features"):
        return reopen.features_head(session), None
    if model is None:
        model = reopen.classifier(session)
    else:
        reopen.check_same(session, model)
    return model.head, model


def _artefacts(
    folder: Path, session: DebugSession, model: Classifier | None, tried: Fix
) -> list[str]:
    p = tried.proposal
    if p.rows:
        name = f"{p.id}.csv"
        files.write_atomic(folder / name, _csv(p).encode())
        return [name]
    if tried.head is None:
        return []
    name = f"head-{p.id}.safetensors"
    arrays = {"weight": tried.head.weight, "bias": tried.head.bias}
    files.save_arrays(folder / name, arrays, {"fix": p.id})
    patched = f"model-{p.id}.onnx"
    return [name, patched] if _patched(folder / patched, session, model, tried.head) else [name]


def _patched(out: Path, session: DebugSession, model: Classifier | None, head: Head) -> bool:
    """Write the ONNX file with its new head, where the model is one with a linear head."""
    kind, _, source = str(session.info["config"].get("model")).partition(":")
    if model is None or kind != "onnx" or not model.head.is_linear:
        return False
    from faultlens.models.onnx import OnnxClassifier  # noqa: PLC0415 (features need no runtime)
    from faultlens.models.onnx_patch import patch_head  # noqa: PLC0415

    if not isinstance(model, OnnxClassifier):
        return False
    patch_head(source, model, head, out)
    return True


def _csv(proposal: Proposal) -> str:
    columns = SUSPECTS if proposal.kind == "labels" else COLLECT
    rows: tuple[Row, ...] = proposal.rows
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()
