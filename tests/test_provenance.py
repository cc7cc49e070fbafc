import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn.files import write_json, write_text
from jaxunlearn.provenance import PACKAGES, data_hash, params_hash, versions

RECORDS = [{"question": "Who?", "answer": "Zoë"}, {"text": "b", "n": 1}]


def test_the_hash_of_data_sees_order_fields_and_values_but_not_key_order():
    assert data_hash(RECORDS) == data_hash([dict(reversed(r.items())) for r in RECORDS])
    others = [
        [],
        RECORDS[:1],
        RECORDS[::-1],
        RECORDS + RECORDS[:1],
        [RECORDS[0], {"text": "b", "n": "1"}],
        [RECORDS[0], {"text": "b"}],
        [RECORDS[0], {"test": "b", "n": 1}],
    ]
    hashes = {data_hash(records) for records in [RECORDS, *others]}
    assert len(hashes) == len(others) + 1
    # Two records are not one with the same letters.
    assert data_hash([{"text": "a"}, {"text": "b"}]) != data_hash([{"text": "ab"}])


def test_the_hash_of_parameters_sees_names_shapes_dtypes_and_bits():
    ones = jnp.ones((2, 3))
    params = {"a": ones, "b": {"c": jnp.zeros(2)}}
    assert params_hash(params) == params_hash(jax.tree.map(np.array, params))
    others = [
        {"a": ones, "b": {"d": jnp.zeros(2)}},
        {"a": ones.T, "b": {"c": jnp.zeros(2)}},
        {"a": ones, "b": {"c": -jnp.zeros(2)}},
        {"a": ones, "b": {"c": jnp.zeros(2, jnp.int32)}},
        {"a": ones.at[1, 1].add(1e-7), "b": {"c": jnp.zeros(2)}},
        {"a": ones},
    ]
    assert len({params_hash(p) for p in [params, *others]}) == len(others) + 1


def test_versions_name_every_package_and_the_device():
    found = versions()
    assert set(found) == {"python", "device", *PACKAGES}
    assert found["jax"] == jax.__version__
    assert found["device"].startswith(f"{jax.device_count()} x ")
    assert json.loads(json.dumps(found)) == found


def test_json_comes_back(tmp_path):
    value = {"b": [1, 2.5, None], "a": "Zoë\u2028"}
    path = tmp_path / "new" / "deep" / "file.json"
    write_json(path, value)
    assert json.loads(path.read_text(encoding="utf-8")) == value
    assert [p.name for p in path.parent.iterdir()] == ["file.json"]


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "file.txt"
    write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "new \ud800")
    assert path.read_text() == "old"

    def fail(*_):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(OSError, match="disk full"):
            write_text(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]
    write_text(path, "new")
    assert path.read_text() == "new"


def test_what_is_no_json_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.json"
    write_json(path, 1)
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == 1
