import json

import numpy as np
import pytest

import planted
from faultlens.concepts import ConceptFile
from faultlens.errors import InputError
from faultlens.features import measure_features
from faultlens.files import save_arrays
from faultlens.session import DebugSession
from faultlens.vlm.labels import PrecomputedBridge

NAMES = {"class_names": json.dumps(planted.CLASSES)}


def arrays(model=None, n=600):
    """Features of the planted classifier, with the VLM's own embedding."""
    model, vlm = model or planted.healthy(), planted.CellVlm()
    source = planted.source(n)
    batch = np.stack([model.prepare(source.load(i)) for i in range(n)])
    noise = np.random.default_rng(1).normal(size=(n, 64)).astype(np.float32)
    return {
        **model.encode(batch),
        "label": source.labels,
        # With eyes of its own: what is linear in the embedding would be no independent oracle.
        "vlm_embedding": vlm.encode(batch)["embedding"] + 0.05 * noise,
    }


@pytest.fixture
def path(tmp_path):
    return tmp_path / "features.safetensors"


def run(path, out, vlm=None, **settings):
    return DebugSession.run(
        vlm=vlm or planted.CellVlm(),
        concepts=ConceptFile.parse(planted.concepts_yaml()),
        out=out,
        features=path,
        **settings,
    )


def test_features_give_what_images_give(path, tmp_path):
    save_arrays(path, arrays(planted.swapped_head()), NAMES)
    planted.swapped_head().head.save(tmp_path / "head.safetensors")
    session = run(path, tmp_path / "out", head=tmp_path / "head.safetensors")
    first = session.findings[0]
    assert first.kind == "localization.head"
    assert set(first.evidence["classes"]) == {"ship", "plane"}
    assert session.images[0]["name"] == "row[0]"
    assert session.exit_code == 1


def test_stored_logits_become_a_label_bridge(path, tmp_path):
    features = arrays(n=800)
    del features["vlm_embedding"]
    rng = np.random.default_rng(0)
    sure = 4.0 * np.eye(5)[features["label"]] + rng.normal(size=(800, 5))
    features["vlm_logits"] = sure.astype(np.float32)
    save_arrays(path, features, NAMES)
    texts = {k: [k, *planted.RELEVANT[k]] for k in planted.CLASSES}
    bridge = PrecomputedBridge(list(planted.CLASSES), planted.CellVlm(), texts)
    session = run(path, tmp_path / "out", vlm=bridge)
    assert session.numbers["accuracy_vlm"] > 0.85
    assert session.status == "clean"
    with pytest.raises(InputError, match="vlm must be a label bridge for stored vlm_logits"):
        run(path, tmp_path / "out2")


def test_class_names_come_from_the_file_or_the_configuration(path, tmp_path):
    save_arrays(path, arrays())
    with pytest.raises(InputError, match="must name its classes, got none; add 'class_names'"):
        run(path, tmp_path / "out")
    assert run(path, tmp_path / "out", classes=planted.CLASSES).classes == planted.CLASSES
    with pytest.raises(InputError, match="classes must be 5 names, one a logit, got 2"):
        run(path, tmp_path / "out2", classes=("a", "b"))


def test_limit_keeps_every_class(path, tmp_path):
    features = arrays()
    order = np.argsort(features["label"], kind="stable")
    save_arrays(path, {k: v[order] for k, v in features.items()}, NAMES)
    session = run(path, tmp_path / "out", limit=100)
    assert session.numbers["n_images"] == 100
    assert {row["label"] for row in session.images} == set(planted.CLASSES)


def test_a_vlm_that_is_a_linear_function_of_the_embedding_is_not_independent(path):
    features = arrays()
    mix = np.random.default_rng(2).normal(size=(12, 64)).astype(np.float32)
    for seen, is_independent in (
        (features["vlm_embedding"], True),
        (features["embedding"] @ mix, False),
    ):
        save_arrays(path, features | {"vlm_embedding": seen}, NAMES)
        measured, _ = measure_features(path, planted.CellVlm())
        assert measured.is_independent == is_independent


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": None}, "got no 'label'"),
        ({"labels": np.zeros(600, int)}, "unknown array 'labels'; did you mean 'label'?"),
        ({"label": np.full(600, 5)}, r"label must lie in \[0, 5\), the classes of the head"),
        ({"label": np.zeros(599, int)}, "one row an image, got 600, 600 and 599"),
        ({"label": np.zeros(600)}, "label must hold integers"),
        ({"vlm_embedding": None}, "must have vlm_embedding or vlm_logits"),
        ({"vlm_embedding": np.zeros((600, 7), np.float32)}, r"must be \(600, 64\) for 'cells'"),
        ({"embedding": np.full((600, 12), np.nan, np.float32)}, "embedding must be finite"),
        ({"label": np.zeros(600, int)}, "at least 2 classes, got 1"),
    ],
)
def test_wrong_arrays_are_refused(path, tmp_path, change, message):
    changed = {k: v for k, v in (arrays() | change).items() if v is not None}
    save_arrays(path, changed, NAMES)
    with pytest.raises(Exception, match=message) as caught:
        run(path, tmp_path / "out")
    assert type(caught.value).__module__ == "faultlens.errors"


def test_a_head_of_another_model_is_refused(path, tmp_path):
    save_arrays(path, arrays(), NAMES)
    planted.swapped_head().head.save(tmp_path / "head.safetensors")
    with pytest.raises(InputError, match="head must give the stored logits, but only"):
        run(path, tmp_path / "out", head=tmp_path / "head.safetensors")
    w = np.zeros((3, 12), np.float32)
    save_arrays(tmp_path / "small.safetensors", {"weight": w, "bias": w[:, 0].copy()})
    with pytest.raises(InputError, match="head must map 12 dimensions to 5 classes, got 12 to 3"):
        run(path, tmp_path / "out", head=tmp_path / "small.safetensors")


def test_a_damaged_file_is_told(path, tmp_path):
    save_arrays(path, arrays(), NAMES)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(Exception, match=r"features\.safetensors") as caught:
        run(path, tmp_path / "out")
    assert type(caught.value).__module__ == "faultlens.errors"
