"""Jobs: work cut into numbered parts, and `run`, which does the parts that are missing.

A job knows nothing of where it runs, a runner nothing of what is computed. Every part ends as one
file that is whole or absent, and what a file holds depends on the job alone, never on who wrote
it. So a run may stop anywhere, go on elsewhere, and gives the same bits with any number of workers.
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import TypeVar

from faultlens.scale.local import Local
from faultlens.scale.protocols import Job, Runner

Result = TypeVar("Result")
Progress = Callable[[int, int], None]


def run(
    job: Job[Result], runner: Runner | None = None, progress: Progress | None = None
) -> Result | None:
    """Compute the parts that are missing and merge all.

    Args:
        job: What to compute.
        runner: Where: `Local`, `Ranks` or `RayData`; None computes in this process.
        progress: Called with the parts done and their total, of those that this process answers
            for.

    Returns:
        The merged result; None in a process that does not merge (any rank but the first).

    Raises:
        WorkerError: Workers kept stopping, or another rank did not deliver.
        StoreError: Files of the job are damaged, or another run is writing them.
    """
    runner = runner or Local()
    with job.held() if runner.is_alone else nullcontext():
        own = runner.own(job.n_parts)
        missing = [part for part in own if not job.is_done(part)]
        n_done = len(own) - len(missing)

        def count(n: int = 1) -> None:
            nonlocal n_done
            n_done += n
            if progress is not None:
                progress(n_done, len(own))

        count(0)
        runner.run(job, missing, count)
    if not runner.is_lead:
        return None
    runner.wait(job)
    return job.collect()
