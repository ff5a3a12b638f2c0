"""A gate from its file to its verdict: exit code, table, JUnit and a summary in Markdown."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faultlens import checking, comparing, evaluating, files, verifying
from faultlens.config import RunConfig
from faultlens.errors import InputError, InsufficientDataError
from faultlens.finding import SCHEMA
from faultlens.gate import measures
from faultlens.gate.config import GateConfig, Monitor
from faultlens.gate.judge import Result, Value, judge, plain
from faultlens.gate.training import training
from faultlens.measure import Progress
from faultlens.monitor.evaluation import Evaluation
from faultlens.monitor.reliability import Rate
from faultlens.monitor.runtime import RuntimeMonitor
from faultlens.session import DebugSession
from faultlens.spec.check import Rule
from faultlens.spec.suite import Case, Outcome, Report
from faultlens.spec.table import Table
from faultlens.stats import clopper_pearson

_RATES = ("false_alarms", "caught", "risk", "accepted")
_SCORES = ("auroc", "aurc", "fpr95")
_ORDER = {Outcome.FAILED: 0, Outcome.ERROR: 0, Outcome.UNKNOWN: 1, Outcome.PASSED: 2}


@dataclass(frozen=True, slots=True, eq=False)
class Gate:
    """What a gate found.

    Attributes:
        session: The one that was judged; None where only a training was.
        results: One a check, in the order of the file.
        file: Of the thresholds; None where they came from elsewhere.
    """

    session: DebugSession | None
    results: tuple[Result, ...]
    file: Path | None = None

    @property
    def failed(self) -> tuple[Result, ...]:
        """The checks that failed."""
        return tuple(r for r in self.results if _ORDER[r.case.outcome] == 0)

    @property
    def exit_code(self) -> int:
        """0 where nothing failed, else 1."""
        return 1 if self.failed else 0

    @property
    def status(self) -> str:
        """`passed` or `failed`."""
        return "failed" if self.failed else "passed"

    @property
    def suites(self) -> Mapping[str, Sequence[Case]]:
        """The checks for JUnit, by the part of the gate."""
        found: dict[str, list[Case]] = {}
        for result in self.results:
            found.setdefault(result.suite, []).append(result.case)
        return found

    @property
    def table(self) -> Table:
        """One row a check, failed ones first."""
        ordered = sorted(self.results, key=lambda r: _ORDER[r.case.outcome])
        rows = ((r.suite, r.case.name, r.value, r.required, r.told) for r in ordered)
        return Table(("part", "check", "measured", "required", "verdict"), tuple(rows))

    @property
    def told(self) -> str:
        """The counts in one line."""
        counts = Counter(r.case.outcome for r in self.results)
        parts = [f"{len(self.failed)} of {len(self.results)} checks failed"]
        if counts[Outcome.UNKNOWN]:
            parts.append(f"{counts[Outcome.UNKNOWN]} skipped for too few images")
        return ", ".join(parts)

    def to_json(self) -> dict[str, Any]:
        """Return the gate as one JSON object, as the command prints it with `--json`."""
        return dict(files.json_value({
            "schema": SCHEMA,
            "file": None if self.file is None else str(self.file),
            "session": None if self.session is None else str(self.session.folder),
            "status": self.status,
            "exit_code": self.exit_code,
            "counts": {
                "passed": len(self.results) - len(self.failed) - self._n_skipped,
                "failed": len(self.failed), "skipped": self._n_skipped,
            },
            "results": [
                {"part": r.suite, "name": r.case.name, "verdict": r.case.verdict,
                 "outcome": "failed" if r in self.failed else r.case.outcome.value,
                 "message": r.case.message, **r.data}
                for r in self.results
            ],
        }))  # fmt: skip

    @property
    def _n_skipped(self) -> int:
        return sum(r.case.outcome is Outcome.UNKNOWN for r in self.results)

    def markdown(self) -> str:
        """Return a summary for a pull request: what failed, then all in a fold."""
        lines = [f"## FaultLens gate: {self.status}", "", f"{self.told}.{self._of_session}"]
        if self.failed:
            told = [" ".join(r.case.message.split()) for r in self.failed]
            lines += [
                "",
                *(f"* **{r.suite}**: {t}" for r, t in zip(self.failed, told, strict=True)),
            ]
        fold = [
            "<details><summary>All checks</summary>",
            "",
            self.table.markdown(),
            "",
            "</details>",
        ]
        return "\n".join([*lines, "", *fold, ""])

    @property
    def _of_session(self) -> str:
        if self.session is None:
            return ""
        numbers = self.session.numbers
        return (
            f" Session `{self.session.folder}`: {numbers['n_images']} images, accuracy "
            f"{100 * numbers['accuracy']:.1f} %. {self.session.headline}"
        )


def run(
    config: GateConfig | str | Path,
    session: DebugSession | str | Path | None = None,
    progress: Progress | None = None,
) -> Gate:
    """Ask all that a gate asks.

    Args:
        config: The thresholds, or their file.
        session: Judged in place of the one that the file names.
        progress: Called as `progress(stage, done, total)`.

    Raises:
        InputError: The file is wrong, names no session, or names what the session does not have.
        SpecError: A file of specifications is wrong.
        StoreError: A session, a monitor, a trace or embeddings are missing or damaged.

    Example:
        >>> run(GateConfig.parse({"accuracy": {"min": 0.9}}))
        Traceback (most recent call last):
        faultlens.errors.InputError: session must be given: add 'session: DIR' or 'debug: FILE' \
to the file, or --session
    """
    file = None if isinstance(config, GateConfig) else Path(config)
    asked = config if isinstance(config, GateConfig) else GateConfig.read(config)
    opened = session if isinstance(session, DebugSession) else _open(asked, session, progress)
    return Gate(opened, tuple(_results(asked, opened, progress)), file)


def _open(
    config: GateConfig, given: str | Path | None, progress: Progress | None
) -> DebugSession | None:
    if given is None and config.debug is not None:
        return DebugSession.run_config(RunConfig.read(config.debug), progress)
    folder = given or config.session
    if folder is None and not config.needs_session:
        return None
    if folder is None:
        raise InputError(
            "session must be given: add 'session: DIR' or 'debug: FILE' to the file, or --session"
        )
    return DebugSession.open(folder)


def _results(
    config: GateConfig, session: DebugSession | None, progress: Progress | None
) -> Iterator[Result]:
    if session is not None:
        yield from _of_session(config, session, progress)
    if config.training is not None:
        yield from training(config.training, config)


def _of_session(
    config: GateConfig, session: DebugSession, progress: Progress | None
) -> Iterator[Result]:
    yield from measures.metrics(session, config)
    yield from measures.groups(session, config)
    if config.findings is not None:
        yield from measures.findings(session, config.findings)
    for suite in config.check:
        rule = Rule(suite.required_rate, config.confidence, suite.exploratory)
        yield from _of_specs(f"check {suite.file.name}", checking.check(session, suite.file, rule))
    for proof in config.verify:
        settings = verifying.Settings(proof.region, proof.timeout)
        report = verifying.verify(session, proof.file, settings, progress=progress)
        yield from _of_specs(f"verify {proof.file.name}", report)
    if config.monitor is not None:
        yield from _of_monitor(config, config.monitor, session)
    if config.baseline is not None:
        yield from _of_baseline(comparing.compare(config.baseline, session))


def _of_specs(suite: str, report: Report) -> Iterator[Result]:
    """Take over the verdicts of specifications; one that is not decided fails."""
    for case in (c for cases in report.suites.values() for c in cases):
        outcome = Outcome.PASSED if case.outcome is Outcome.PASSED else Outcome.FAILED
        taken = Case(case.name, case.verdict, outcome, case.message, case.detail, case.seconds)
        yield Result(suite, taken, case.verdict, "as expected", {})


def _of_monitor(config: GateConfig, asked: Monitor, session: DebugSession) -> Iterator[Result]:
    monitor = RuntimeMonitor.load(asked.file)
    other = session if asked.session is None else DebugSession.open(asked.session)
    try:
        found = evaluating.evaluate(monitor, other)
    except (InputError, InsufficientDataError) as error:
        message = f"could not be computed: {error}"
        yield plain("monitor", "evaluation", Outcome.FAILED, message)
        return
    for name in (*_RATES, *_SCORES):
        limit = getattr(asked, name)
        if limit is not None:
            yield judge("monitor", _of_evaluation(found, name, config), limit, config)


def _of_baseline(found: comparing.Difference) -> Iterator[Result]:
    """Fail on whatever became significantly worse; groups with too few images do not count."""
    for c in found.changes:
        if c.verdict == "few" and c.kind != "all":
            continue
        outcome = Outcome.PASSED if c.verdict in ("same", "better") else Outcome.FAILED
        low, high = c.interval
        value = f"{100 * c.gain:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}] points"
        message = f"accuracy on {c.name} {value}, required not significantly worse"
        yield plain(
            "baseline", c.name, outcome, message, value=value,
            required="not significantly worse",
        )  # fmt: skip


def _of_evaluation(found: Evaluation, name: str, config: GateConfig) -> Value:
    if name in _SCORES:
        value = float(getattr(found.monitor, name))
        return Value(name, value, found.errors.of, None, is_share=False)
    rate: Rate = getattr(found, name)
    low, high = clopper_pearson(rate.n, rate.of, config.confidence)
    words = name.replace("_", " ")
    if not rate.of:
        return Value(words, None, 0, None, "no such prediction")
    return Value(words, rate.share, rate.of, (float(low), float(high)))
