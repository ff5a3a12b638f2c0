import json

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image
from typer.testing import CliRunner

import planted
from faultlens.cli_export import register
from faultlens.deploy import onnx_check
from faultlens.deploy.onnx_monitor import export_monitor
from faultlens.deploy.onnx_scores import SCORES
from faultlens.deploy.onnx_verdict import verdict_model
from faultlens.errors import InputError
from faultlens.models.description import ModelDescription
from faultlens.models.load import load_model
from faultlens.monitor.detector import DETECTORS, load_detector
from faultlens.monitor.features import Features
from faultlens.monitor.pnorm import PNorm
from faultlens.monitor.runtime import RuntimeMonitor, Settings
from faultlens.monitor.verdict import ConceptMap
from faultlens.onnx_session import open_session


def prepared(model, n, seed):
    pixels, labels = planted.draw(n, seed)
    batch = [model.prepare(Image.fromarray(p).convert("RGB")) for p in pixels]
    return np.stack(batch), labels


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("net") / "net.onnx"
    planted.save_onnx(planted.swapped_head(), path)
    return load_model(f"onnx:{path}")


@pytest.fixture(scope="module")
def known(model):
    """Features of pictures with their labels, and a concept map."""
    batch, labels = prepared(model, 600, seed=3)
    found = model.encode(batch)
    names = ("wheels", "wings", "sails", "fur", "beak", "sky")
    weight = np.random.default_rng(0).normal(size=(len(names), model.dimension))
    mapped = ConceptMap(weight.astype(np.float32), np.zeros(len(names), np.float32), names)
    attacked = {"attacked": np.arange(len(labels))[:, None] % 4 == 0}
    return Features(found["embedding"], found["logits"], layers=attacked), labels, mapped


def fit(model, known, detector, mapped=True, **settings):
    features, labels, concept_map = known
    return RuntimeMonitor.fit_features(
        features, labels, settings=Settings(detector=detector, **settings),
        classes=model.class_names, concept_map=concept_map if mapped else None,
    )  # fmt: skip


def run(path, **feeds):
    session = open_session(path.read_bytes(), threads=1)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def test_every_detector_of_embedding_and_logits_has_an_onnx_form():
    full_mode = {name for name in DETECTORS if "squeez" in name}
    full_mode |= {"layers", "vlm-disagreement", "fused-full"}
    assert set(SCORES) == set(DETECTORS) - full_mode


@pytest.mark.parametrize("detector", sorted(SCORES))
def test_the_graph_says_what_the_monitor_says(tmp_path, model, known, detector):
    monitor = fit(model, known, detector, per_class=True, alpha=0.1)
    path = tmp_path / "both.onnx"
    export_monitor(monitor, model, path, extras=("p_value", "strengths"))
    batch, _ = prepared(model, 300, seed=9)
    found = run(path, image=batch)
    network = model.encode(batch)
    verdict = monitor(Features(network["embedding"], network["logits"]))
    np.testing.assert_allclose(found["logits"], network["logits"], rtol=1e-5, atol=1e-5)
    spread = np.ptp(monitor.calibration.scores)
    close = np.isclose(found["score"], verdict.score, rtol=1e-4, atol=1e-4 * spread)
    # Ranks and signs jump where two numbers are equal but for rounding.
    assert close.mean() > 0.99
    assert (found["accept"] == verdict.accept)[close].mean() > 0.99
    np.testing.assert_array_equal(found["accept"], found["p_value"] > 0.1)
    # Scores that are equal but for rounding share their p-value.
    near = 1e-4 * (np.abs(verdict.score) + spread)
    low, high = (
        monitor.calibration.p_values(verdict.score + step, network["logits"].argmax(axis=1))
        for step in (near, -near)
    )
    assert ((found["p_value"] >= low) & (found["p_value"] <= high))[close].all()
    np.testing.assert_allclose(
        found["strengths"], monitor.concept_map(network["embedding"]), rtol=1e-4, atol=1e-5
    )
    assert found["score"].dtype == np.float64
    assert found["accept"].dtype == bool


def test_one_picture_is_judged_as_in_a_batch(tmp_path, model, known):
    monitor = fit(model, known, "heatmap-bayes")
    export_monitor(monitor, model, tmp_path / "both.onnx")
    batch, _ = prepared(model, 20, seed=4)
    whole = run(tmp_path / "both.onnx", image=batch)
    assert list(whole) == ["logits", "score", "accept"]
    for i in range(20):
        one = run(tmp_path / "both.onnx", image=batch[i : i + 1])
        assert one["score"][0] == pytest.approx(whole["score"][i], rel=1e-4, abs=1e-6)
        assert one["accept"].shape == (1,)


def test_the_file_tells_what_it_is_and_loads_again(tmp_path, model, known):
    monitor = fit(model, known, "refit", alpha=0.1)
    digest = monitor.save(tmp_path / "m.safetensors")
    written = export_monitor(monitor, model, tmp_path / "both.onnx")
    proto = onnx.load(tmp_path / "both.onnx")
    told = {entry.key: entry.value for entry in proto.metadata_props}
    assert json.loads(told["faultlens.classes"]) == list(planted.CLASSES)
    assert told["faultlens-monitor.sha256"] == digest
    assert (told["faultlens-monitor.detector"], told["faultlens-monitor.alpha"]) == ("refit", "0.1")
    assert (written.input, written.outputs) == ("image", ("logits", "score", "accept"))
    again = load_model(f"onnx:{tmp_path / 'both.onnx'}")
    batch, _ = prepared(model, 5, seed=1)
    np.testing.assert_allclose(
        again.encode(batch)["embedding"], model.encode(batch)["embedding"], rtol=1e-5, atol=1e-6
    )
    assert again.preprocessing == model.preprocessing


@pytest.mark.parametrize("power", [-1, 0, 1, 4])
def test_every_power_of_pnorm(model, known, power):
    monitor = fit(model, known, "pnorm")
    detector = PNorm.restore(monitor.detector.state() | {"p": np.array(power)})
    assert_same_operators(detector, known)


@pytest.mark.parametrize(
    ("name", "options"),
    [("energy", {"temperature": 3.0}), ("doctor-alpha", {"temperature": 0.5}),
     ("relative-uncertainty", {"temperature": 2.0}), ("nearest", {"k": 3, "bank": 40}),
     ("vim", {"dimensions": 99}), ("fused-benign", {"method": "fisher"})],
)  # fmt: skip
def test_options_are_kept(known, name, options):
    features, labels, _ = known
    assert_same_operators(load_detector(name, **options).fit(features, labels), known)


def assert_same_operators(detector, known, rows=200):
    """Compare the operators alone with the detector, at the reach of float32."""
    features, labels, mapped = known
    right = features.select(features.predictions == labels)
    fitted = RuntimeMonitor.fit_features(
        features, labels, settings=Settings(detector="msp"), concept_map=mapped
    )
    calibration = type(fitted.calibration).of(
        detector.score(right), right.predictions, len(planted.CLASSES)
    )
    monitor = RuntimeMonitor(detector, calibration, fitted.classes, concept_map=mapped)
    few = features.select(slice(rows))
    proto = verdict_model(monitor, few.embeddings.shape[1], 18)
    feeds = {"embedding": few.embeddings, "given": few.logits}
    score = open_session(proto.SerializeToString()).run(["score"], feeds)[0]
    near = 1e-5 * np.ptp(calibration.scores)
    assert np.isclose(score, detector.score(few), rtol=1e-5, atol=near).mean() > 0.98


def test_confident_logits_do_not_underflow(known):
    features, labels, _ = known
    sure = Features(features.embeddings, 20 * features.logits)
    detector = load_detector("msp").fit(sure, labels)
    monitor = RuntimeMonitor.fit_features(sure, labels, settings=Settings(detector="msp"))
    proto = verdict_model(monitor, sure.embeddings.shape[1], 18)
    feeds = {"embedding": sure.embeddings, "given": sure.logits}
    score = open_session(proto.SerializeToString()).run(["score"], feeds)[0]
    np.testing.assert_allclose(score, detector.score(sure), rtol=1e-9)
    assert 0 < score.min() < 1e-40  # float32 ends there


def test_nothing_is_written_if_the_graph_disagrees(tmp_path, model, known, monkeypatch):
    monitor = fit(model, known, "refit")
    other = fit(model, known, "msp")
    asked = []
    honest = onnx_check.verdict_model

    def forged(_, *args):
        asked.append(1)
        return honest(other, *args)

    monkeypatch.setattr(onnx_check, "verdict_model", forged)
    with pytest.raises(InputError, match="exported operators must agree with the monitor"):
        export_monitor(monitor, model, tmp_path / "both.onnx")
    assert asked
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("changed", ["score", "accept", "p_value"])
def test_small_disagreements_are_seen(model, known, changed):
    monitor = fit(model, known, "refit")
    features = known[0].select(slice(200))
    verdict = monitor(features)
    outputs = {"score": verdict.score, "accept": verdict.accept, "p_value": verdict.p_value}
    onnx_check.compare(monitor, features, outputs, change=1e-6)
    wrong = outputs[changed].copy()
    wrong[7] = ~wrong[7] if changed == "accept" else wrong[7] * 1.01 + 0.01
    with pytest.raises(InputError, match="1 of 200 images differ"):
        onnx_check.compare(monitor, features, outputs | {changed: wrong}, change=1e-6)


def test_names_of_the_network_do_not_collide(tmp_path, known):
    """A network with its own `score` and `accept`, of an operator version that is converted."""
    net = onnx.parser.parse_model("""
        <ir_version: 7, opset_import: ["" : 11]>
        net (float[N,3,4,4] x) => (float[N,2] accept)
        { z = GlobalAveragePool(x)  score = Flatten(z)  accept = Gemm<transB=1>(score, w, b) }""")
    net.graph.initializer.extend(
        [
            numpy_helper.from_array(np.array([[1, 0, 2], [0, 1, 1]], np.float32), "w"),
            numpy_helper.from_array(np.zeros(2, np.float32), "b"),
        ]
    )
    onnx.save(net, tmp_path / "net.onnx")
    plain = {"resize": 4, "crop": 4, "mean": (0, 0, 0), "std": (1, 1, 1)}
    about = ModelDescription(classes=("dark", "bright"), preprocessing=plain)
    model = load_model(f"onnx:{tmp_path / 'net.onnx'}", preprocess=about)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3, 4, 4)).astype(np.float32)
    found = model.encode(x)
    features = Features(found["embedding"], found["logits"])
    monitor = RuntimeMonitor.fit_features(
        features, features.predictions, settings=Settings(detector="margin"),
        classes=("dark", "bright"),
    )  # fmt: skip
    export_monitor(monitor, model, tmp_path / "both.onnx", extras=["p_value"])
    outputs = run(tmp_path / "both.onnx", x=x)
    np.testing.assert_allclose(outputs["score"], monitor(features).score, rtol=1e-5)
    np.testing.assert_array_equal(outputs["accept"], monitor(features).accept)


def test_mistakes_are_told(tmp_path, model, known):
    path = tmp_path / "both.onnx"
    with pytest.raises(InputError, match="extras must be of p_value, strengths, got 'p-value'"):
        export_monitor(fit(model, known, "msp"), model, path, extras=["p-value"])
    with pytest.raises(InputError, match="got 'strengths' of one without concepts"):
        export_monitor(fit(model, known, "msp", mapped=False), model, path, extras=["strengths"])
    features, labels, _ = known
    plain = RuntimeMonitor.fit_features(features, labels, settings=Settings(detector="msp"))
    with pytest.raises(InputError, match="model must have the classes of the monitor"):
        export_monitor(plain, model, path)
    inner = Features(features.embeddings, features.logits, None, {"stem": features.embeddings})
    detector = load_detector("mahalanobis", space="stem").fit(inner, labels)
    fitted = fit(model, known, "msp")
    full = RuntimeMonitor(detector, fitted.calibration, fitted.classes)
    with pytest.raises(InputError, match="got 'mahalanobis-stem'; fit the monitor with one of doc"):
        export_monitor(full, model, path)
    assert not path.exists()


def test_a_detector_of_strengths_needs_concepts(model, known):
    fitted = fit(model, known, "refit-strengths")
    bare = RuntimeMonitor(fitted.detector, fitted.calibration, fitted.classes)
    with pytest.raises(InputError, match="reads 'strengths': the monitor has no concepts"):
        verdict_model(bare, model.dimension, 17)


@pytest.fixture
def app():
    import typer

    found = typer.Typer()
    register(found)
    found.command("other")(lambda: None)  # so that `export` is a command of several
    return found


def test_the_command_writes_the_file(tmp_path, model, known, app):
    fit(model, known, "refit").save(tmp_path / "m.safetensors")
    planted.save_onnx(planted.swapped_head(), tmp_path / "net.onnx")
    words = ["export", str(tmp_path / "m.safetensors"), "--model", str(tmp_path / "net.onnx")]
    result = CliRunner().invoke(app, [*words, "--p-value", "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["file"] == str(tmp_path / "m.onnx")
    assert told["outputs"] == ["logits", "score", "accept", "p_value"]
    plain = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "o.onnx")])
    assert "outputs logits, score, accept;" in plain.stderr
    assert (tmp_path / "o.onnx").exists()
    assert CliRunner().invoke(app, [*words, "-q"]).stderr == ""


def test_the_command_tells_mistakes_and_shows_examples(tmp_path, app):
    result = CliRunner().invoke(app, ["export", str(tmp_path / "m"), "--model", "net.onnx"])
    assert result.exit_code == 2
    assert "readable file" in result.stderr
    shown = CliRunner().invoke(app, ["export", "--help"]).stdout
    assert "faultlens monitor export out/monitor.safetensors --model onnx:net.onnx" in shown
