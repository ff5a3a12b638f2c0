import builtins
import collections
import os
import pickle
import pickletools

import numpy as np
import pytest

from faultlens.data.unpickle import load_plain
from faultlens.errors import InputError

PLAIN = {
    "text": ["a", b"b", 3, 2.5, None, True],
    "tuple": ({"x"}, frozenset({1})),
    "floats": np.arange(6.0).reshape(2, 3),
    "columns first": np.asfortranarray(np.arange(6, dtype=np.uint8).reshape(2, 3)),
    "big-endian": np.arange(4, dtype=">i4"),
    "mask": np.array([True, False]),
    "words": np.array(["cat", "dog"]),
    "empty": np.zeros((0, 3), np.float32),
    "number": np.float32(1.5),
    "part": np.arange(12).reshape(3, 4)[:, ::2],
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_comes_back_as_it_was(protocol):
    found = load_plain(pickle.dumps(PLAIN, protocol=protocol), "a.pkl")
    assert list(found) == list(PLAIN)
    for name, want in PLAIN.items():
        np.testing.assert_array_equal(found[name], want)
        assert type(found[name]) is type(want)
        assert getattr(found[name], "dtype", None) == getattr(want, "dtype", None)


def test_python_2(tmp_path):
    # As cPickle of Python 2 wrote CIFAR-10: protocol 2, text as bytes, numpy's old module.
    data = (
        b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\n"
        b"q\x04K\x00\x85U\x01b\x87Rq\x05(K\x01K\x01K\x03\x86cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01"
        b"\x87Rq\x07(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x03\x01\x02\xfetb"
        b"U\x06labelsq\x08]q\tK\x07au."
    )
    found = load_plain(data, "data_batch_1", encoding="bytes")
    assert found[b"labels"] == [7]
    np.testing.assert_array_equal(found[b"data"], np.array([[1, 2, 254]], np.uint8))


def calling(function, *args):
    class Calls:
        def __reduce__(self):
            return function, args

    return Calls()


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (calling(os.system, "echo owned"), "system"),
        (calling(eval, "1"), "builtins.eval"),
        (calling(builtins.getattr, "a", "b"), "builtins.getattr"),
        (calling(np.load, "a.npy"), "numpy.load"),
        (np.fromfile, "numpy.fromfile"),
        (collections.Counter("aa"), "collections.Counter"),
        (np.array([{"a": 1}, None]), "an array of type 'O8'|an array of objects"),
        (np.array([(1, 2.0)], [("a", "i4"), ("b", "f4")]), "an array of type 'V8'"),
        (np.dtype("f4"), "neither"),
        (np.ndarray, "neither"),
        (np.ma.masked_array([1, 2]), "numpy"),
        (np.random.default_rng(0), "numpy.random"),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_anything_else_is_refused(value, named, protocol, capfd):
    data = pickle.dumps([value], protocol=protocol)
    with pytest.raises(InputError, match=named):
        load_plain(data, "a.pkl")
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x05.",
        b"not a pickle",
        pickle.dumps(np.arange(9))[:-12],
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.",  # claims a frame of 2^63 bytes
        b"\x80\x03]q\x00h\x00a.",  # a list that holds itself
        b"cnumpy.core.multiarray\n_reconstruct\n(tR(I1\n(I9\ntcnumpy\ndtype\n(S'u1'\ntRI00\nS''\ntb.",
        b"cnumpy\ndtype\n(tR.",
        b"cnumpy\ndtype\n(S'u1'\ntR(I3\nS'>>'\ntb.",
        b"c_codecs\nencode\n(VX\nVzlib\ntR.",
        b"P12\n.",  # something kept elsewhere
    ],
)
def test_damaged_or_made_up_pickles_are_errors(data):
    with pytest.raises(InputError, match=r"a\.pkl must"):
        load_plain(data, "a.pkl")


def test_every_truncation_and_flip_is_an_error_or_plain():
    data = bytearray(pickletools.optimize(pickle.dumps({"a": np.arange(5)}, protocol=4)))
    rng = np.random.default_rng(0)
    for _ in range(300):
        changed = bytearray(data)
        changed[rng.integers(len(data))] = rng.integers(256)
        try:
            found = load_plain(bytes(changed[: rng.integers(len(data) // 2, len(data) + 1)]), "a")
        except InputError:
            continue
        assert type(found) in (dict, list, tuple, str, bytes, int, float, bool, type(None))
