"""RayData: parts as rows of a Ray dataset, computed by actors that load their models once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from faultlens.errors import FaultlensError, MissingDependencyError
from faultlens.scale.persist import persist
from faultlens.scale.protocols import Job


@dataclass(frozen=True, slots=True)
class RayData:
    """A Ray cluster, or this machine where none was joined.

    Join a cluster with `ray.init(address="auto")` before the run; without, Ray is started here.
    An actor that is killed is started again and its part computed again; parts whose files are
    there are not.

    Attributes:
        n_workers: Actors.
        n_cpus: Processors that each reserves.
        n_gpus: GPUs that each reserves; a share such as 0.5 lets two use one.
    """

    n_workers: int = 2
    n_cpus: float = 1
    n_gpus: float = 0

    @property
    def is_lead(self) -> bool:
        """True: the driver merges."""
        return True

    @property
    def is_alone(self) -> bool:
        """True."""
        return True

    def own(self, n_parts: int) -> range:
        """Return all parts."""
        return range(n_parts)

    def run(self, job: Job[object], parts: Sequence[int], done: Callable[[], None]) -> None:
        """Compute parts on actors.

        Raises:
            MissingDependencyError: Ray is not installed.
            WorkerError: Actors stopped, and could not be started again, without finishing a part.
            FaultlensError: Whatever a part raised.
        """
        if not parts:
            return
        ray = _ray()
        if not ray.is_initialized():
            ray.init(include_dashboard=False, log_to_driver=False, configure_logging=False)
        # Ray replaces an actor that died; where it gives up on that, the rest is begun anew.
        persist(job, parts, done, partial(self._on_actors, ray, job), (ray.exceptions.RayError,))

    def _on_actors(
        self,
        ray: Any,
        job: Job[object],
        parts: Sequence[int],
        finished: Callable[[int], None],
    ) -> None:
        rows = ray.data.from_items(
            [{"part": part} for part in parts], override_num_blocks=len(parts)
        )
        computed = rows.map(
            _Actor,
            fn_constructor_args=(job,),
            compute=ray.data.ActorPoolStrategy(size=min(self.n_workers, len(parts))),
            num_cpus=self.n_cpus,
            num_gpus=self.n_gpus,
        )
        for row in computed.iter_rows():
            if row["error"]:
                raise FaultlensError(row["error"])
            finished(int(row["part"]))

    def wait(self, job: Job[object]) -> None:
        """Return at once: `run` has waited for all."""


class _Actor:
    """A worker: the job's models are loaded when it gets its first part."""

    def __init__(self, job: Job[object]) -> None:
        self._job = job
        self._work: Callable[[int], None] | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        try:
            if self._work is None:
                self._work = self._job.open()
            self._work(int(row["part"]))
        except FaultlensError as error:  # else Ray would tell of its own machinery
            return {"part": row["part"], "error": str(error) or type(error).__name__}
        return {"part": row["part"], "error": ""}


def _ray() -> Any:
    try:
        import ray  # noqa: PLC0415 (an extra)
        import ray.data  # noqa: PLC0415
    except ImportError as error:
        raise MissingDependencyError("ray", "ray") from error
    return ray
