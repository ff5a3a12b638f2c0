"""Watch a Hugging Face Trainer: a callback.

    from faultlens.training.transformers import Watch

    watch = Watch(trace="run-1")
    trainer = Trainer(model, arguments, train_dataset=data, callbacks=[watch])
    trainer.train()
    for finding in watch.findings:
        print(finding.claim)

`Watch` takes `trace`, `schedule`, `on_fault` and `live`, as `faultlens.training.watch.watch` does.
The loss is read from the model's output, the targets from its argument `labels`.
"""

import importlib
from typing import Any

from faultlens.errors import FaultlensError, MissingDependencyError
from faultlens.training.callback import CallbackWatch, made


class WatchMethods(CallbackWatch):
    """What `Watch` adds to `transformers.TrainerCallback`.

    Args:
        options: `trace`, `schedule`, `on_fault`, `live`.
    """

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin to watch."""
        from faultlens.training.labelled_loop import LabelledLoop  # noqa: PLC0415 (loads PyTorch)

        optimizer = kwargs.get("optimizer")
        loop = LabelledLoop(kwargs["model"], getattr(optimizer, "optimizer", optimizer))
        batches = max(1, state.max_steps // max(1, int(state.num_train_epochs)))
        loop.set_plan(int(state.num_train_epochs), batches, "transformers")
        self._open(loop)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take note of a step."""
        watch = self._opened()
        try:
            watch.step()
        except FaultlensError:
            watch.close(check=False)
            raise

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take note of held-out results."""
        given = kwargs.get("metrics") or {}
        held_out = {k.removeprefix("eval_"): float(v) for k, v in given.items()
                    if k.startswith("eval_") and isinstance(v, (int, float))
                    and not k.endswith(("_runtime", "_per_second"))}  # fmt: skip
        if self._watch is not None:
            self._watch.evaluate(held_out.pop("loss", None), held_out)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take note of the end of an epoch."""
        self._opened().end_epoch()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Diagnose once more and let go of the model."""
        self._opened().close()


def __getattr__(name: str) -> Any:
    """Make `Watch` when it is asked for, so that this module can be read without transformers."""
    if name != "Watch":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        base = importlib.import_module("transformers").TrainerCallback
    except ImportError as error:
        raise MissingDependencyError("transformers", "training") from error
    return made(WatchMethods, base, globals())
