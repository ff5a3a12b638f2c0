"""Killed at any moment, a run goes on where it stopped, and ends as if nothing had happened."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import planted
from faultlens.session import DebugSession

CHILD = """
import sys, time
import numpy as np
sys.path.insert(0, sys.argv[1])
import planted
from faultlens.concepts import ConceptFile
from faultlens.session import DebugSession

class Slow(planted.CellClassifier):
    def encode(self, batch):
        time.sleep(0.02)
        with open(sys.argv[3], "a") as log:
            log.write(f"{len(batch)}\\n")
        return super().encode(batch)

model = planted.swapped_head()
DebugSession.run(Slow(model.mix, model.head), images=planted.source(600), vlm=planted.CellVlm(),
                 concepts=ConceptFile.parse(planted.concepts_yaml()), out=sys.argv[2], batch_size=8)
"""


def child(out: Path, log: Path) -> subprocess.Popen:
    here = str(Path(planted.__file__).parent)
    return subprocess.Popen([sys.executable, "-c", CHILD, here, str(out), str(log)])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    assert child(folder / "out", folder / "log").wait() == 0
    return DebugSession.open(folder / "out")


@pytest.mark.parametrize("n_batches", [3, 30, 60])
def test_a_killed_run_resumes(tmp_path, undisturbed, n_batches):
    out, log = tmp_path / "out", tmp_path / "log"
    process = child(out, log)
    # By what it has done, not by the clock: the moment is the same on any machine.
    while process.poll() is None and (not log.exists() or _lines(log) < n_batches):
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (out / "session.json").exists()
    assert not list(out.glob("*.html"))
    stored = sorted(out.glob("embeddings/model-*/shard-*.safetensors"))
    before = {path: path.stat().st_mtime_ns for path in stored}
    assert child(out, log).wait() == 0
    resumed = DebugSession.open(out)
    assert {path: path.stat().st_mtime_ns for path in stored} == before  # nothing computed twice
    # The page tells where the session lies; all else is equal to the byte.
    hashes = [{k: v for k, v in s.info["files"].items() if k != "report.html"}
              for s in (resumed, undisturbed)]  # fmt: skip
    assert hashes[0] == hashes[1]
    images, usual = (_images(path) for path in (log, undisturbed.folder.parent / "log"))
    assert images <= usual + 600 // 8 + n_batches  # one unfinished shard at most was repeated


def _images(log: Path) -> int:
    return sum(int(line) for line in log.read_text().split())


def _lines(path: Path) -> int:
    return path.read_text().count("\n")
