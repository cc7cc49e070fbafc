import dataclasses
import json
import os

import numpy as np
import pytest

from jaxunlearn.gradients.kronecker_projections import matrices_hash
from jaxunlearn.gradients.projections import Block, Projection
from jaxunlearn.influence.index import open_index, read_matrices
from jaxunlearn.influence.index_build import build_index
from jaxunlearn.influence.index_query import read_rows

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
    path.write_text(json.dumps(json.loads(text) | {"format_version": 9}))
    refused("format_version 9, this version of jaxunlearn reads 1")
    held = json.loads(text)
    del held["rows"]
    path.write_text(json.dumps(held))
    refused("index.json is damaged .*rows")
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
    os.remove(tmp_path / "norms" / "zarr.json")
    refused("norms is missing or damaged")
    assert index.rows == 40


def test_a_chunk_of_zeros_is_no_loss(tmp_path):
    index = build(tmp_path, np.zeros((9, WIDTH), np.float32))
    assert not read_rows(open_index(tmp_path, model_hash="model"), range(9)).any()
    assert index.rows == 9
