"""A monitor in full mode over a session of the shipped classifier and drawn pictures."""

from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from faultlens import evaluating, monitoring
from faultlens.data.world.dataset import render_all
from faultlens.data.world.names import CLASSES
from faultlens.data.world.scene import scenes
from faultlens.deploy.judge import Judge
from faultlens.errors import InputError
from faultlens.monitor.runtime import RuntimeMonitor, Settings
from faultlens.session import DebugSession

DEMO = resources.files("faultlens") / "assets" / "demo"


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    folder = tmp_path_factory.mktemp("full")
    drawn = render_all(list(scenes(420, 11)))
    for i, (pixels, label) in enumerate(zip(drawn.pixels, drawn.labels, strict=True)):
        path = folder / "photos" / CLASSES[label] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return DebugSession.run(
        f"onnx:{DEMO / 'faulty.onnx'}", images=folder / "photos", vlm="demo",
        concepts=DEMO / "concepts.yaml", out=folder / "out",
    )  # fmt: skip


@pytest.fixture(scope="module")
def monitor(session):
    done = []
    settings = Settings(alpha=0.1, detector="fused-full", mode="full")
    fitted = monitoring.fit(session, settings, lambda n, total: done.append((n, total)))
    assert done[-1] == (420, 420)
    return fitted


def test_it_knows_what_it_reads_after_a_file(monitor, tmp_path):
    monitor.save(tmp_path / "m.safetensors")
    again = RuntimeMonitor.load(tmp_path / "m.safetensors")
    assert again.layers == monitor.layers
    kinds = {name.partition(":")[0] for name in again.layers}
    assert kinds == {"stage", "squeeze"}


def test_pictures_are_judged_as_the_session_is(monitor, session):
    names, verdict = monitoring.score(monitor, session)
    rows = [0, 100, 419]
    model = session.load_classifier()
    folder = session.info["config"]["images"]
    images = [Image.open(f"{folder}/{names[i]}").convert("RGB") for i in rows]
    alone = monitoring.of_images(monitor, model, images)
    np.testing.assert_allclose(alone.score, verdict.score[rows], rtol=1e-3)
    np.testing.assert_array_equal(alone.accept, verdict.accept[rows])


def test_noise_is_rejected_more_often_than_pictures(monitor, session):
    rng = np.random.default_rng(0)
    model = session.load_classifier()
    noise = [
        Image.fromarray(rng.integers(256, size=(64, 64, 3), dtype=np.uint8)) for _ in range(30)
    ]
    rejected = ~monitoring.of_images(monitor, model, noise).accept
    _, known = monitoring.score(monitor, session)
    assert rejected.mean() > 0.9
    assert (~known.accept).mean() < 0.5


def test_it_is_evaluated_by_refits_in_full_mode(monitor, session):
    found = evaluating.evaluate(monitor, session, detectors=("msp", "squeezed-margin"))
    assert found.is_refitted
    assert set(found.detectors) == {"msp", "squeezed-margin"}
    assert 0 < found.false_alarms.share < 0.25


def test_a_light_monitor_reads_no_layers_and_an_unknown_mode_is_refused(session):
    assert monitoring.fit(session, Settings(alpha=0.1, detector="margin")).layers == ()
    with pytest.raises(
        InputError, match="mode must be one of light, full, full-vlm, got 'fulll'; did"
    ):
        Settings(mode="fulll")


@pytest.fixture(scope="module")
def asking(session):
    return monitoring.fit(
        session, Settings(alpha=0.1, detector="vlm-disagreement", mode="full-vlm")
    )


def test_the_vision_language_model_is_asked_alike_by_session_pictures_and_service(
    asking, session, tmp_path
):
    asking.save(tmp_path / "m.safetensors")
    again = RuntimeMonitor.load(tmp_path / "m.safetensors")
    assert "vlm" in again.layers
    names, verdict = monitoring.score(again, session)
    rows = [0, 200, 419]
    model, folder = session.load_classifier(), session.info["config"]["images"]
    images = [Image.open(f"{folder}/{names[i]}").convert("RGB") for i in rows]
    alone = monitoring.of_images(again, model, images)
    np.testing.assert_allclose(alone.score, verdict.score[rows], atol=1e-4)
    judge = Judge(again, model, 10**6)
    served = [judge((Path(folder) / names[i]).read_bytes())["score"] for i in rows]
    np.testing.assert_allclose(served, verdict.score[rows], atol=1e-4)


def test_its_disagreement_finds_the_planted_errors(asking, session):
    found = evaluating.evaluate(asking, session, detectors=("msp", "vlm-disagreement"))
    assert found.monitor.auroc > 0.95


def test_another_vision_language_model_is_refused(asking, session):
    class Other:
        name, content_hash, dimension = "other", "f" * 64, 128

    image = Image.new("RGB", (64, 64))
    model = session.load_classifier()
    with pytest.raises(InputError, match=r"vlm must be of .* asks \('demo'\), got another one"):
        monitoring.of_images(asking, model, [image], vlm=Other())
    asked = replace(asking.vlm_classes, spec="clip:nowhere")
    with pytest.raises(InputError, match="vlm must be where the monitor was fitted with it"):
        monitoring.of_images(replace(asking, vlm_classes=asked), model, [image])


def test_pictures_that_went_away_are_named(monitor, session, tmp_path):
    folder = session.folder.parent / "photos"
    gone = next(folder.rglob("*.png"))
    gone.rename(tmp_path / "kept.png")
    try:
        with pytest.raises(InputError, match=f"got none named '.*{gone.name}'; put it back"):
            monitoring.score(monitor, session)
    finally:
        (tmp_path / "kept.png").rename(gone)
