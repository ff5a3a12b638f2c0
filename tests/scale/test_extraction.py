"""A store is the same whoever computes which shard, and a killed worker loses only its own."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import scaling
from faultlens.embeddings.extract import Reading
from faultlens.embeddings.lock import FileLock
from faultlens.embeddings.store import EmbeddingStore
from faultlens.errors import StoreError, WorkerError
from faultlens.scale.extraction import ExtractJob
from faultlens.scale.job import run
from faultlens.scale.local import Local
from faultlens.scale.ranks import Ranks

N, SHARD = 200, 16
STORE = ("key", N, {"embedding": (3, "float32")})


def job(folder, log, dies_at=None):
    encoder, source = partial(scaling.Encoder, log, dies_at), partial(scaling.Pictures, N)
    return ExtractJob.of(folder, STORE, encoder, source, Reading(8, 1), SHARD)


def files(folder):
    return {p.name: p.read_bytes() for p in sorted(Path(folder).iterdir())}


def rows_computed(log):
    return sorted(int(row) for p in log.glob("rows-*") for row in p.read_text().split())


@pytest.fixture
def alone(tmp_path):
    """The bytes of a store made by `extract` in one process."""
    (tmp_path / "alone").mkdir()
    folder = tmp_path / "alone" / "store"
    with EmbeddingStore.create_or_open(folder, *STORE, SHARD) as store:
        from faultlens.embeddings.extract import extract

        extract(scaling.Encoder(tmp_path / "alone"), scaling.Pictures(N), store)
    return files(folder)


def test_two_processes_make_the_same_bytes_as_one_and_load_the_model_once_each(
    tmp_path, log, alone
):
    told = []
    store = run(job(tmp_path / "s", log), Local(2), lambda *p: told.append(p))
    assert files(tmp_path / "s") == alone
    assert np.allclose(store.column("embedding")[7], np.sin(7 * np.arange(1, 4)))
    assert 1 <= len(list(log.glob("load-*"))) <= 2  # one process may be done before two begin
    assert (told[0], told[-1]) == ((0, 13), (13, 13))


def test_a_killed_worker_is_replaced_and_finished_shards_are_not_computed_again(
    tmp_path, log, alone
):
    run(job(tmp_path / "s", log, dies_at=100), Local(2))
    assert (log / "died").exists()
    assert files(tmp_path / "s") == alone
    # Only shards that were in work at the kill, one a worker, can have rows twice.
    found = rows_computed(log)
    assert set(found) == set(range(N))
    assert len(found) - N <= 2 * SHARD


def test_workers_that_always_die_end_the_run_with_what_is_finished(tmp_path, log):
    class Deadly:
        pass

    encoder = partial(os._exit, 1)
    deadly = ExtractJob.of(tmp_path / "s", STORE, encoder, partial(scaling.Pictures, N))
    with pytest.raises(WorkerError, match="got none of 4 finished; give each more memory"):
        run(deadly, Local(2))


def test_an_error_of_a_worker_is_told_as_it_is(tmp_path, log):
    wrong = ExtractJob.of(
        tmp_path / "s", STORE, partial(scaling.Encoder, log), partial(scaling.Pictures, 7)
    )
    for runner in (Local(1), Local(2)):
        with pytest.raises(ValueError, match="source must have 200 pictures"):
            run(wrong, runner)


def test_ranks_write_their_own_shards_and_the_first_merges(tmp_path, log, alone):
    assert run(job(tmp_path / "s", log), Ranks(1, 2)) is None
    assert rows_computed(log) == [i for i in range(N) if i // SHARD % 2 == 1]
    store = run(job(tmp_path / "s", log), Ranks(0, 2))
    assert store.missing() == {}
    assert files(tmp_path / "s") == alone
    assert rows_computed(log) == list(range(N))


def test_the_first_rank_does_not_wait_forever(tmp_path, log):
    with pytest.raises(WorkerError, match=r"6 parts missing \(first: 1\)"):
        run(job(tmp_path / "s", log), Ranks(0, 2, patience_s=0.1))


@pytest.mark.torch
def test_torchrun_starts_ranks(tmp_path, log, alone):
    pytest.importorskip("torch")
    script = Path(scaling.__file__).with_name("scaling_run.py")
    # A folder of tests is on the path of this process, not of those that torchrun starts.
    environment = os.environ | {"PYTHONPATH": str(script.parent)}
    arguments = [
        "--standalone",
        "--nproc-per-node=2",
        "--no-python",
        sys.executable,
        script,
        tmp_path / "s",
        log,
    ]
    command = [sys.executable, "-m", "torch.distributed.run", *map(str, arguments)]
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=120)
    assert files(tmp_path / "s") == alone
    assert 1 <= len(list(log.glob("load-*"))) <= 2  # one process may be done before two begin


def test_another_run_or_another_store_is_refused(tmp_path, log):
    lock = FileLock.acquire(tmp_path / "s" / "lock")
    with pytest.raises(StoreError, match="must be free to write"):
        run(job(tmp_path / "s", log))
    lock.release()
    run(job(tmp_path / "s", log))
    with pytest.raises(StoreError, match="n_rows 9"):
        ExtractJob.of(tmp_path / "s", ("key", 9, STORE[2]), scaling.Encoder, scaling.Pictures)


def test_a_store_that_is_there_keeps_its_shards(tmp_path, log):
    run(job(tmp_path / "s", log))
    again = ExtractJob.of(tmp_path / "s", STORE, scaling.Encoder, scaling.Pictures)
    assert again.layout.shard_rows == SHARD
    assert run(again).layout == again.layout  # nothing is missing: no model is loaded
