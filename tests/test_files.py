"""Files are complete or absent, hashed, and byte for byte the same for the same content."""

import os
import stat

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from faultlens.errors import InputError, StoreError
from faultlens.files import (
    load_arrays,
    map_arrays,
    read_json,
    save_arrays,
    sha256_file,
    write_atomic,
    write_json,
)

ARRAYS = {
    "wide": np.arange(6, dtype=np.float64).reshape(2, 3),
    "half": np.array([1.5, -2], np.float16),
    "flags": np.array([[True], [False]]),
    "bytes": np.arange(3, dtype=np.uint8),
    "number": np.array(7, np.int64),
    "none": np.zeros((0, 4), np.float32),
}
METADATA = {"b": "2", "a": "grün", "c": ""}


def test_write_atomic_replaces_a_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "new" / "a.txt"
    write_atomic(path, b"old")
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(path.parent) == ["a.txt"]


def test_write_atomic_follows_the_users_permissions(tmp_path):
    old = os.umask(0o022)
    try:
        write_atomic(tmp_path / "a", b"")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o644


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failed_write_leaves_the_earlier_file_alone(tmp_path, monkeypatch, step):
    path = tmp_path / "a.txt"
    write_atomic(path, b"old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(StoreError, match=r"a\.txt must be writable, got No space left on device"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_an_interrupt_is_passed_on_and_leaves_no_temporary_file(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / "a.txt", b"new")
    assert os.listdir(tmp_path) == []


def test_the_file_and_then_its_folder_reach_the_disk(tmp_path, monkeypatch):
    done = []
    replace, fsync = os.replace, os.fsync

    def noted_fsync(descriptor):
        done.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", lambda *names: (done.append("rename"), replace(*names)))
    write_atomic(tmp_path / "a", b"x")
    assert done == ["file", "rename", "folder"]


@pytest.mark.parametrize("load", [load_arrays, map_arrays])
def test_arrays_come_back_as_they_were_and_read_only(tmp_path, load):
    digest = save_arrays(tmp_path / "a.safetensors", ARRAYS, METADATA)
    arrays, metadata = load(tmp_path / "a.safetensors")
    assert digest == sha256_file(tmp_path / "a.safetensors")
    assert metadata == METADATA
    assert set(arrays) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array, strict=True)
        assert not arrays[name].flags.writeable
        assert arrays[name].flags.aligned


def test_the_safetensors_library_reads_our_files_and_we_read_its(tmp_path):
    save_arrays(tmp_path / "ours.safetensors", ARRAYS, METADATA)
    theirs = safetensors.numpy.load_file(tmp_path / "ours.safetensors")
    safetensors.numpy.save_file(ARRAYS, tmp_path / "theirs.safetensors", METADATA)
    ours, metadata = load_arrays(tmp_path / "theirs.safetensors")
    assert metadata == METADATA
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(theirs[name], array, strict=True)
        np.testing.assert_array_equal(ours[name], array, strict=True)


def test_the_order_of_names_does_not_change_the_bytes(tmp_path):
    first = save_arrays(tmp_path / "a", ARRAYS, METADATA)
    second = save_arrays(
        tmp_path / "b", dict(reversed(ARRAYS.items())), dict(reversed(METADATA.items()))
    )
    assert first == second


@settings(deadline=None, derandomize=True)
@given(
    array=hnp.arrays(
        dtype=st.sampled_from(["<f4", ">f4", "<f2", ">i8", "|u1", "|b1"]),
        shape=hnp.array_shapes(min_dims=0, max_dims=3, min_side=0),
    ),
    is_turned=st.booleans(),
)
def test_any_layout_in_memory_is_saved_by_value(tmp_path_factory, array, is_turned):
    array = array.T if is_turned else array
    path = tmp_path_factory.mktemp("any") / "a.safetensors"
    save_arrays(path, {"x": array})
    np.testing.assert_array_equal(load_arrays(path)[0]["x"], array)


def test_a_type_without_a_place_in_the_format_is_refused(tmp_path):
    with pytest.raises(InputError, match="array 'x' must hold numbers, got complex128"):
        save_arrays(tmp_path / "a", {"x": np.zeros(2, complex)})
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: b"", "must be an undamaged safetensors file"),
        (lambda data: data[:5], "must be an undamaged safetensors file"),
        (lambda data: data[:-1], "must be an undamaged safetensors file"),
        (lambda data: data + b"x", "where its header announces"),
        (lambda data: b"\xff" * 8 + data[8:], "must be an undamaged safetensors file"),
        (lambda data: data.replace(b'"F64"', b'"F63"'), "'F63'"),
        (lambda data: data.replace(b'"F64"', b'"F32"'), "'wide' has 48 bytes"),
        (lambda data: data.replace(b"[8,56]", b"[8,-1]"), "must be an undamaged"),
        (lambda data: data.replace(b"[2,3]", b'"2,3"'), "must be an undamaged"),
        (lambda data: b"\x02" + bytes(7) + b"[]", "must be an undamaged"),
    ],
)
@pytest.mark.parametrize("load", [load_arrays, map_arrays])
def test_a_damaged_safetensors_file_is_named_with_its_cure(tmp_path, load, damage, message):
    path = tmp_path / "a.safetensors"
    save_arrays(path, ARRAYS)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(StoreError, match=message) as caught:
        load(path)
    assert str(caught.value).startswith(str(path))
    assert "delete it and run the same command again" in str(caught.value)


def test_a_changed_value_is_found_by_the_hash(tmp_path):
    path = tmp_path / "a.safetensors"
    digest = save_arrays(path, ARRAYS)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    load_arrays(path)
    with pytest.raises(StoreError, match=f"must have SHA-256 {digest}, got .*; delete it"):
        load_arrays(path, sha256=digest)


@pytest.mark.parametrize("read", [load_arrays, map_arrays, read_json, sha256_file])
def test_an_absent_file_is_named_with_its_cure(tmp_path, read):
    with pytest.raises(StoreError, match=r"gone must be a readable file, .*; run the command"):
        read(tmp_path / "gone")


def test_json_comes_back_and_its_hash_is_checked(tmp_path):
    path = tmp_path / "a.json"
    digest = write_json(path, {"b": [1, 2.5, None], "a": "grün"})
    assert read_json(path, sha256=digest) == {"b": [1, 2.5, None], "a": "grün"}
    assert digest == sha256_file(path)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(StoreError, match=r"a\.json must be an undamaged JSON file, .*; delete it"):
        read_json(path)
    with pytest.raises(StoreError, match=r"a\.json must have SHA-256"):
        read_json(path, sha256=digest)


@pytest.mark.parametrize("value", [float("nan"), np.zeros(2), {1j: 2}])
def test_what_json_cannot_hold_is_refused_before_anything_is_written(tmp_path, value):
    with pytest.raises(InputError, match=r"a\.json must hold JSON values, got"):
        write_json(tmp_path / "a.json", value)
    assert os.listdir(tmp_path) == []
