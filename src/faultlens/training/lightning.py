"""Watch a Lightning module: a callback for the trainer.

    from faultlens.training.lightning import Watch

    watch = Watch(trace="run-1")
    trainer = Trainer(max_epochs=3, callbacks=[watch])
    trainer.fit(module, loader)
    for finding in watch.findings:
        print(finding.claim)

`Watch` takes `trace`, `schedule`, `on_fault` and `live`, as `faultlens.training.watch.watch` does,
and `loss_fn`, the loss module of the Lightning module if it has one under another name than
`loss_fn`, `criterion` or `loss`. A loss that is no module cannot be told; then no trivial baseline
is known.
"""

import importlib
import math
from typing import Any

from faultlens.errors import MissingDependencyError
from faultlens.training.callback import CallbackWatch, made

_LOSS_NAMES = ("loss_fn", "criterion", "loss")


class WatchMethods(CallbackWatch):
    """What `Watch` adds to `lightning.pytorch.Callback`.

    Args:
        loss_fn: The loss module; found by its usual names if None.
        options: `trace`, `schedule`, `on_fault`, `live`.
    """

    def __init__(self, loss_fn: Any = None, **options: Any) -> None:
        super().__init__(**options)
        self._loss_fn = loss_fn
        self._n_updates = 0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin to watch."""
        from faultlens.training.torch_loop import TorchLoop  # noqa: PLC0415 (loads PyTorch)

        named = (getattr(pl_module, name, None) for name in _LOSS_NAMES)
        loss_fn = self._loss_fn or next((m for m in named if hasattr(m, "forward")), None)
        loop = TorchLoop(pl_module, list(trainer.optimizers), loss_fn)
        epochs = trainer.max_epochs if (trainer.max_epochs or 0) > 0 else None  # -1: no end is set
        batches = trainer.num_training_batches / trainer.accumulate_grad_batches
        loop.set_plan(epochs, math.ceil(batches) if math.isfinite(batches) else None, "lightning")
        self._n_updates = trainer.global_step
        self._open(loop)

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take note of a step, if this batch ended one."""
        if trainer.global_step == self._n_updates:
            return  # gradients are still being accumulated
        self._n_updates = trainer.global_step
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        inputs = targets = None
        if isinstance(batch, (list, tuple)) and len(batch) == 2:
            inputs, targets = batch
        self._opened().step(
            # Lightning divides the loss by the number of accumulated batches.
            None if loss is None else loss * trainer.accumulate_grad_batches,
            metrics=_numbers(trainer.callback_metrics, held_out=False) or None,
            inputs=inputs,
            targets=targets,
        )

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Take note of held-out results."""
        if self._watch is None or trainer.sanity_checking:
            return
        metrics = _numbers(trainer.callback_metrics, held_out=True)
        held_out = {k.removeprefix("val_"): v for k, v in metrics.items()}
        if held_out:
            self._watch.evaluate(held_out.pop("loss", None), held_out)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Take note of the end of an epoch."""
        self._opened().end_epoch()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Diagnose once more and let go of the model."""
        self._opened().close()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Let go of the model."""
        self.close()


def _numbers(metrics: Any, *, held_out: bool) -> dict[str, float]:
    """Return the scalar metrics of training or of validation (`val_…`)."""
    return {
        str(k): float(v)
        for k, v in metrics.items()
        if str(k).startswith("val_") == held_out and getattr(v, "numel", lambda: 1)() == 1
    }


def __getattr__(name: str) -> Any:
    """Make `Watch` when it is asked for, so that this module can be read without Lightning."""
    if name != "Watch":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        base = importlib.import_module("lightning.pytorch").Callback
    except ImportError as error:
        raise MissingDependencyError("lightning", "training") from error
    return made(WatchMethods, base, globals())
