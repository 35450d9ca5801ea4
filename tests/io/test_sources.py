"""Every source gives the same rows, a range at a time; what is wrong with one is named."""

import itertools
import json
import pickle
import re
import struct

import numpy as np
import pytest
from safetensors.numpy import save_file

from reml_sae.errors import InputError
from reml_sae.io import RowSource, open_rows, read_matrix

Z = np.random.default_rng(0).normal(size=(37, 5)).astype(np.float32)
CUTS = (0, 10, 11, 37)


def shards(data=Z):
    return [data[a:b] for a, b in itertools.pairwise(CUTS)]


def write_bf16(path, data, name="acts"):
    """BF16 by hand: the upper halves of float32."""
    upper = (np.ascontiguousarray(data, np.float32).view(np.uint32) >> 16).astype("<u2")
    header = json.dumps({name: {"dtype": "BF16", "shape": data.shape,
                                "data_offsets": [0, upper.nbytes]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + upper.tobytes())


def rounded(data):
    return (np.ascontiguousarray(data, np.float32).view(np.uint32) & 0xFFFF0000).view(np.float32)


def npy(folder):
    np.save(folder / "z.npy", Z)
    return folder / "z.npy"


def fortran_npy(folder):
    np.save(folder / "z.npy", np.asfortranarray(Z))
    return folder / "z.npy"


def big_endian_npy(folder):
    np.save(folder / "z.npy", Z.astype(">f4"))
    return folder / "z.npy"


def npy_shards(folder):
    for number, part in enumerate(shards()):
        np.save(folder / f"z{9 + number}.npy", part)  # z9, z10, z11
    return folder


def safetensors(folder):
    save_file({"acts": Z, "aaa": Z[::-1].copy()}, folder / "z.safetensors")
    return f"{folder / 'z.safetensors'}::acts"


def safetensors_shards(folder):
    for number, part in enumerate(shards()):
        save_file({"acts": part}, folder / f"z-{9 + number}.safetensors")
    return str(folder / "z-*.safetensors")


def safetensors_index(folder):
    listed = {}
    for number, part in enumerate(shards()):
        save_file({f"rows.{number}": part}, folder / f"z-{number}.safetensors")
        listed[f"rows.{number}"] = f"z-{number}.safetensors"
    save_file({"rows": Z}, folder / "stale.safetensors")
    (folder / "z.safetensors.index.json").write_text(json.dumps({"weight_map": listed}))
    return folder


def zarr_array(folder):
    zarr = pytest.importorskip("zarr")
    zarr.create_array(str(folder / "z.zarr"), data=Z, chunks=(8, 5))
    return folder / "z.zarr"


def zarr_member(folder):
    zarr = pytest.importorskip("zarr")
    group = zarr.open_group(str(folder / "z.zarr"), mode="w")
    group.create_array("acts", data=Z, chunks=(8, 3))
    return f"{folder / 'z.zarr'}::acts"


def arrow_batches(path, batches, stream=True):
    pa = pytest.importorskip("pyarrow")
    opener = pa.ipc.new_stream if stream else pa.ipc.new_file
    with opener(str(path), batches[0].schema) as writer:
        for batch in batches:
            writer.write_batch(batch)


def fixed_lists(data, kind="float32"):
    pa = pytest.importorskip("pyarrow")
    flat = pa.array(np.ascontiguousarray(data).ravel(), getattr(pa, kind)())
    column = pa.FixedSizeListArray.from_arrays(flat, data.shape[1])
    return pa.record_batch({"acts": column, "token": pa.array(range(len(data)), pa.int64())})


def arrow(folder):
    arrow_batches(folder / "z.arrow", [fixed_lists(part) for part in shards()], stream=False)
    return folder / "z.arrow"


def dataset_folder(folder):
    """What datasets.save_to_disk writes, with a cache beside it that is none of its rows."""
    names = [f"data-{number:05d}-of-00003.arrow" for number in range(3)]
    for name, part in zip(names, shards(), strict=True):
        arrow_batches(folder / name, [fixed_lists(part[:4]), fixed_lists(part[4:])])
    arrow_batches(folder / "cache-1.arrow", [fixed_lists(Z)])
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}
                                                                   for name in names]}))
    return folder


def contexts(folder):
    """Lists of lists, as SAELens writes activations: 6 contexts of 6 tokens."""
    pa = pytest.importorskip("pyarrow")
    nested = pa.array(Z[:36].reshape(6, 6, 5).tolist(), pa.list_(pa.list_(pa.float32())))
    tokens = pa.array([[1] * 6] * 6, pa.list_(pa.int32()))
    batch = pa.record_batch({"blocks.0": nested, "token_ids": tokens})
    arrow_batches(folder / "z.arrow", [batch[:2], batch[2:]])
    return folder


ALL = [lambda _: Z, lambda _: np.asfortranarray(Z), npy, fortran_npy, big_endian_npy, npy_shards,
       safetensors, safetensors_shards, safetensors_index, zarr_array, zarr_member, arrow,
       dataset_folder, contexts]
NAMES = ["array", "fortran", *(item.__name__ for item in ALL[2:])]


@pytest.mark.parametrize("write", ALL, ids=NAMES)
def test_the_rows_are_those_that_were_written(write, tmp_path):
    source = open_rows(write(tmp_path))
    assert isinstance(source, RowSource)
    n = source.shape[0]
    assert source.shape == (36 if write is contexts else 37, 5) and source.dtype == np.float32
    for start, stop in ((0, n), (3, 4), (9, 12), (10, 11), (n - 1, n), (4, 4)):
        rows = source.rows(start, stop)
        assert rows.flags.c_contiguous and rows.dtype == source.dtype
        np.testing.assert_array_equal(rows, Z[start:stop])
    np.testing.assert_array_equal(read_matrix(source), Z[:n].astype(float))


@pytest.mark.parametrize("write", ALL, ids=NAMES)
def test_a_chunk_is_sent_as_little_as_it_needs(write, tmp_path):
    chunk = open_rows(write(tmp_path)).chunk(9, 12)
    sent = pickle.dumps(chunk)
    assert len(sent) < 2000
    again = pickle.loads(sent)
    np.testing.assert_array_equal(again.read(), Z[9:12].astype(float))
    assert str(again).startswith("rows 9 to 11 of Z")


def test_of_an_array_its_rows_alone_are_sent():
    assert len(pickle.dumps(open_rows(np.zeros((10_000, 5))).chunk(9, 12))) < 1000


def test_of_shards_those_that_hold_its_rows_are_sent(tmp_path):
    source = open_rows(npy_shards(tmp_path))
    for start, stop, n_parts in ((0, 10, 1), (10, 11, 1), (9, 11, 2), (9, 12, 3), (11, 37, 1)):
        chunk = source.chunk(start, stop)
        assert len(chunk.source.parts) == n_parts
        np.testing.assert_array_equal(chunk.read(), Z[start:stop])


def test_halves(tmp_path):
    write_bf16(tmp_path / "b.safetensors", Z)
    save_file({"acts": Z.astype(np.float16)}, tmp_path / "h.safetensors")
    np.testing.assert_array_equal(open_rows(tmp_path / "b.safetensors").rows(3, 30),
                                  rounded(Z[3:30]))
    np.testing.assert_array_equal(open_rows(tmp_path / "h.safetensors").rows(3, 30),
                                  Z[3:30].astype(np.float16))
    for file in ("b", "h"):
        assert open_rows(tmp_path / f"{file}.safetensors").dtype == np.float32


# --- faults ---------------------------------------------------------------------------------------

def refuse(source, *words):
    with pytest.raises(InputError) as caught:
        read_matrix(source)
    for word in words:
        assert re.search(word, str(caught.value)), str(caught.value)


@pytest.mark.parametrize("write", ALL, ids=NAMES)
def test_a_number_that_is_none(write, tmp_path, monkeypatch):
    poked = Z.copy()
    poked[10, 3] = np.nan
    monkeypatch.setitem(globals(), "Z", poked)
    monkeypatch.setattr(shards, "__defaults__", (poked,))
    # of shards, the file and its row; the second shard has row 10 alone
    alone = write in (npy_shards, safetensors_shards, safetensors_index, dataset_folder)
    source = write(tmp_path)
    refuse(source, rf"\[{0 if alone else 10}, 3\] is NaN", "drop or impute",
           "z-?10|z-1|00001" if alone else "^Z|z.arrow")
    open_rows(source).rows(11, 37 if write is not contexts else 36)


@pytest.mark.parametrize("write", [npy, fortran_npy, safetensors, arrow], ids=lambda f: f.__name__)
def test_a_file_that_was_cut_off(write, tmp_path):
    path = tmp_path / str(write(tmp_path)).rsplit("/")[-1].split("::")[0]
    whole = path.read_bytes()
    for keep in (len(whole) - 40, 70, 8, 3, 0):
        path.write_bytes(whole[:keep])
        refuse(f"{path}::acts" if write is safetensors else path, path.name, "again")


@pytest.mark.parametrize("write", [npy, fortran_npy, safetensors, arrow, zarr_array],
                         ids=lambda f: f.__name__)
def test_a_file_that_changes_after_it_was_opened(write, tmp_path):
    source = open_rows(write(tmp_path))
    if write is zarr_array:
        (tmp_path / "z.zarr" / "c" / "4" / "0").write_bytes(b"\0")
    else:
        path = next(tmp_path.iterdir())
        path.write_bytes(path.read_bytes()[:-90])
    with pytest.raises(InputError, match=r"row|again"):
        source.rows(0, 37)
    if write is not zarr_array:
        path.unlink()
        with pytest.raises(InputError, match=path.name):
            source.rows(0, 37)


@pytest.mark.parametrize("stream", [True, False])
def test_record_batches_that_are_gone(stream, tmp_path):
    path, batches = tmp_path / "z.arrow", [fixed_lists(part) for part in shards()]
    arrow_batches(path, batches, stream)
    source = open_rows(path)
    arrow_batches(path, batches[:2], stream)
    with pytest.raises(InputError, match=r"z\.arrow' ends in row 11 of 37"):
        source.rows(5, 37)
    arrow_batches(path, batches[::-1], stream)
    with pytest.raises(InputError, match="another record batch at row 0"):
        source.rows(5, 37)
    path.write_bytes(path.read_bytes()[:-8])
    refuse(path, "z.arrow", "truncated")


def header_of(path, entry, size=8):
    header = json.dumps({"acts": entry}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(size))
    return path


@pytest.mark.parametrize(("entry", "words"), [
    ({"dtype": "F64", "shape": [10**12, 10**6], "data_offsets": [0, 8 * 10**18]}, "its header"),
    ({"dtype": "F64", "shape": [1, 1], "data_offsets": [0, 4]}, "8 bytes"),
    ({"dtype": "F64", "shape": [-1, -1], "data_offsets": [0, 8]}, "header"),
    ({"dtype": "F64", "shape": [1, 1], "data_offsets": [-8, 0]}, "header"),
    ({"dtype": "F8_E4M3", "shape": [8, 1], "data_offsets": [0, 8]}, "F8_E4M3.*float32"),
    ({"dtype": "F64", "shape": [1], "data_offsets": [0, 8]}, "two-dimensional"),
    ({"dtype": "F64", "shape": [1, 1]}, "not complete"),
    (3, "not complete"),
])
def test_headers_are_checked_before_anything_is_read(entry, words, tmp_path):
    refuse(header_of(tmp_path / "z.safetensors", entry), words)


def test_a_header_longer_than_its_file(tmp_path):
    (tmp_path / "z.safetensors").write_bytes(struct.pack("<Q", 1 << 60) + b"{}")
    refuse(tmp_path / "z.safetensors", "header would have")


def test_npy_headers_that_lie(tmp_path):
    path = npy(tmp_path)
    path.write_bytes(path.read_bytes().replace(b"(37, 5)", b"(99, 9)"))
    refuse(path, "z.npy", "numpy.save")
    np.save(path, np.array([["a"]]))
    refuse(path, "dtype")
    np.save(path, np.array([[None]]), allow_pickle=True)
    refuse(path, "pickled")
    np.savez(tmp_path / "a.npz", Z)
    refuse((tmp_path / "a.npz").rename(tmp_path / "a.npy"), "archive")


def test_shards_that_differ(tmp_path):
    np.save(tmp_path / "a.npy", Z)
    np.save(tmp_path / "b.npy", Z[:, :4])
    refuse(tmp_path, "b.npy has 4 columns", "a.npy has 5", "glob")
    np.save(tmp_path / "b.npy", Z.astype(float))
    refuse(tmp_path, "b.npy holds float64", "one dtype")
    save_file({"acts": Z}, tmp_path / "c.safetensors")
    refuse(tmp_path, ".npy and .safetensors", "glob")


def test_shards_that_are_missing(tmp_path):
    folder = safetensors_index(tmp_path)
    (folder / "z-1.safetensors").unlink()
    refuse(folder, "z-1.safetensors.*no such file")
    refuse(f"{folder}::rows.9", "lists no tensor 'rows.9'")
    (folder / "z.safetensors.index.json").write_text("{")
    refuse(folder, "index.*cannot be read")
    refuse(folder / "nothing-*.npy", "no such file")
    (folder / "empty").mkdir()
    refuse(folder / "empty", "holds no rows")


def test_one_tensor_of_an_index(tmp_path):
    folder = safetensors_index(tmp_path)
    np.testing.assert_array_equal(read_matrix(f"{folder}::rows.2"), Z[11:])


def test_more_chunks_of_zarr_than_can_be_counted(tmp_path):
    path = zarr_array(tmp_path)
    metadata = json.loads((path / "zarr.json").read_text())
    metadata["shape"] = [10**10, 5]
    (path / "zarr.json").write_text(json.dumps(metadata))
    refuse(path, "1250000000 chunks", "larger ones")


def test_chunks_of_zarr_that_are_missing(tmp_path):
    path = zarr_array(tmp_path)
    (path / "c" / "2" / "0").unlink()
    refuse(path, "1 of its 5 chunks", "z.zarr")
    refuse(zarr_member(tmp_path).replace("acts", "no"), "z.zarr::no", "group")
    zarr_member(tmp_path)
    refuse(tmp_path / "z.zarr", "NAME")


def test_columns_of_arrow_that_cannot_be_used(tmp_path):
    pa = pytest.importorskip("pyarrow")
    path = tmp_path / "z.arrow"

    def write(**columns):
        arrow_batches(path, [pa.record_batch(columns)])

    ragged = pa.array([[1.0, 2.0], [3.0]])
    write(acts=ragged)
    refuse(path, "list 1 of 'acts'", "one length")
    write(acts=pa.array([[1.0, 2.0], None]))
    refuse(path, "null")
    write(acts=pa.array([[1.0, None], [3.0, 4.0]]))
    refuse(path, "null")
    write(acts=pa.array([1.0, 2.0]))
    refuse(path, "0 columns of lists")
    refuse(f"{path}::acts", "one number a row")
    write(a=pa.array([[1.0]]), b=pa.array([[1.0]]))
    refuse(path, "2 columns of lists", "COLUMN")
    refuse(f"{path}::c", "no column 'c'")
    write(a=pa.array([["x"]]))
    refuse(f"{path}::a", "real numbers")
    write(a=pa.array([[[[1.0]]]]))
    refuse(f"{path}::a", "3 levels")
