"""Local: parts in this process, or in several on this machine."""

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial

from threadpoolctl import threadpool_limits

from faultlens.errors import InputError, WorkerError
from faultlens.scale.persist import persist
from faultlens.scale.protocols import Job


@dataclass(frozen=True, slots=True)
class Local:
    """This machine.

    More than one worker are new processes, so the calling script needs the usual
    `if __name__ == "__main__":`. Each may use its share of the processors for matrix products. A
    worker that is killed is replaced; only the parts that were being computed are done again.

    Attributes:
        n_workers: 1 computes in this process.
    """

    n_workers: int = 1

    def __post_init__(self) -> None:
        if self.n_workers < 1:
            raise InputError(f"n_workers must be at least 1, got {self.n_workers}")

    @property
    def is_lead(self) -> bool:
        """True."""
        return True

    @property
    def is_alone(self) -> bool:
        """True."""
        return True

    def own(self, n_parts: int) -> range:
        """Return all parts."""
        return range(n_parts)

    def run(self, job: Job[object], parts: Sequence[int], done: Callable[[], None]) -> None:
        """Compute parts; WorkerError if workers die without finishing any."""
        if self.n_workers == 1:
            work = job.open() if parts else None
            for part in parts:
                if work is not None:
                    work(part)
                done()
            return
        attempt = partial(self._in_processes, job)
        persist(job, parts, done, attempt, (BrokenProcessPool,))

    def wait(self, job: Job[object]) -> None:
        """Return at once: nobody else computes."""

    def _in_processes(
        self, job: Job[object], parts: Sequence[int], finished: Callable[[int], None]
    ) -> None:
        n_threads = max(1, len(os.sched_getaffinity(0)) // self.n_workers)
        context = multiprocessing.get_context("spawn")
        n = min(self.n_workers, len(parts))
        with ProcessPoolExecutor(n, context, _begin, (job, n_threads)) as pool:
            futures = {pool.submit(_compute, part): part for part in parts}
            try:
                for future in as_completed(futures):
                    future.result()
                    finished(futures[future])
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


@dataclass(slots=True)
class _Worker:
    """What a worker process keeps between parts."""

    job: Job[object]
    work: Callable[[int], None] | None = None


_worker: _Worker | None = None


def _begin(job: Job[object], n_threads: int) -> None:
    global _worker  # noqa: PLW0603 (a pool's processes have no other place)
    threadpool_limits(n_threads)
    _worker = _Worker(job)


def _compute(part: int) -> None:
    if _worker is None:
        raise WorkerError("a worker must have its job, got none; start it through Local")
    if _worker.work is None:
        # Here and not as the process begins, where an error would not be told.
        _worker.work = _worker.job.open()
    _worker.work(part)
