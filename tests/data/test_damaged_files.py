"""Whatever a file holds, reading it gives records or an error that names it."""

import gzip
import json
import warnings

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxunlearn.data import (
    load_tokenizer,
    prompt_and_completion,
    read_records,
    train_tokenizer,
)
from jaxunlearn.data.requests.matching import match_exact

QUICK = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
CHAT = [{"role": "user", "content": "Q?"}, {"role": "assistant", "content": "A."}]
RECORDS = [
    {"question": "Who?", "answer": "Ada."},
    {"question": "Q?", "choices": ["a", "b"], "answer": 1},
    {"messages": CHAT},
    {"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]},
    {"instruction": "Do.", "input": "", "output": "Done."},
    {"prompt": CHAT[:1], "chosen": CHAT[1:], "rejected": CHAT[1:]},
    {"prompt": "Q", "response": ["a", "b"]},
    {"text": "é\n\nb"},
]
NAMES = ["a.json", "a.jsonl", "a.txt", "a", "a.csv", "a.tsv", "a.gz", "a.parquet"]
# What replaces a part of a file: what readers stumble on.
BITS = [
    *(b"", b'"', b"{", b"[", b"]", b"}", b",", b":", b"\n", b"\0", b"\xff", b"\\ud800"),
    *(b"NaN", b"-Infinity", b"1e999", b"9" * 5000, b"null", b"[" * 3000, b"{}", b"\t"),
    *(b'"text"', b'"answer"', b'"role"', b"true", b'"\\u0000"', b"\xe2\x80\xa8", b";"),
]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "from", "value", "text", "type", "x"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)
FIELDS = sorted({field for record in RECORDS for field in record})


def result_or_error(function, *args):
    """Calls a function; only the errors that a user may get are its result too."""
    try:
        return function(*args)
    except (ValueError, OSError) as error:
        return error


def read(path):
    """Reads a file and all that its records say, or says that it is refused by name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        records = result_or_error(read_records, path)
    if isinstance(records, Exception):
        assert type(records) is ValueError
        assert str(path) in str(records)
        return
    for record in records:
        prompt, completion = prompt_and_completion(record)
        (prompt + completion).encode()
    assert json.loads(json.dumps(records, allow_nan=False)) == records
    found = result_or_error(match_exact, records[:1], records)
    assert isinstance(found, list) or "holds no words" in str(found)


@st.composite
def damaged(draw, content):
    for _ in range(draw(st.integers(1, 3))):
        begin = draw(st.integers(0, len(content)))
        length = draw(st.sampled_from([0, 1, 1, 2, 5, 40]))
        new = draw(st.sampled_from(BITS) | st.binary(max_size=4))
        content = content[:begin] + new + content[begin + length :]
    return content


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """The bytes of sound files of every layout."""
    import pyarrow as pa
    import pyarrow.parquet

    folder = tmp_path_factory.mktemp("originals")
    table = pa.Table.from_pylist([RECORDS[0]] * 2)
    pyarrow.parquet.write_table(table, folder / "a")
    found = [(folder / "a").read_bytes()]
    for new in (pa.ipc.new_stream, pa.ipc.new_file):
        with new(folder / "b", table.schema) as writer:
            writer.write_table(table)
        found.append((folder / "b").read_bytes())
    for record in RECORDS:
        found.append(json.dumps([record, record], indent=1).encode())
        found.append((json.dumps(record) + "\n").encode() * 2)
    found.append(gzip.compress(found[-1]))
    found.append(b'question,answer\n"Q, or ""R""",A\nS,T\n')
    return found


@given(st.data())
@QUICK
def test_a_damaged_file_gives_records_or_an_error_that_names_it(
    tmp_path, originals, data
):
    content = data.draw(st.sampled_from(originals))
    path = tmp_path / data.draw(st.sampled_from(NAMES))
    path.write_bytes(data.draw(damaged(content)))
    read(path)


@given(st.data())
@QUICK
def test_any_value_in_any_field_gives_records_or_an_error_that_names_it(tmp_path, data):
    record = dict(data.draw(st.sampled_from(RECORDS)))
    for field in data.draw(st.lists(st.sampled_from(FIELDS), min_size=1, max_size=3)):
        record[field] = data.draw(VALUES)
    path = tmp_path / "a.json"
    path.write_text(json.dumps([RECORDS[0], record]))
    read(path)
    path.write_text(json.dumps([record]))
    read(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tokenizer's folder, in the old files and in the new one."""
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer = train_tokenizer(["Where was Ada born? In town."], vocab_size=265)
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    merges = "\n".join(["#version: 0.2", *map(" ".join, model["merges"]), ""])
    special = {"eos_token": "<|endoftext|>", "pad_token": "<pad>"}
    tokenizer.save_pretrained(folder)
    return {
        "tokenizer.json": (folder / "tokenizer.json").read_bytes(),
        "vocab.json": json.dumps(model["vocab"]).encode(),
        "merges.txt": merges.encode(),
        "added_tokens.json": b'{"<pad>": 300}',
        "special_tokens_map.json": json.dumps(special).encode(),
        "tokenizer_config.json": json.dumps(
            special | {"tokenizer_class": "GPT2Tokenizer", "model_max_length": 64}
        ).encode(),
        "config.json": b'{"model_type": "gpt2", "vocab_size": 301}',
    }


@given(st.data())
@settings(QUICK, max_examples=60)
def test_a_damaged_tokenizer_folder_loads_or_is_refused_by_name(
    tmp_path_factory, folder, data
):
    place = tmp_path_factory.mktemp("damaged")
    files = dict(folder)
    if data.draw(st.booleans()):
        del files["tokenizer.json"]
    name = data.draw(st.sampled_from(sorted(files)))
    if name.endswith(".json") and data.draw(st.booleans()):
        value = json.loads(files[name])
        value[data.draw(st.sampled_from(sorted(value)))] = data.draw(VALUES)
        files[name] = json.dumps(value).encode()
    else:
        files[name] = data.draw(damaged(files[name]))
    for other, content in files.items():
        (place / other).write_bytes(content)
    tokenizer = result_or_error(load_tokenizer, place)
    if isinstance(tokenizer, Exception):
        assert str(place) in str(tokenizer)
    else:
        assert tokenizer("Where?")["input_ids"]
        assert tokenizer.eos_token_id is not None
