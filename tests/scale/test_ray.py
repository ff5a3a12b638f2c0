"""Ray: one cluster of this machine for all tests here; it takes seconds to start."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest

import scaling
from faultlens.embeddings.extract import Reading
from faultlens.errors import FaultlensError
from faultlens.scale.extraction import ExtractJob
from faultlens.scale.job import run
from faultlens.scale.local import Local
from faultlens.scale.ray_data import RayData

pytest.importorskip("ray")
N = 48


@pytest.fixture(scope="module", autouse=True)
def _cluster():
    import ray

    path = {"PYTHONPATH": str(Path(scaling.__file__).parent)}
    ray.init(
        num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False,
        runtime_env={"env_vars": path},
    )  # fmt: skip
    yield
    ray.shutdown()


def job(folder, log, n=N, dies_at=None):
    store = ("key", N, {"embedding": (3, "float32")})
    encoder, source = partial(scaling.Encoder, log, dies_at), partial(scaling.Pictures, n)
    return ExtractJob.of(folder, store, encoder, source, Reading(8, 1), 8)


@pytest.mark.filterwarnings("ignore")  # of Ray itself
def test_a_killed_actor_loses_nothing_and_the_store_is_the_same(tmp_path, log):
    run(job(tmp_path / "ray", log, dies_at=20), RayData(2))
    assert (log / "died").exists()
    n_loads = len(list(log.glob("load-*")))
    assert 2 <= n_loads <= 3  # once an actor, and once more for the one that took over
    rows = [int(row) for p in log.glob("rows-*") for row in p.read_text().split()]
    assert set(rows) == set(range(N))
    other = tmp_path / "other"
    other.mkdir()
    run(job(tmp_path / "local", other), Local())
    for path in (tmp_path / "local").iterdir():
        assert path.read_bytes() == (tmp_path / "ray" / path.name).read_bytes()
    assert np.array_equal(run(job(tmp_path / "ray", log), RayData(2)).missing(), {})


@pytest.mark.filterwarnings("ignore")
def test_an_error_on_an_actor_is_told_without_rays_own_story(tmp_path, log):
    with pytest.raises(FaultlensError, match=r"^source must have 48 pictures"):
        run(job(tmp_path / "s", log, n=3), RayData(2))
