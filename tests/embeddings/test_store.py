"""A store keeps what was finished, finds what is damaged, and gives back what was written."""

import json
import os
import signal
import subprocess
import sys
import tempfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faultlens.embeddings.store import EmbeddingStore
from faultlens.errors import InputError, StoreError

HOLD = """
import sys, time
from faultlens.embeddings.store import EmbeddingStore
store = EmbeddingStore.create_or_open(sys.argv[1], "key", 10, COLUMNS, shard_rows=4)
print("held", flush=True)
time.sleep(600)
""".replace("COLUMNS", "{'embedding': (3, 'float32'), 'logits': (2, 'float32')}")


def shard_path(store, shard):
    return store.folder / f"shard-{shard:05d}.safetensors"


def flip_bit(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_a_new_store_misses_every_shard_and_names_its_rows(open_store):
    store = open_store(10)
    assert store.missing() == {0: range(0, 4), 1: range(4, 8), 2: range(8, 10)}


def test_a_filled_store_gives_its_columns_back(open_store, fill, embedding_of):
    store = open_store(10)
    fill(store)
    again = EmbeddingStore.open(store.folder)
    for each in (store, again):
        assert each.missing() == {}
        np.testing.assert_array_equal(each.column("embedding"), embedding_of(10), strict=True)
        np.testing.assert_array_equal(each.column("logits"), embedding_of(10)[:, :2], strict=True)
        assert not each.column("embedding").flags.writeable


def test_a_column_of_one_shard_is_mapped_and_not_copied(open_store, fill):
    store = open_store(3)
    fill(store)
    block = next(store.blocks("embedding"))[1]
    for array in (block, store.column("embedding")):
        assert not array.flags.owndata
        assert not array.flags.writeable


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    n=st.integers(1, 30),
    shard_rows=st.integers(1, 12),
    data=st.data(),
    dtype=st.sampled_from(["float32", "float16", "int64"]),
)
def test_the_order_of_writes_and_reopening_between_them_never_matter(n, shard_rows, data, dtype):
    values = np.random.default_rng(n).normal(size=(n, 2), scale=9).astype(dtype)
    with tempfile.TemporaryDirectory() as folder:
        arguments = (folder, "key", n, {"x": (2, dtype)}, shard_rows)
        store = EmbeddingStore.create_or_open(*arguments)
        order = data.draw(st.permutations(list(store.missing())))
        reopen_before = data.draw(st.integers(0, len(order)))
        for i, shard in enumerate(order):
            if i == reopen_before:
                store.close()
                store = EmbeddingStore.create_or_open(*arguments)
                assert sorted(store.missing()) == sorted(order[i:])
            rows = store.layout.rows(shard)
            store.write(shard, {"x": values[rows.start : rows.stop]})
        column = store.column("x")
        blocks = list(store.blocks("x"))
        indices = data.draw(st.lists(st.integers(0, n - 1)))
        np.testing.assert_array_equal(column, values, strict=True)
        np.testing.assert_array_equal(np.concatenate([b for _, b in blocks]), column, strict=True)
        assert [start for start, _ in blocks] == list(range(0, n, shard_rows))
        np.testing.assert_array_equal(store.rows("x", indices), values[indices], strict=True)


def test_the_same_values_make_the_same_files(open_store, fill, tmp_path):
    first, second = open_store(10), open_store(10, folder=tmp_path / "second")
    fill(first)
    fill(second, [2, 0, 1])
    for name in sorted(os.listdir(first.folder)):
        assert (first.folder / name).read_bytes() == (second.folder / name).read_bytes()
    assert sorted(os.listdir(first.folder))[0] == "manifest.json"
    assert len(os.listdir(first.folder)) == 4


def test_unless_told_a_small_store_has_several_shards_and_a_large_one_shards_of_megabytes(
    open_store, tmp_path
):
    columns = {"embedding": (1280, "float32"), "logits": (1000, "float32")}
    small = open_store(1000, shard_rows=None, columns=columns)
    large = open_store(10**6, shard_rows=None, columns=columns, folder=tmp_path / "large")
    assert small.layout.n_shards == 16
    assert 8e6 < large.layout.shard_rows * 2280 * 4 < 64e6
    assert large.layout.shard_rows % 32 == 0


def test_a_store_that_is_there_keeps_its_own_shards(open_store, fill, embedding_of):
    store = open_store(10, shard_rows=4)
    fill(store, [1])
    store.close()
    store = open_store(10, shard_rows=7)
    assert store.layout.shard_rows == 4
    fill(store)
    np.testing.assert_array_equal(store.column("embedding"), embedding_of(10))


def test_values_are_kept_in_the_type_of_their_column(open_store):
    store = open_store(1, columns={"half": (2, np.float16), "count": (1, "int64")})
    store.write(0, {"half": np.array([[0.1, 2.0]]), "count": np.array([[3]], np.uint8)})
    assert store.column("half").tolist() == [[float(np.float16(0.1)), 2.0]]
    assert store.column("half").dtype == np.float16
    assert store.column("count").dtype == np.int64


def test_notes_are_kept_across_shards_and_runs(open_store, fill):
    store = open_store(10)
    fill(store, [2], {9: "no picture"})
    fill(store, [0], {1: "grün", 0: "empty"})
    store.close()
    store = open_store(10)
    fill(store)
    assert EmbeddingStore.open(store.folder).failures == store.failures
    assert list(store.failures.items()) == [(0, "empty"), (1, "grün"), (9, "no picture")]


@pytest.mark.parametrize("at", [0, 12, 60, 300, -1])
def test_a_flipped_bit_is_found_and_only_that_shard_is_missing(open_store, fill, at):
    store = open_store(10)
    fill(store, notes={})
    good = [shard_path(store, n).read_bytes() for n in range(3)]
    assert store.verify() == []
    flip_bit(shard_path(store, 1), at)
    assert store.verify() == [1]
    with pytest.raises(StoreError, match=r"1 of 3 shards .*first: shard-00001.*run the same"):
        EmbeddingStore.open(store.folder)
    store = open_store(10)
    assert store.missing() == {1: range(4, 8)}
    fill(store)
    assert [shard_path(store, n).read_bytes() for n in range(3)] == good


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: os.truncate(path, path.stat().st_size - 1),
        lambda path: os.truncate(path, 0),
        lambda path: path.unlink(),
        lambda path: path.write_bytes(path.with_name("shard-00002.safetensors").read_bytes()),
    ],
    ids=["cut short", "emptied", "deleted", "another shard in its place"],
)
@pytest.mark.parametrize("has_manifest", [True, False])
def test_any_damage_costs_that_shard_alone(open_store, fill, damage, has_manifest, embedding_of):
    store = open_store(12)
    fill(store)
    damage(shard_path(store, 1))
    if not has_manifest:
        (store.folder / "manifest.json").unlink()
    assert store.verify() == [1]
    store = open_store(12)
    assert store.missing() == {1: range(4, 8)}
    fill(store)
    np.testing.assert_array_equal(store.column("embedding"), embedding_of(12))


def test_every_bit_of_a_small_shard_is_guarded(open_store, fill):
    store = open_store(1)
    fill(store)
    path = shard_path(store, 0)
    data = path.read_bytes()
    header = 8 + int.from_bytes(data[:8], "little")
    padding = range(len(data[:header].rstrip()), header)
    unseen = []
    for at in range(len(data)):
        flip_bit(path, at)
        if not store.verify():
            unseen.append(at)
        path.write_bytes(data)
    assert set(unseen) <= set(padding)


def test_a_shard_swapped_for_another_run_of_the_same_store_is_found(open_store, fill, tmp_path):
    store, other = open_store(10), open_store(10, folder=tmp_path / "other")
    fill(store)
    rows = other.layout.rows(1)
    zeros = {"embedding": np.zeros((len(rows), 3)), "logits": np.zeros((len(rows), 2))}
    other.write(1, zeros)
    shard_path(store, 1).write_bytes(shard_path(other, 1).read_bytes())
    assert store.verify() == [1]
    assert list(open_store(10).missing()) == [1]


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-20]),
        lambda path: path.write_text("[]"),
        lambda path: path.write_text(path.read_text().replace('"key"', '"kex"')),
        lambda path: path.write_text(path.read_text().replace('"n_rows": 10', '"n_rows": 11')),
    ],
    ids=["absent", "empty", "cut short", "a list", "another word", "another number"],
)
def test_a_damaged_manifest_is_made_again_from_the_shards(open_store, fill, damage):
    store = open_store(10)
    fill(store)
    path = store.folder / "manifest.json"
    good = path.read_bytes()
    damage(path)
    assert EmbeddingStore.open(store.folder).missing() == {}
    assert open_store(10).missing() == {}
    assert path.read_bytes() == good


def test_a_shard_finished_before_a_crash_is_adopted(open_store, fill):
    store = open_store(10)
    fill(store, [0])
    manifest = (store.folder / "manifest.json").read_bytes()
    fill(store, [2])
    (store.folder / "manifest.json").write_bytes(manifest)
    (store.folder / ".shard-00001.safetensors.0a1b2c3d.tmp").write_bytes(b"half")
    store.close()
    store = open_store(10)
    assert list(store.missing()) == [1]
    listed = json.loads((store.folder / "manifest.json").read_text())["shards"]
    assert {n: entry["rows"] for n, entry in listed.items()} == {"0": 4, "2": 2}
    assert list(store.folder.glob(".*")) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"key": "other"}, r"with key other, got key; delete the folder or choose another"),
        ({"n": 11}, r"with n_rows 11, got 10"),
        ({"columns": {"embedding": (3, "float32")}}, r"with columns \{'embedding'"),
        ({"columns": {"embedding": (3, "float16"), "logits": (2, "float32")}}, "float16"),
    ],
)
@pytest.mark.parametrize("has_manifest", [True, False])
def test_another_store_in_the_folder_is_refused(open_store, fill, change, message, has_manifest):
    store = open_store(10)
    fill(store)
    if not has_manifest:
        (store.folder / "manifest.json").unlink()
    with pytest.raises(StoreError, match=message):
        open_store(**({"n": 10} | change))
    assert EmbeddingStore.open(store.folder).missing() == {}


def test_an_unfinished_store_is_not_read(open_store, fill):
    store = open_store(10)
    fill(store, [0, 2])
    message = r"must be complete, got 1 of 3 shards missing .*shard-00001.*run the same command"
    for read in (store.column, store.blocks, lambda name: store.rows(name, [0])):
        with pytest.raises(StoreError, match=message):
            read("embedding")
    with pytest.raises(StoreError, match=message):
        EmbeddingStore.open(store.folder)


def test_wrong_requests_are_answered_with_the_way_out(open_store, fill):
    store = open_store(10)
    fill(store)
    with pytest.raises(InputError, match="'embeding'; did you mean 'embedding'"):
        store.column("embeding")
    for indices in ([-1], [0, 10]):
        with pytest.raises(InputError, match=r"indices must lie in 0 … 9, got (-1|10)"):
            store.rows("embedding", indices)
    with pytest.raises(InputError, match="indices must be integers, got bool"):
        store.rows("embedding", np.ones(10, bool))
    with pytest.raises(StoreError, match="must hold an embedding store, got none"):
        EmbeddingStore.open(store.folder / "elsewhere")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": 0}, "n_rows must be at least 1, got 0"),
        ({"n": 1, "shard_rows": 0}, "shard_rows must be at least 1, got 0"),
        ({"n": 1, "columns": {}}, "columns must name at least one"),
        ({"n": 1, "columns": {"x": (0, "float32")}}, "length of 'x' must be at least 1, got 0"),
        ({"n": 1, "columns": {"x": (1, "flat32")}}, r"columns must be name: \(length, data type"),
    ],
)
def test_a_store_that_cannot_be_is_refused(open_store, change, message):
    with pytest.raises(InputError, match=message):
        open_store(**change)


def test_what_does_not_fit_is_not_written(open_store, fill, embedding_of):
    store = open_store(10)
    good = {"embedding": embedding_of(4), "logits": embedding_of(4)[:, :2]}
    for arrays, message in (
        ({"embedding": embedding_of(4)}, r"arrays must be \['embedding', 'logits'\]"),
        (good | {"logits": embedding_of(4)}, r"'logits' must be float32 of shape \(4, 2\), got"),
        (good | {"logits": np.zeros((4, 2), complex)}, "got complex128"),
    ):
        with pytest.raises(InputError, match=message):
            store.write(0, arrays)
    with pytest.raises(InputError, match=r"notes must be about the shard's rows, .*, got row 4"):
        store.write(0, good, {4: "elsewhere"})
    assert list(store.missing()) == [0, 1, 2]
    store.write(0, good)
    for shard in (0, 3):
        with pytest.raises(StoreError, match=f"must be one that is missing, got {shard}"):
            store.write(shard, good)
    fill(store)
    with pytest.raises(StoreError, match="must be one that is missing"):
        store.write(0, good)


def test_one_writer_at_a_time(open_store, fill):
    store = open_store(10)
    with pytest.raises(StoreError, match=f"one that process {os.getpid()} is writing; wait"):
        open_store(10)
    fill(store)
    assert open_store(10).missing() == {}
    assert open_store(10).missing() == {}
    assert not (store.folder / "lock").exists()


def test_closing_lets_the_next_writer_in(open_store, fill):
    with open_store(10) as store:
        fill(store, [0])
    assert list(open_store(10).missing()) == [1, 2]


def test_a_failed_opening_does_not_keep_the_lock(open_store):
    open_store(10).close()
    with pytest.raises(StoreError, match="key other"):
        open_store(10, key="other")
    assert len(open_store(10).missing()) == 3


def test_the_lock_of_another_process_holds_until_it_is_killed(open_store, tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path / "store")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(StoreError, match=f"one that process {process.pid} is writing"):
            open_store(10)
        process.send_signal(signal.SIGKILL)
    assert (tmp_path / "store" / "lock").read_text() == str(process.pid)
    assert len(open_store(10).missing()) == 3


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="must be writable"):
        EmbeddingStore.create_or_open(tmp_path / "file" / "store", "k", 1, {"x": (1, "float32")})
