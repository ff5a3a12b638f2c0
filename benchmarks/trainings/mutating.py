"""Run a healthy program or a mutant, alone and under the watch, and say what came of it."""

import math
import time
import traceback
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from trainings.operators import BY_NAME
from trainings.programs import recipe
from trainings.recipe import Recipe, Variant

#: A mutant really fails if it gains less than this share of what its healthy twin gains.
MARGIN = 0.5
#: A healthy variant must gain at least this much to count as healthy.
HEALTHY = 0.6


@dataclass(frozen=True)
class Task:
    """A program, one of its variants, and the fault put into it (none: a healthy variant)."""

    program: str
    variant: Variant = field(default_factory=Variant)
    operator: str | None = None

    @property
    def name(self) -> str:
        return f"{self.program}/{self.variant.name}/{self.operator or 'healthy'}"


def made(task: Task) -> Recipe | None:
    """The recipe with its fault; None where the operator does not apply."""
    given = recipe(task.program, task.variant)
    if task.operator is not None and not BY_NAME[task.operator].apply(given):
        return None
    return given


def run(given: Recipe, seed: int, w: Any = None, optimizer: Any = None) -> list[float]:
    """Train; return the losses."""
    optimizer = given.make_optimizer() if optimizer is None else optimizer
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    losses: list[float] = []
    stop = given.steps
    given.model.train(given.mode == "train")
    while len(losses) < stop:
        for rows in torch.randperm(len(given.x), generator=generator).split(given.batch):
            x, y = given.x[rows], given.y[rows]
            if given.does_zero_grad:
                optimizer.zero_grad()
            outputs = given.model(x)
            loss = given.loss_fn(outputs, y) * given.sign
            loss.backward()
            if given.does_step:
                optimizer.step()
            losses.append(float(loss.detach()))
            if w is not None:
                w.step(loss, inputs=x, targets=y, outputs=outputs)
            if not math.isfinite(losses[-1]):
                stop = min(stop, len(losses) + 10)
            if len(losses) >= stop:
                break
        if w is not None:
            w.end_epoch()
    return losses


def score(given: Recipe) -> float:
    """Accuracy or R² on the clean data, against the trivial one: 0 is trivial, 1 perfect."""
    given.model.eval()
    x, y = given.clean
    with torch.no_grad():
        outputs = given.model(x)
    if not torch.isfinite(outputs).all():
        return float("-inf")
    if given.task == "values":
        spread = ((y - y.mean(0)) ** 2).sum()
        return float(1 - ((outputs - y) ** 2).sum() / spread)
    if given.task == "classes":
        trivial = float(torch.bincount(y).max() / len(y))
        right = float((outputs.argmax(1) == y).float().mean())
    else:
        trivial = float(torch.maximum(y.mean(), 1 - y.mean()))
        limit = 0.0 if given.task == "logit" else 0.5
        right = float(((outputs > limit) == (y > 0.5)).float().mean())
    return (right - trivial) / (1 - trivial)


@lru_cache(maxsize=64)
def alone(task: Task) -> float | None:
    """The gain without a watch; None where the operator does not apply."""
    given = made(task)
    if given is None:
        return None
    try:
        run(given, task.variant.seed)
        return score(given)
    except (RuntimeError, ValueError, IndexError):
        return None  # the framework itself refuses


def said(finding: Any) -> dict[str, Any]:
    return {
        "symptom": finding.symptom, "place": finding.place, "step": finding.step,
        "kinds": [c.kind for c in finding.causes], "claim": finding.claim,
        "scores": [round(c.score, 3) for c in finding.causes],
        "state": finding.evidence.get("state"),
    }  # fmt: skip


def watched(task: Task, trace: Path | None = None) -> dict[str, Any]:
    """What the watch says while it trains and at the end."""
    from faultlens.training.watch import watch

    given = made(task)
    if given is None:
        raise ValueError(task.name)
    optimizer = given.make_optimizer()
    told: list[tuple[int, Any]] = []
    loss_fn = given.loss_fn

    def hear(finding: Any) -> None:
        told.append((finding.reported_step, finding))

    with watch(given.model, optimizer, loss_fn, trace=trace, on_fault=hear) as w:
        losses = run(given, task.variant.seed, w, optimizer)
    final = [f for f in w.findings if f.severity == "fault"]
    return {
        "gain": score(given), "losses": [losses[0], losses[-1]], "steps": len(losses),
        "first_step": told[0][0] if told else None,
        "told": [{"at": step} | said(f) for step, f in told], "final": [said(f) for f in final],
    }  # fmt: skip


def judge(task: Task, traces: Path | None = None) -> dict[str, Any]:
    """A row: is it a real fault, and what was said; with a folder, the trace is kept there."""
    start = time.perf_counter()
    row: dict[str, Any] = asdict(task) | {"name": task.name}
    gain = alone(task)
    if gain is None:
        return row | {"status": "does not apply"}
    twin = alone(Task(task.program, task.variant)) if task.operator else gain
    row |= {"gain": gain, "twin": twin, "status": status(task, gain, twin)}
    if row["status"] in ("fails", "healthy"):
        try:
            row["watched"] = watched(task, None if traces is None else traces / task.name)
        except Exception:
            row |= {"status": "error", "error": traceback.format_exc()}
    if row["status"] in ("fails", "healthy"):
        row |= verdict(task.operator, row["watched"]["final"] or row["watched"]["told"])
    return row | {"seconds": time.perf_counter() - start}


def verdict(operator: str | None, faults: list[dict[str, Any]]) -> dict[str, Any]:
    """Was there an alarm, and does it name the fault among its first two causes?"""
    kinds = BY_NAME[operator].kinds if operator else ()
    named = bool(faults) and any(k in kinds for k in faults[0]["kinds"][:2])
    return {"has_alarm": bool(faults), "kind": named if operator else None}


def status(task: Task, gain: float, twin: float | None) -> str:
    if task.operator is None:
        return "healthy" if gain >= HEALTHY else "not healthy"
    if twin is None or twin < HEALTHY:
        return "twin not healthy"
    return "fails" if gain < MARGIN * twin else "equivalent"
