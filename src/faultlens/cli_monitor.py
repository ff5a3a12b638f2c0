"""Commands about the runtime monitor: fit, score, evaluate."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from faultlens import console
from faultlens.errors import InputError
from faultlens.terminal import Debug, Json, Quiet, err, errors, progress

if TYPE_CHECKING:
    from faultlens.monitor.evaluation import Evaluation
    from faultlens.monitor.reliability import Rate
    from faultlens.monitor.risk import Quality
    from faultlens.monitor.runtime import RuntimeMonitor
    from faultlens.monitor.verdict import Verdict

monitor_app = typer.Typer(
    help="Fit a monitor that says which predictions to trust; score and evaluate it.",
    no_args_is_help=True,
)

#: Rejected images on a terminal or in a pipe; --json prints all.
_N_ROWS = 40

Monitor = Annotated[Path, typer.Argument(help="A file that 'faultlens monitor fit' wrote.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.add_typer(monitor_app, name="monitor")


@monitor_app.command(no_args_is_help=True)
def fit(
    folder: Annotated[Path, typer.Argument(help="A session's folder.")],
    alpha: Annotated[
        float, typer.Option(help="False-alarm rate: share of correct predictions rejected.")
    ] = 0.05,
    per_class: Annotated[
        bool, typer.Option("--per-class", help="Hold the rate in every predicted class.")
    ] = False,
    detector: Annotated[
        str, typer.Option(help="A detector's name, or auto: the best on held-out images.")
    ] = "auto",
    seed: Annotated[int, typer.Option(help="Of the split into fitting and calibration.")] = 0,
    full: Annotated[
        bool, typer.Option("--full", help="Also watch the encoder and run changed pictures.")
    ] = False,
    vlm: Annotated[
        bool, typer.Option("--vlm", help="With --full: also ask the vision-language model.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="The file; DIR/monitor/monitor.safetensors by default.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    show_traceback: Debug = False,
) -> None:
    """Fit a monitor on the images of a session.

    Detectors are compared on held-out images; the best one is fitted, and its threshold is set on
    further images so that a share ALPHA of correct predictions is rejected. With a reference
    split it sees the reference images only.

    Examples:

      faultlens monitor fit out/

      faultlens monitor fit out/ --alpha 0.01 --per-class --out trucks.safetensors

      faultlens monitor fit out/ --full --detector fused-full   # against adversarial inputs

      faultlens monitor fit out/ --full --vlm   # the vision-language model has a say, too
    """
    with errors(show_traceback, "nothing was written"):
        from faultlens import monitoring  # noqa: PLC0415 (--help must be quick)
        from faultlens.monitor.runtime import Mode, Settings  # noqa: PLC0415
        from faultlens.session import DebugSession  # noqa: PLC0415

        opened = DebugSession.open(folder)
        if vlm and not full:
            raise InputError("--vlm must come with --full, got it alone; add --full")
        mode: Mode = "full-vlm" if vlm else "full" if full else "light"
        settings = Settings(alpha, per_class, detector, seed, mode)
        with progress(quiet or as_json) as report:
            fitted = monitoring.fit(
                opened, settings, report and (lambda done, n: report("watching", done, n))
            )
        path = out or folder / "monitor" / "monitor.safetensors"
        digest = fitted.save(path)
    pooled = [fitted.classes[k] for k in fitted.calibration.pooled] if per_class else []
    if as_json:
        console.print_json(
            {"file": str(path), "sha256": digest, "detector": fitted.detector.name,
             "alpha": alpha, "pooled_classes": pooled, **fitted.facts}
        )  # fmt: skip
        return
    console.out.print(f"monitor: {path}", soft_wrap=True)
    if not quiet:
        _tell_fit(fitted, pooled)
        err.print(f"now: faultlens monitor evaluate {path} --session DIR", soft_wrap=True)


@monitor_app.command(no_args_is_help=True)
def score(
    monitor: Monitor,
    features: Annotated[
        Path | None, typer.Option(help="Safetensors with embedding (N, D) and logits (N, K).")
    ] = None,
    session: Annotated[Path | None, typer.Option(help="A session's folder.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    show_traceback: Debug = False,
) -> None:
    """Accept or reject predictions, and say which concepts contradict the rejected ones.

    Examples:

      faultlens monitor score out/monitor/monitor.safetensors --features new.safetensors --json

      faultlens monitor score out/monitor/monitor.safetensors --session today/
    """
    with errors(show_traceback, "nothing was written"):
        if (features is None) == (session is None):
            given = "both" if features else "neither"
            raise InputError(
                f"--features or --session must be given, one of the two, got {given}; "
                "name what to score"
            )
        from faultlens import monitoring  # noqa: PLC0415
        from faultlens.monitor.runtime import RuntimeMonitor  # noqa: PLC0415
        from faultlens.session import DebugSession  # noqa: PLC0415

        fitted = RuntimeMonitor.load(monitor)
        if features is not None:
            read = monitoring.read_features(features)
            names = tuple(f"row[{i}]" for i in range(len(read)))
            verdict = fitted(read)
        elif session is not None:
            names, verdict = monitoring.score(fitted, DebugSession.open(session))
    n_rejected = int((~verdict.accept).sum())
    if as_json:
        rows = zip(names, verdict.to_json(), strict=True)
        console.print_json({
            "detector": fitted.detector.name, "alpha": fitted.calibration.alpha,
            "n": len(names), "n_rejected": n_rejected,
            "images": [{"name": name, **row} for name, row in rows],
        })  # fmt: skip
        return
    _show_rejected(names, verdict, quiet)
    console.out.print(
        f"\n{n_rejected} of {len(names)} predictions rejected ({fitted.detector.name}, false-alarm "
        f"rate {fitted.calibration.alpha:g})",
        soft_wrap=True,
    )


@monitor_app.command(no_args_is_help=True)
def evaluate(
    monitor: Monitor,
    session: Annotated[Path, typer.Option("--session", help="A session's folder, DIR.")],
    html: Annotated[
        Path | None, typer.Option(help="The page; DIR/monitor/report.html by default.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    show_traceback: Debug = False,
) -> None:
    """Compare a monitor with single detectors on a session's labelled images.

    AUROC and FPR95 of wrong against right predictions; AURC: mean error rate over all coverages.
    Detectors are fitted in five folds of these images, and asked about the fold left out. Writes
    a page with curves, classes and images, and the same numbers in DIR/monitor/evaluation.json.

    Example:

      faultlens monitor evaluate out/monitor/monitor.safetensors --session fresh/
    """
    with errors(show_traceback, "nothing was written"):
        from faultlens import evaluating  # noqa: PLC0415
        from faultlens.monitor.runtime import RuntimeMonitor  # noqa: PLC0415
        from faultlens.session import DebugSession  # noqa: PLC0415

        opened = DebugSession.open(session)
        found = evaluating.evaluate(RuntimeMonitor.load(monitor), opened)
        page = evaluating.write(found, opened, html)
    if as_json:
        console.print_json({"report": str(page), **found.to_json()})
        return
    own = {f"monitor ({found.detector})": found.monitor}
    console.print_table(
        ("score", "AUROC", "AURC", "FPR95"), _quality_rows(own | dict(found.detectors))
    )
    _tell_rates(found)
    console.out.print(f"report: {page}")
    if not quiet:
        if found.is_refitted:
            err.print("note: the monitor was fitted on these images; refits of it were asked, each "
                      "about images it had not seen", soft_wrap=True)  # fmt: skip
        _tell_skipped(found.skipped)


def _tell_fit(fitted: "RuntimeMonitor", pooled: list[str]) -> None:
    facts = fitted.facts
    err.print(
        f"chosen: {facts['chosen']}; fitted on {facts['n_fit']} images, calibrated on "
        f"{facts['n_calibration']} correct predictions",
        soft_wrap=True,
    )
    if pooled:
        err.print(
            f"note: too few images for a threshold of their own, the common one serves: "
            f"{', '.join(pooled)}", soft_wrap=True, markup=False,
        )  # fmt: skip
    if fitted.concept_map is None:
        err.print("note: no two valid concepts, so alarms come without reasons", soft_wrap=True)
    _tell_skipped(facts["skipped"])


def _tell_skipped(skipped: Mapping[str, Any]) -> None:
    # What only the full mode reads is no news in light mode.
    told = [name for name, why in skipped.items() if not why.startswith("layers must hold")]
    if told:
        err.print(f"note: not asked, since they lack what they need: {', '.join(told)}",
                  soft_wrap=True)  # fmt: skip


def _tell_rates(found: "Evaluation") -> None:
    console.out.print(
        f"\nfalse alarms: {_told(found.false_alarms, 'correct')}, requested {found.alpha:.1%}\n"
        f"caught: {_told(found.caught, 'wrong')}",
        soft_wrap=True,
    )


def _told(rate: "Rate", of: str) -> str:
    low, high = rate.interval
    return (
        f"{rate.share:.1%} of {of} predictions ({rate.n} of {rate.of}, interval {low:.1%} to "
        f"{high:.1%})"
    )


def _quality_rows(table: Mapping[str, "Quality"]) -> Iterable[tuple[str, ...]]:
    for name, q in table.items():
        yield name, f"{q.auroc:.4f}", f"{q.aurc:.5f}", f"{q.fpr95:.4f}"


def _show_rejected(names: tuple[str, ...], verdict: "Verdict", quiet: bool) -> None:
    order = sorted((i for i, ok in enumerate(verdict.accept) if not ok),
                   key=lambda i: -float(verdict.score[i]))  # fmt: skip
    rows = [
        (names[i], f"{verdict.score[i]:.4g}", f"{verdict.p_value[i]:.2g}",
         "; ".join(r.told for r in verdict.reasons[i]))
        for i in order[:_N_ROWS]
    ]  # fmt: skip
    if rows:
        console.print_table(("rejected", "score", "p", "reasons"), rows)
    if len(order) > _N_ROWS and not quiet:
        err.print(f"… and {len(order) - _N_ROWS} more, less abnormal: --json")
