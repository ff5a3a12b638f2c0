import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from faultlens.data.duplicates import (
    SIGNATURE_LENGTH,
    duplicate_groups,
    folds,
    signature,
)
from faultlens.data.images import ImageSource
from faultlens.errors import InputError, ShapeError

PHOTOS = Path(__file__).parents[3] / "shared" / "photos"


def same(a, b):
    groups = duplicate_groups(["a", "b"], np.stack([signature(a), signature(b)]))
    return bool(groups[0] == groups[1])


def slow_groups(digests, codes):
    """The obvious twin: compare all pairs, then spread the smallest index until nothing moves."""
    n = len(digests)
    bits = np.unpackbits(codes[:, :8], axis=1).astype(int)
    colours = codes[:, 8:].astype(int)
    group = list(range(n))
    for _ in range(n):
        for i in range(n):
            for j in range(n):
                near = (bits[i] != bits[j]).sum() <= 3 and np.abs(
                    colours[i] - colours[j]
                ).max() < 10
                if near or digests[i] == digests[j]:
                    group[i] = group[j] = min(group[i], group[j])
    return [sorted(set(group)).index(g) for g in group]


def jpeg(image, quality):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def flat(level):
    return Image.new("RGB", (64, 48), (level,) * 3)


def test_signature_is_small_and_stable(textured):
    code = signature(textured(0))
    assert (code.shape, code.dtype) == ((SIGNATURE_LENGTH,), np.uint8)
    assert np.array_equal(code, signature(textured(0)))


def test_signature_holds_steps_and_colours():
    image = Image.new("RGB", (90, 80), (200, 100, 0))
    ramp = np.broadcast_to(np.linspace(0, 250, 90), (80, 90)).astype(np.uint8)
    image.paste(Image.merge("RGB", [Image.fromarray(ramp)] * 3))
    code = signature(image)
    assert code[:8].tolist() == [255] * 8
    colours = code[8:].reshape(4, 4, 3)
    assert (np.diff(colours[:, :, 0].astype(int), axis=1) > 40).all()
    assert signature(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT))[:8].tolist() == [0] * 8


@pytest.mark.parametrize("seed", range(5))
def test_compressed_scaled_and_brightened_copies_join(textured, seed):
    image = textured(seed)
    assert same(image, jpeg(image, 40))
    assert same(image, image.resize((48, 40), Image.Resampling.BICUBIC))
    assert same(image, image.resize((224, 224), Image.Resampling.BILINEAR))
    assert same(image, image.point(lambda v: min(255, v + 4)))


@pytest.mark.parametrize("seed", range(5))
def test_other_and_recoloured_pictures_do_not_join(textured, seed):
    image = textured(seed)
    assert not same(image, textured(seed + 100))
    assert not same(image, image.point(lambda v: v * 3 // 4))


def test_flat_pictures_join_only_their_equals():
    rng = np.random.default_rng(0)
    noisy = [
        Image.fromarray(rng.integers(126, 130, (48, 64, 3), dtype=np.uint8)) for _ in range(20)
    ]
    images = [*noisy, flat(128), flat(128), flat(129)]
    codes = np.stack([signature(i) for i in images])
    groups = duplicate_groups([str(i) for i in range(len(images))], codes)
    assert groups.tolist() == [*range(20), 20, 20, 21]


def test_equal_files_join_whatever_their_signatures():
    codes = np.random.default_rng(0).integers(0, 256, (4, 56), dtype=np.uint8)
    assert duplicate_groups(["x", "y", "x", "z"], codes).tolist() == [0, 1, 0, 2]


def test_groups_are_closed_under_both_kinds():
    codes = np.random.default_rng(0).integers(0, 256, (4, 56), dtype=np.uint8)
    codes[2] = codes[1]
    assert duplicate_groups(["x", "x", "y", "y"], codes).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(("n_bits", "expected"), [(3, [0, 0]), (4, [0, 1])])
def test_three_bits_wherever_they_are(n_bits, expected):
    rng = np.random.default_rng(0)
    for _ in range(100):
        bits = rng.integers(0, 2, 64, dtype=np.uint8)
        other = bits.copy()
        other[rng.choice(64, n_bits, replace=False)] ^= 1
        codes = np.zeros((2, 56), np.uint8)
        codes[:, :8] = np.packbits([bits, other], axis=1)
        assert duplicate_groups(["a", "b"], codes).tolist() == expected


@pytest.mark.parametrize(("difference", "expected"), [(9, [0, 0]), (10, [0, 1])])
def test_every_colour_counts(difference, expected):
    for place in range(8, 56):
        codes = np.full((2, 56), 250, np.uint8)
        codes[1, place] -= difference
        assert duplicate_groups(["a", "b"], codes).tolist() == expected


@given(seed=st.integers(0, 10_000), n=st.integers(1, 25))
@settings(max_examples=60, deadline=None)
def test_groups_agree_with_comparing_all_pairs(seed, n):
    rng = np.random.default_rng(seed)
    centres = rng.integers(0, 200, (3, 56), dtype=np.uint8)
    codes = centres[rng.integers(0, 3, n)]
    flips = np.packbits(rng.random((n, 64)) < rng.choice([0.01, 0.03, 0.06]), axis=1)
    codes[:, :8] ^= flips
    codes[:, 8:] += rng.integers(0, 12, (n, 48), dtype=np.uint8)
    digests = [str(i) for i in rng.integers(0, 3 * n, n)]
    assert duplicate_groups(digests, codes).tolist() == slow_groups(digests, codes)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_groups_do_not_depend_on_order(seed):
    rng = np.random.default_rng(seed)
    codes = np.repeat(rng.integers(0, 256, (10, 56), dtype=np.uint8), 3, axis=0)
    codes[:, 7] ^= rng.integers(0, 4, 30, dtype=np.uint8)
    digests = [str(i) for i in range(30)]
    order = rng.permutation(30)
    before = duplicate_groups(digests, codes)
    after = duplicate_groups([digests[i] for i in order], codes[order])
    assert np.array_equal(before[order][:, None] == before[order], after[:, None] == after)


def test_a_crowd_in_one_band_is_finished():
    rng = np.random.default_rng(0)
    crowd = np.zeros((20_000, 56), np.uint8)
    crowd[:, 8:] = rng.integers(0, 9, (20_000, 48))
    apart = crowd.copy()
    apart[:, 8:] = rng.integers(0, 256, (20_000, 48))
    digests = [str(i) for i in range(20_000)]
    assert duplicate_groups(digests, crowd).max() == 0
    assert duplicate_groups(digests, apart).max() == 19_999


@pytest.mark.parametrize(
    "signatures",
    [np.zeros((2, 55), np.uint8), np.zeros((2, 56), np.int64), np.zeros((3, 56), np.uint8)],
)
def test_bad_signatures(signatures):
    with pytest.raises(ShapeError, match=r"must be uint8 of shape \(2, 56\)"):
        duplicate_groups(["a", "b"], signatures)


digest_lists = st.lists(st.binary(min_size=32, max_size=32).map(bytes.hex), min_size=1, max_size=40)


@given(digest_lists, st.data())
def test_a_group_stays_in_one_fold_and_order_does_not_matter(digests, data):
    n = len(digests)
    groups = np.array(data.draw(st.lists(st.integers(0, 9), min_size=n, max_size=n)))
    fold = folds(digests, groups, n_folds=3)
    assert set(fold) <= {0, 1, 2}
    for g in set(groups):
        assert len(set(fold[groups == g])) == 1
    order = np.array(data.draw(st.permutations(range(n))))
    renamed = (groups * 7 + 3)[order]
    assert np.array_equal(folds([digests[i] for i in order], renamed, n_folds=3), fold[order])


@given(digest_lists, st.data())
def test_other_images_do_not_move_a_group(digests, data):
    digests = sorted(set(digests))
    groups = np.arange(len(digests)) // 2
    kept = data.draw(st.integers(0, int(groups.max())))
    alone = folds(
        [d for d, g in zip(digests, groups, strict=True) if g == kept], groups[groups == kept]
    )
    assert np.array_equal(folds(digests, groups)[groups == kept], alone)


def test_folds_are_about_equal_even_with_large_groups():
    rng = np.random.default_rng(0)
    digests = [rng.bytes(32).hex() for _ in range(20_000)]
    fold = folds(digests, np.arange(20_000) // 10)
    sizes = np.bincount(fold, minlength=5)
    assert (np.abs(sizes - 4000) < 4 * np.sqrt(2000 * 0.2 * 0.8) * 10).all()


def test_bad_folds():
    with pytest.raises(InputError, match="n_folds must be at least 2, got 1"):
        folds(["a"], [0], n_folds=1)
    with pytest.raises(ShapeError, match=r"as many as digests \(1\), got 2"):
        folds(["a"], [0, 0])


@pytest.mark.shared
def test_near_duplicates_among_the_photographs():
    if not PHOTOS.is_dir():
        pytest.skip("the shared photographs are not beside the checkout")
    source = ImageSource.from_folder(PHOTOS)
    codes = np.stack([signature(source.load(i)) for i in range(len(source))])
    groups = duplicate_groups(source.scan().digests, codes)
    sizes = np.bincount(groups)
    found = [
        {source.names[i] for i in np.flatnonzero(groups == g)} for g in np.flatnonzero(sizes > 1)
    ]
    assert found == [
        {"test/hoofed/llama_0001.jpg", "test/hoofed/llama_0010.jpg"},
        {"train/bird/pigeon_0002.jpg", "train/bird/pigeon_0006.jpg"},
    ]
