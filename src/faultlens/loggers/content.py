"""What every logger logs of a session: numbers, settings, findings and files."""

import math
import re
from pathlib import Path

from faultlens.gate.run import Gate
from faultlens.session import DebugSession

#: Columns of the table of findings.
COLUMNS = (
    "id", "kind", "severity", "confirmed", "subject", "claim", "statistic", "low", "high", "n",
    "confidence", "advice",
)  # fmt: skip
_FILES = ("report.html", "findings.json", "session.json")
_ODD = re.compile(r"[^\w\-./ ]")

Cell = str | float | int | bool


def metrics(session: DebugSession, gate: Gate | None = None) -> dict[str, float]:
    """Return the numbers of a session by name; what is not known is left out.

    Besides the session's own numbers: `class_error/<class>`, `findings/faults`,
    `findings/confirmed_faults`, and of a gate `gate/passed` (1 or 0) and `gate/failed_checks`.
    """
    found = {k: float(v) for k, v in session.numbers.items() if _is_number(v)}
    for name in session.classes:
        rows = [r for r in session.images if r["label"] == name]
        if rows:
            n_wrong = sum(r["prediction"] != name for r in rows)
            found[f"class_error/{_ODD.sub('_', name)}"] = n_wrong / len(rows)
    faults = [f for f in session.findings if f.severity == "fault"]
    found["findings/faults"] = float(len(faults))
    found["findings/confirmed_faults"] = float(sum(f.confirmed for f in faults))
    if gate is not None:
        found["gate/passed"] = float(gate.exit_code == 0)
        found["gate/failed_checks"] = float(len(gate.failed))
    return found


def settings(session: DebugSession) -> dict[str, str]:
    """Return what the session was made of: models with their hashes, images, versions, status."""
    facts, config = session.info["facts"], session.info["config"]
    found = {"status": session.status, "session": str(session.folder)}
    for part in ("model", "vlm"):
        about = facts.get(part) or {}
        found |= {f"{part}.{k}": str(about[k]) for k in ("name", "content_hash") if k in about}
    for key in ("images", "features", "split", "reference_split", "concepts", "limit"):
        if config.get(key) is not None:
            found[key] = str(config[key])
    return found | {f"version.{k}": str(v) for k, v in session.info["versions"].items()}


def rows(session: DebugSession) -> list[list[Cell]]:
    """Return the findings, worst first, one row of `COLUMNS` each."""
    return [
        [f.id, f.kind, f.severity, f.confirmed, f.subject, f.claim, f.statistic, *f.interval,
         f.n, f.confidence, f.advice]
        for f in session.findings
    ]  # fmt: skip


def markdown(session: DebugSession, gate: Gate | None = None) -> str:
    """Return headline, findings and the gate's summary as Markdown."""
    lines = [f"**{session.status}**: {session.headline}", ""]
    lines += [f"* {f.severity} `{f.kind}`: {f.claim}" for f in session.findings]
    return "\n".join(lines + ([] if gate is None else ["", gate.markdown()]))


def paths(session: DebugSession) -> list[Path]:
    """Return the files worth keeping: report, findings, description of the run."""
    return [session.folder / name for name in _FILES if (session.folder / name).exists()]


def _is_number(value: object) -> bool:
    is_real = isinstance(value, int | float) and not isinstance(value, bool)
    return is_real and math.isfinite(float(str(value)))
