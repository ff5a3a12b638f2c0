"""Watch: a training loop under observation, with findings as they come.

    with watch(model, optimizer, loss_fn, trace="run-1") as w:
        for x, y in batches:
            loss = loss_fn(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            w.step(loss)

Nothing of the training is changed: not a weight, not a random number, not a gradient.
"""

import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from faultlens.arrays import Array
from faultlens.errors import InputError, TrainingFaultError
from faultlens.training.baseline import Baseline, reduction_scale
from faultlens.training.recorder import Recorder
from faultlens.training.schedule import Schedule, as_schedule
from faultlens.training.store import TraceWriter
from faultlens.training.summary import BatchSummary, is_sparse
from faultlens.training.trace import Evaluation, Trace

if TYPE_CHECKING:
    from faultlens.training.finding import TrainingFinding
    from faultlens.training.live import LiveView
    from faultlens.training.torch_loop import TorchLoop

OnFault = Literal["warn", "raise", "ignore"] | Callable[["TrainingFinding"], None]

_MERGED_STEPS = 20  # batches that the merged summaries cover, if all are recorded
_JUMP = 3.0  # times the usual loss: the next steps are recorded whatever the schedule says
_MOST_EXTRA = 60
_PATIENCE = 1.25  # a trace is diagnosed again when it has grown by this factor


class TrainingFaultWarning(UserWarning):
    """A fault of a watched training."""


class Watch:
    """Records a training and diagnoses it while it runs; made by `watch` and the adapters.

    Args:
        loop: What reads the framework's objects.
        trace: Folder for the trace; None keeps it in memory.
        schedule: At which steps layers are measured: `default`, `thin`, `all` or `step -> bool`.
        on_fault: `warn`, `raise` (TrainingFaultError), `ignore` (diagnose only when `findings` are
            asked for), or a function of a finding.
        live: Whether to show the training in the terminal, if stderr is one.

    Attributes:
        n_steps: Steps so far.
        epoch: From 0.
        initial_weights: Name -> tensor before the first step, if `keep_start` was called.
    """

    def __init__(
        self,
        loop: "TorchLoop",
        *,
        trace: str | Path | None = None,
        schedule: str | Schedule = "default",
        on_fault: OnFault = "warn",
        live: bool = False,
    ) -> None:
        if not callable(on_fault) and on_fault not in ("warn", "raise", "ignore"):
            raise InputError(
                f"on_fault must be 'warn', 'raise', 'ignore' or a function, got {on_fault!r}"
            )
        self._schedule = as_schedule(schedule)
        self._loop = loop
        self._on_fault = on_fault
        self._is_live = live
        self._view: LiveView | None = None
        self._folder = trace
        self._recorder = Recorder(None if trace is None else TraceWriter(trace))
        self._baseline = Baseline("unknown")
        self._summaries: dict[str, BatchSummary] = {}
        self._started = time.perf_counter()
        self._usual_loss = math.nan
        self._n_extra = self._extra_due = 0
        self._findings: list[TrainingFinding] = []
        self._told: set[tuple[str, str]] = set()
        self._next_check = 1
        self._is_stale = self._is_open = False
        self._was_finite = True
        self.n_steps = 0
        self.epoch = 0
        self.initial_weights: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        self.close(check=kind is None)

    def start(self) -> None:
        """Begin; done by the context manager."""
        if not self._is_open:
            self._is_open = True
            self._loop.attach()
            self._arm()
            if self._is_live:
                from faultlens.training.live import open_view  # noqa: PLC0415 (only when asked)

                self._view = open_view()

    def close(self, *, check: bool = True) -> None:
        """Let go of the model and finish the trace; done by the context manager.

        Args:
            check: Diagnose once more; not wanted where an error is on its way.
        """
        if self._is_open:
            self._is_open = False
            self._loop.detach()
            self._recorder.close()
            try:
                if check and self.n_steps:
                    self._check()
            finally:
                if self._view is not None:
                    self._view.close()

    def only(self, *layers: Any) -> Self:
        """Measure nothing but some layers, by name or module; call it before the start.

        Raises:
            InputError: A layer is not part of the model; the nearest names are given.

        Example:
            >>> import torch
            >>> net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU())
            >>> with watch(net).only("1") as w:
            ...     pass
            >>> w.only("0")
            Traceback (most recent call last):
            faultlens.errors.InputError: only must be called before the watch starts
        """
        if self._is_open or self._recorder.is_complete:
            raise InputError("only must be called before the watch starts")
        self._loop.only(layers)
        return self

    def keep_start(self) -> Self:
        """Keep a copy of the weights for `verify_repair`; call it before the first step.

        With a trace it also lies in its folder, for `faultlens.training.start.load_start`.

        Raises:
            InputError: Steps were taken already, or there are no weights to copy.
        """
        from faultlens.training.start import keep  # noqa: PLC0415 (PyTorch)

        if self.n_steps:
            raise InputError(f"keep_start must be called before the first step, got {self.n_steps}")
        self.initial_weights = keep(self._loop.model, self._folder)
        return self

    @property
    def trace(self) -> Trace:
        """The trace so far."""
        return self._recorder.trace()

    @property
    def findings(self) -> "list[TrainingFinding]":
        """What is wrong as far as can be told by now; empty when nothing is."""
        if self._is_stale:
            self._diagnose()
        return list(self._findings)

    def step(
        self,
        loss: Any = None,
        *,
        metrics: Mapping[str, float] | float | None = None,
        inputs: Any = None,
        targets: Any = None,
        outputs: Any = None,
    ) -> None:
        """Take note of one optimizer step; call it after `optimizer.step()`.

        Args:
            loss: Of the batch, a number or a scalar tensor. If `loss_fn` is a module it is seen
                by itself, and so are targets and outputs.
            metrics: name -> value of the batch; a single number is called `metric`.
            inputs: The batch as the model gets it; seen by itself in recorded steps.
            targets: As the loss gets them. Without them no trivial baseline is known.
            outputs: Of the model; seen by itself in recorded steps.

        Raises:
            InputError: No loss is known, or the watch is not open.
            TrainingFaultError: A fault was found and `on_fault="raise"`.
        """
        if not self._is_open:
            raise InputError("step must be called inside `with watch(…) as w`, got a closed watch")
        seen = self._loop.finish_step(loss, inputs, targets, outputs)
        self.n_steps += 1
        if self.n_steps == 1 or self._recorder.layers == ():
            self._describe(seen.targets, seen.outputs)
        baseline = self._trivial(seen.targets)
        self._recorder.add_step(
            self.n_steps,
            loss=seen.loss,
            baseline=baseline,
            lr=self._loop.learning_rate(),
            seconds=time.perf_counter() - self._started,
            epoch=self.epoch,
        )
        if metrics is not None:
            named = metrics if isinstance(metrics, Mapping) else {"metric": metrics}
            self._recorder.add_metrics(self.n_steps, {k: float(v) for k, v in named.items()})
        if self._loop.is_armed:
            self._record({"inputs": seen.inputs, "targets": seen.targets, "outputs": seen.outputs})
        if self._view is not None:
            planned = self._recorder.setup.planned_steps
            self._view.add_step(self.n_steps, seen.loss, baseline, planned)
        self._look_out(seen.loss)
        self._arm()
        self._is_stale = True
        is_first_bad = self._was_finite and not math.isfinite(seen.loss)
        self._was_finite = math.isfinite(seen.loss)
        if self.n_steps >= self._next_check or is_first_bad:
            self._check()

    def evaluate(
        self, loss: Any = None, metrics: Mapping[str, float] | float | None = None
    ) -> None:
        """Take note of a held-out result.

        Args:
            loss: Mean loss on held-out data, by the same loss.
            metrics: name -> value; a single number is called `metric`.
        """
        named = metrics if isinstance(metrics, Mapping) else {"metric": metrics}
        self._recorder.add_evaluation(
            Evaluation(
                self.n_steps,
                self.epoch,
                None if loss is None else float(loss),
                {k: float(v) for k, v in named.items() if v is not None},
            )
        )
        self._is_stale = True

    def end_epoch(self) -> None:
        """Mark the end of an epoch."""
        self.epoch += 1

    def _arm(self) -> None:
        """Decide whether the coming step is recorded; the first one always is."""
        due = self.n_steps == 0 or self._schedule(self.n_steps + 1)
        if not due and self._extra_due and self._n_extra < _MOST_EXTRA:
            self._extra_due -= 1
            self._n_extra += 1
            due = True
        self._loop.arm() if due else self._loop.disarm()

    def _look_out(self, loss: float) -> None:
        """Record the next steps closely when the loss jumps."""
        usual = self._usual_loss
        if not math.isfinite(loss) or (usual > 0 and loss > _JUMP * usual):
            self._extra_due = 3
        elif math.isnan(usual):
            self._usual_loss = loss
        else:
            self._usual_loss += 0.1 * (loss - usual)

    def _describe(self, targets: Array | None, outputs: Array | None) -> None:
        """Write down the setup once the first batch is known."""
        setup, layers = self._loop.describe()
        if setup.loss in ("cross_entropy", "nll", "categorical_crossentropy") and (
            targets is not None
        ):
            sparse = setup.loss_options.get("is_sparse", is_sparse(targets, outputs))
            setup.loss_options["is_sparse"] = sparse
            axis = int(setup.loss_options.get("class_axis", 1))
            if outputs is not None and outputs.ndim > 1:
                setup.loss_options["n_classes"] = int(outputs.shape[axis])
        self._baseline = Baseline(setup.loss, setup.loss_options)
        self._recorder.set_setup(setup)
        self._recorder.set_layers(layers)

    def _trivial(self, targets: Array | None) -> float:
        setup = self._recorder.setup
        if targets is None or not targets.size:
            return self._baseline.value
        sparse = bool(setup.loss_options.get("is_sparse"))
        scale = reduction_scale(setup.loss, setup.reduction, targets, is_sparse=sparse)
        return self._baseline.add(targets) * scale

    def _record(self, batch: Mapping[str, Array | None]) -> None:
        """Write down a recorded step."""
        values = self._loop.take()
        if len(values) > len(self._recorder.layers):
            self._recorder.set_layers(self._loop.describe()[1])
        self._recorder.add_frame(self.n_steps, values)
        if self._view is not None:
            self._view.add_frame(self._recorder.layers, values)
        for name, numbers in batch.items():
            if numbers is None or not numbers.size:
                continue
            seen = self._summaries.setdefault(name, BatchSummary())
            self._recorder.add_batch(self.n_steps, name, seen.add(numbers))
            if self.n_steps <= _MERGED_STEPS and seen.merged is not None:
                self._recorder.set_data(name, seen.merged)

    def _check(self) -> None:
        """Diagnose, and tell of faults that are new; not where nobody is to be told."""
        if self._on_fault == "ignore" and self._view is None:
            return
        self._next_check = max(self.n_steps + 1, math.ceil(self.n_steps * _PATIENCE))
        self._diagnose()
        if self._view is not None:
            self._view.set_findings(self._findings)
        faults = [f for f in self._findings if f.severity == "fault"]
        new = [f for f in faults if (f.symptom, f.place) not in self._told]
        self._told |= {(f.symptom, f.place) for f in new}
        if new:
            self._tell(new)

    def _diagnose(self) -> None:
        from faultlens.training.diagnose import diagnose  # noqa: PLC0415 (only when asked)

        self._findings = list(diagnose(self._recorder.trace()))
        self._is_stale = False

    def _tell(self, new: "Sequence[TrainingFinding]") -> None:
        if callable(self._on_fault):
            for finding in new:
                self._on_fault(finding)
        elif self._on_fault == "raise":
            raise TrainingFaultError("; ".join(f.claim for f in new), new)
        elif self._on_fault == "warn":
            for finding in new:
                warnings.warn(finding.claim, TrainingFaultWarning, stacklevel=4)


def watch(  # noqa: PLR0913 (each is one decision, all but three by name)
    model: Any,
    optimizer: Any = None,
    loss_fn: Any = None,
    *,
    trace: str | Path | None = None,
    schedule: str | Schedule = "default",
    on_fault: OnFault = "warn",
    epochs: int | None = None,
    batches_per_epoch: int | None = None,
    live: bool = False,
) -> Watch:
    """Return a watch over a PyTorch training loop, to be used as a context manager.

    Args:
        model: Any `nn.Module`; to measure some layers only, see `Watch.only`.
        optimizer: One or several; without, the changes of weights are told from step to step.
        loss_fn: The loss as a module or function; a module's targets and outputs are seen by
            themselves, a function's are passed to `Watch.step`.
        trace: Folder for the trace file; None keeps the trace in memory.
        schedule: At which steps layers are measured: `default`, `thin`, `all` or `step -> bool`.
        on_fault: `warn`, `raise`, `ignore` (diagnose only when `findings` are asked for), or a
            function that is called with each new finding.
        epochs: How long the training is meant to be, which says how much time is left to learn;
            without, a training is judged as if it went on for long.
        batches_per_epoch: Optimizer steps of one epoch; both together are the plan.
        live: Whether to show the training in the terminal while it runs; does nothing where
            stderr is no terminal.

    Raises:
        InputError: Something given is of the wrong kind; the folder holds a trace already.
        MissingDependencyError: PyTorch is not installed.

    Example:
        >>> import torch
        >>> net = torch.nn.Linear(2, 1)
        >>> sgd, mse = torch.optim.SGD(net.parameters(), lr=0.01), torch.nn.MSELoss()
        >>> with watch(net, sgd, mse, on_fault="ignore") as w:
        ...     for _ in range(3):
        ...         sgd.zero_grad()
        ...         loss = mse(net(torch.ones(4, 2)), torch.zeros(4, 1))
        ...         loss.backward()
        ...         sgd.step()
        ...         w.step(loss)
        >>> w.trace.setup.loss, w.trace.steps.tolist()
        ('mse', [1, 2, 3])
    """
    from faultlens.training.torch_loop import TorchLoop  # noqa: PLC0415 (loads PyTorch)

    for name, value in (("epochs", epochs), ("batches_per_epoch", batches_per_epoch)):
        if value is not None and (not isinstance(value, int) or value < 1):
            raise InputError(f"{name} must be a whole number of at least 1, got {value!r}")
    loop = TorchLoop(model, optimizer, loss_fn)
    loop.set_plan(epochs, batches_per_epoch)
    return Watch(loop, trace=trace, schedule=schedule, on_fault=on_fault, live=live)
