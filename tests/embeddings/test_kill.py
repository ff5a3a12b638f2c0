"""Killed at any moment, a run loses the shard it was at, and nothing else."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from faultlens.embeddings.shard import read_shard
from faultlens.embeddings.store import EmbeddingStore
from faultlens.errors import StoreError

N = 200


def start(folder, log):
    script = Path(__file__).with_name("slow_run.py")
    return subprocess.Popen([sys.executable, str(script), str(folder), str(log), str(N)])


def lines(log):
    return log.read_text().splitlines() if log.exists() else []


def wait_for(process, log, n_lines):
    while len(lines(log)) < n_lines and process.poll() is None:
        time.sleep(0.002)


def finished(folder):
    """Return the intact shards in a folder, with their bytes."""
    found = {}
    for path in folder.glob("shard-*"):
        found[read_shard(path).number] = path.read_bytes()
    return found


@pytest.mark.parametrize("seed", [0, 1])
def test_finished_shards_are_neither_lost_nor_computed_again(tmp_path, seed):
    rng = np.random.default_rng(seed)
    undisturbed, folder = tmp_path / "undisturbed", tmp_path / "killed"
    assert start(undisturbed, tmp_path / "log").wait() == 0
    kept = {}
    for run in range(5):
        log = tmp_path / f"log{run}"
        with start(folder, log) as process:
            wait_for(process, log, int(rng.integers(1, 60)))
            time.sleep(rng.uniform(0, 0.02))
            process.send_signal(signal.SIGKILL)
        after = finished(folder)  # reading raises if a shard is damaged
        assert kept.items() <= after.items()
        again = {int(row) // 8 for row in lines(log)} & set(kept)
        assert again == set()
        kept = after
    assert len(kept) > 0
    assert start(folder, tmp_path / "last").wait() == 0
    assert {int(row) // 8 for row in lines(tmp_path / "last")} == set(range(N // 8)) - set(kept)
    assert sorted(os.listdir(folder)) == sorted(os.listdir(undisturbed))
    for name in os.listdir(undisturbed):
        assert (folder / name).read_bytes() == (undisturbed / name).read_bytes()


def test_an_interrupted_run_ends_and_keeps_its_shards(tmp_path):
    folder, log = tmp_path / "store", tmp_path / "log"
    with start(folder, log) as process:
        wait_for(process, log, 20)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode not in (0, None)
    kept = set(finished(folder))
    assert {0, 1} <= kept
    with pytest.raises(StoreError, match="run the same command again"):
        EmbeddingStore.open(folder)
    assert sorted(p.name for p in folder.iterdir() if "shard" not in p.name) == ["manifest.json"]
    assert start(folder, tmp_path / "rest").wait() == 0
    assert {int(row) // 8 for row in lines(tmp_path / "rest")} == set(range(N // 8)) - kept
