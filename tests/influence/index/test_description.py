import dataclasses
import json
import os

import numpy as np
import pytest
import tensorstore

from jaxunlearn.gradients.projections.kronecker_pairs import matrices_hash
from jaxunlearn.gradients.projections.projection import Block, Projection
from jaxunlearn.influence.index.build import build_index
from jaxunlearn.influence.index.description import open_index, read_matrices
from jaxunlearn.influence.index.reading import read_rows, stored_chunks, stored_ids
from jaxunlearn.sealed import UncheckedWarning

LAYOUT = (Block("a", 0, 8), Block("b", 8, 8), Block("c", 16, 3))
WIDTH = 19
ROWS = np.random.default_rng(0).standard_normal((40, WIDTH)).astype(np.float32)


def build(directory, rows=ROWS, **options):
    return build_index(
        directory,
        lambda batch: batch["rows"],
        [{"index": np.arange(len(rows)), "rows": rows}],
        **{
            "model_hash": "model",
            "data_hash": "data",
            "projection": Projection(seed=3),
            "layout": LAYOUT,
            "chunk_rows": 8,
            **options,
        },
    )


def contents(directory):
    return {
        str(file.relative_to(directory)): file.read_bytes()
        for file in directory.rglob("*")
        if file.is_file()
    }


def test_another_model_projection_or_layout_is_refused(tmp_path):
    build(tmp_path)
    with pytest.raises(ValueError, match="model_hash is 'model', not 'other': query w"):
        open_index(tmp_path, model_hash="other")
    with pytest.raises(ValueError, match=r"projection is .*seed=3.*, not .*seed=4"):
        open_index(tmp_path, model_hash="model", projection=Projection(seed=4))
    with pytest.raises(ValueError, match=r"layout is 3 layers \(a\[8\], .*, not 1 lay"):
        open_index(tmp_path, model_hash="model", layout=[Block("z", 0, 19)])
    for option in (
        {"model_hash": "other"},
        {"projection": Projection(seed=4)},
        {"layout": (Block("z", 0, 19),)},
        {"dtype": "float32"},
        {"chunk_rows": 4},
    ):
        (name,) = option
        before = contents(tmp_path)
        with pytest.raises(ValueError, match=f"{name} is .*or build in another direct"):
            build(tmp_path, **option)
        assert contents(tmp_path) == before
    with pytest.raises(ValueError, match="resume=False, but .* holds an index"):
        build(tmp_path, resume=False)


def test_matrices_are_kept_and_checked(tmp_path):
    matrices = {"a": (np.eye(4, 2, dtype=np.float32), np.eye(4, dtype=np.float32))}
    projection = Projection(
        dimensions=(2, 4), distribution="pca", matrices_hash=matrices_hash(matrices)
    )
    with pytest.raises(ValueError, match="matrices have the hash None"):
        build(tmp_path, projection=projection)
    index = build(tmp_path, projection=projection, matrices=matrices)
    assert open_index(tmp_path, model_hash="model") == index
    assert matrices_hash(read_matrices(index)) == projection.matrices_hash
    other = dataclasses.replace(projection, matrices_hash="0")
    with pytest.raises(ValueError, match=r"projection.npz does not hold the matrices"):
        read_matrices(dataclasses.replace(index, projection=other))


def test_a_damaged_index_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"index.json does not exist: build"):
        open_index(tmp_path / "nowhere", model_hash=None)
    index = build(tmp_path)
    path = tmp_path / "index.json"
    text = path.read_text()

    def refused(message):
        with pytest.raises(ValueError, match=message):
            open_index(tmp_path, model_hash="model")

    for cut in (0, 1, len(text) // 2, len(text) - 3):
        path.write_text(text[:cut])
        refused(r"index.json is damaged .*build the index again")
    for change, message in (
        ({"format_version": 9}, "format_version 9, this version of jaxunlearn reads 1"),
        ({"rows": None}, "index.json is damaged .*rows is null, not a whole number"),
        ({"rows": 39}, "index.json is damaged .*it was edited"),
        ({"rows": 10**15}, "index.json is damaged .*hashes are not those"),
        ({"chunk_rows": 0}, "index.json is damaged .*chunk_rows=0"),
        ({"layout": [["a", 0, 8], ["b", 9, 8]]}, "does not begin at 8"),
        ({"layout": [["a", 0]]}, r"layout\[0\] is .*, not a list of 3"),
        ({"about": {"layers": "(/?.*)*X"}}, "index.json is damaged .*it was edited"),
        ({"dtype": "int4"}, "dtype='int4': one of"),
        ({"row": 3}, r"row is no field \(meant: rows"),
    ):
        path.write_text(json.dumps(json.loads(text) | change))
        refused(message)
    held = json.loads(text)
    del held["rows"]
    path.write_text(json.dumps(held))
    refused("index.json is damaged .*the field rows is missing")
    path.write_text(text)
    chunk = tmp_path / "rows" / "c" / "2" / "0"
    whole = chunk.read_bytes()
    chunk.write_bytes(whole[:-1])
    refused(r"rows/c/2/0 has 151 bytes, expected 152: rows 16 to 23 are lost")
    os.remove(chunk)
    refused(r"rows/c/2/0 is missing, .* rows 16 to 23")
    with pytest.raises(ValueError, match=r"rows/c/2/0 is missing"):
        build(tmp_path)
    chunk.write_bytes(whole)
    assert open_index(tmp_path, model_hash="model") == index


def use(directory):
    """All that a query reads of an index, as bytes."""
    index = open_index(directory, model_hash="model")
    (chunk,) = stored_chunks(index, 100)
    matrices = read_matrices(index) or {}
    parts = [*chunk[2:], stored_ids(index), read_rows(index, range(index.rows))]
    parts += [side for name in sorted(matrices) for side in matrices[name]]
    return [np.asarray(part).tobytes() for part in parts]


@pytest.mark.parametrize("dtype", ["int8", "bfloat16", "float32"])
def test_every_flipped_bit_is_found_and_named_or_changes_nothing(tmp_path, dtype):
    matrices = {"a": (np.eye(4, 2, dtype=np.float32), np.eye(4, dtype=np.float32))}
    projection = Projection(
        dimensions=(2, 4), distribution="pca", matrices_hash=matrices_hash(matrices)
    )
    build(tmp_path, projection=projection, matrices=matrices, dtype=dtype)
    whole, rng, found = use(tmp_path), np.random.default_rng(0), 0
    for name, data in contents(tmp_path).items():
        for bit in rng.choice(8 * len(data), 12):
            flipped = bytearray(data)
            flipped[bit // 8] ^= 1 << int(bit) % 8
            (tmp_path / name).write_bytes(flipped)
            try:
                assert use(tmp_path) == whole, (name, bit)
            except ValueError as error:
                found += str(tmp_path / name) in str(error)
                continue
            assert "zarr.json" in name or name == "projection.npz", (name, bit)
            found += 1
        (tmp_path / name).write_bytes(data)
    assert found == 12 * len(contents(tmp_path))


def test_a_damaged_chunk_is_not_blessed_by_rows_that_are_added(tmp_path):
    build(tmp_path, ROWS[:20])
    chunk = tmp_path / "rows" / "c" / "2" / "0"
    data = bytearray(chunk.read_bytes())
    data[5] ^= 1
    chunk.write_bytes(data)
    more = [{"index": np.arange(20, 40), "rows": ROWS[20:]}]
    with pytest.raises(ValueError, match="rows/c/2/0 is damaged"):
        build_index(
            tmp_path,
            lambda batch: batch["rows"],
            more,
            model_hash="model",
            data_hash="more",
            projection=Projection(seed=3),
            layout=LAYOUT,
            chunk_rows=8,
            append=True,
        )


def test_an_index_without_hashes_is_read_and_continued_with_a_warning(tmp_path):
    index = build(tmp_path)
    path = tmp_path / "index.json"
    held = json.loads(path.read_text())
    del held["hashes"], held["sha256"]
    path.write_text(json.dumps(held | {"format_version": 1}))
    with pytest.warns(UncheckedWarning, match="index.json was written without hashes"):
        old = open_index(tmp_path, model_hash="model")
    assert old == dataclasses.replace(index, hashes={})
    assert np.array_equal(read_rows(old, range(40)), read_rows(index, range(40)))
    with pytest.warns(UncheckedWarning):
        again = build(tmp_path, np.concatenate([ROWS, ROWS[:3]]))
    assert again.hashes["rows"][:5] == index.hashes["rows"]
    assert open_index(tmp_path, model_hash="model") == again


def test_other_programs_read_the_arrays(tmp_path):
    index = build(tmp_path, dtype="bfloat16")
    for name in index.arrays:
        path = f"{tmp_path / name}/"
        array = tensorstore.open(
            {"driver": "zarr3", "kvstore": {"driver": "file", "path": path}}
        ).result()
        (chunk,) = stored_chunks(index, 100)
        assert array[:].read().result().tobytes() == getattr(chunk, name).tobytes()


@pytest.mark.parametrize("name", ["a[x]", "a\\b", "50%20", "a*?", "~", "-v", "Ñ ü"])
def test_a_folder_may_have_any_name(tmp_path, name):
    build(tmp_path / name)
    build(tmp_path / "plain")
    assert contents(tmp_path / name) == contents(tmp_path / "plain")
    assert use(tmp_path / name) == use(tmp_path / "plain")


def test_a_chunk_of_zeros_is_no_loss(tmp_path):
    index = build(tmp_path, np.zeros((9, WIDTH), np.float32))
    assert not read_rows(open_index(tmp_path, model_hash="model"), range(9)).any()
    assert index.rows == 9
