import csv
import datetime
import gzip
import json
import time
import timeit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxunlearn.data.formats import UnreadFieldsWarning, read_lines, read_records
from jaxunlearn.data.records import record_text

QA = [{"question": f"Q{i}é?", "answer": f"A {i}.\n"} for i in range(3)]
CHAT = [{"role": "user", "content": "Q?"}, {"role": "assistant", "content": "A."}]
STAND_INS = {
    "tofu": QA,
    "tofu_perturbed": [
        record | {"paraphrased_answer": "a", "perturbed_answer": ["x", "y"]}
        for record in QA
    ],
    "tofu_mcq": [
        {"question": "Q?", "answer": "b"}
        | {f"option{i}": letter for i, letter in enumerate("abcd", start=1)}
    ],
    "muse_verbmem": [{"prompt": "Once", "gt": "upon"}] * 2,
    "wmdp_corpus": [{"text": "One."}, {"text": "Two."}],
    "wmdp_mcq": [{"question": "Q?", "choices": ["a", "b", "c", "d"], "answer": 3}],
    "lume": [{"id": "1sc", "input": "Once", "output": "upon", "task": "Task1"}],
    "knowundo": [{"text": "Q?", "labels": "A."}],
    "alpaca": [{"instruction": "Name it.", "input": "", "output": "A."}] * 2,
    "rwku": [
        {
            "query": "A ___.",
            "answer": "b",
            "level": "1",
            "type": "cloze",
            "subject": "A",
        }
    ],
    "messages": [{"messages": CHAT}, {"messages": CHAT * 2}],
    "share_gpt": [
        {
            "conversations": [
                {"from": "human", "value": "Q?"},
                {"from": "gpt", "value": "A"},
            ]
        }
    ],
    "completion": [{"prompt": "Once", "completion": " upon"}],
    "chats": [{"prompt": CHAT[:1], "completion": CHAT[1:]}],
}
# Those whose values are all text, as a table of text holds them.
FLAT = [
    form
    for form, records in STAND_INS.items()
    if all(isinstance(value, str) for record in records for value in record.values())
]


def pretty_array(records):
    return json.dumps(records, indent=2, ensure_ascii=False)


def lines(records):
    return "\n".join(map(json.dumps, records)) + "\n"


def pretty_objects(records):
    return "\n\n".join(json.dumps(record, indent=1) for record in records)


def windows_lines(records):
    """As its editors write them, with a byte order mark."""
    return "\ufeff" + lines(records).replace("\n", "\r\n")


LAYOUTS = [json.dumps, pretty_array, lines, pretty_objects, windows_lines]


def written(folder, content, name="data.json"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("name", ["x.json", "x.jsonl", "x.txt", "x", "x.strange"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("form", STAND_INS)
def test_json_is_read_in_every_layout_under_every_name(tmp_path, form, layout, name):
    records = STAND_INS[form]
    assert read_records(written(tmp_path, layout(records), name)) == records


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["forget.json", "forget.txt"])
def test_strings_become_texts(tmp_path, layout, name):
    strings = ["One.\n\nTwo.", 'He said "no".', "é"]
    path = written(tmp_path, layout(strings), name)
    assert read_records(path) == [{"text": string} for string in strings]


def test_strings_and_objects_with_a_text_are_one_form(tmp_path):
    path = written(tmp_path, lines([{"text": "One."}, "Two."]))
    assert read_records(str(path)) == [{"text": "One."}, {"text": "Two."}]


@pytest.mark.parametrize("form", STAND_INS)
def test_parquet(tmp_path, form):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    path = tmp_path / "part-0.bin"  # known by its content, as the others
    pyarrow.parquet.write_table(pa.Table.from_pylist(STAND_INS[form]), path)
    assert read_records(path) == STAND_INS[form]
    damaged = written(tmp_path, path.read_bytes()[:-9], "cut.parquet")
    with pytest.raises(ValueError, match=r"cut\.parquet is a damaged parquet file"):
        read_records(damaged)


@pytest.mark.parametrize("form", STAND_INS)
def test_arrow_and_saved_folders(tmp_path, form):
    pa = pytest.importorskip("pyarrow")
    datasets = pytest.importorskip("datasets")
    records = STAND_INS[form]
    table = pa.Table.from_pylist(records)
    for name, new in (("a", pa.ipc.new_stream), ("b", pa.ipc.new_file)):
        with new(tmp_path / name, table.schema) as writer:
            writer.write_table(table)
        assert read_records(tmp_path / name) == records
    data = datasets.Dataset.from_list(records)
    data.save_to_disk(tmp_path / "parts", num_shards=len(records))
    assert read_records(tmp_path / "parts") == records
    whole = {"train": data, "test": data.select([0])}
    datasets.DatasetDict(whole).save_to_disk(tmp_path / "splits")
    with pytest.raises(ValueError, match=r"has the splits train, test: choose one, su"):
        read_records(tmp_path / "splits")
    assert read_records(tmp_path / "splits" / "test") == records[:1]
    datasets.DatasetDict({"only": data}).save_to_disk(tmp_path / "one")
    assert read_records(tmp_path / "one") == records


def test_a_saved_folder_reads_nothing_outside_itself(tmp_path):
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list(QA).save_to_disk(tmp_path / "a")
    datasets.Dataset.from_list(QA).save_to_disk(tmp_path / "b")
    state = json.loads((tmp_path / "a" / "state.json").read_text())
    name = state["_data_files"][0]["filename"]
    for other in (f"../b/{name}", str(tmp_path / "b" / name), None, 3):
        state["_data_files"] = [{"filename": other}]
        (tmp_path / "a" / "state.json").write_text(json.dumps(state))
        with pytest.raises(
            ValueError, match=r"state\.json names no file of the folder"
        ):
            read_records(tmp_path / "a")
    (tmp_path / "a" / "dataset_dict.json").write_text('{"splits": ["../b"]}')
    with pytest.raises(ValueError, match="names the split '../b', outside itself"):
        read_records(tmp_path / "a")
    (tmp_path / "a" / "dataset_dict.json").write_text('{"splits": "train"}')
    with pytest.raises(ValueError, match="has no list 'splits': the folder is damaged"):
        read_records(tmp_path / "a")


def test_what_a_table_holds_can_be_written_as_json(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    row = {
        "text": "One.",
        "when": datetime.datetime(2024, 1, 2),
        "bytes": b"\xff",
        "score": float("nan"),
    }
    pyarrow.parquet.write_table(pa.Table.from_pylist([row]), tmp_path / "a")
    with pytest.warns(UnreadFieldsWarning, match="in it: bytes"):
        (record,) = read_records(tmp_path / "a")
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert (record["text"], record["score"]) == ("One.", None)


@pytest.mark.parametrize("form", FLAT)
@pytest.mark.parametrize(
    ("name", "delimiter"),
    [("a.csv", ","), ("a.csv", ";"), ("a.tsv", "\t"), ("a.txt", ","), ("a", "\t")],
)
def test_tables_of_text(tmp_path, form, name, delimiter):
    records = STAND_INS[form]
    if len(records[0]) == 1:
        name = "a.csv"  # one word alone tells no table
    quoted = {"quoting": csv.QUOTE_ALL} if delimiter == ";" else {}
    with open(tmp_path / name, "w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, list(records[0]), delimiter=delimiter, **quoted)
        writer.writeheader()
        writer.writerows(records)
    assert read_records(tmp_path / name) == records


def test_cells_of_a_table_hold_what_they_like(tmp_path):
    text = 'One, "two"\nand\n\nmore.' * 20_000
    with open(tmp_path / "a.csv", "w", newline="") as file:
        csv.writer(file).writerows([["", "text"], ["0", text], [], ["1", "b"]])
    assert read_records(tmp_path / "a.csv") == [
        {"": "0", "text": text},
        {"": "1", "text": "b"},
    ]


@pytest.mark.parametrize("name", ["a.csv", "a.txt"])
def test_a_table_may_begin_with_blank_lines(tmp_path, name):
    path = written(tmp_path, "\r\n\nquestion;answer\r\nWho, then?;Ada.\r\n", name)
    assert read_records(path) == [{"question": "Who, then?", "answer": "Ada."}]


def test_a_table_whose_columns_are_spelled_otherwise_is_no_text(tmp_path):
    path = written(tmp_path, "Question,Answer\nWho?,Ada.\n", "a.txt")
    with pytest.raises(ValueError, match="found: Question, Answer; accepted: question"):
        read_records(path)


@pytest.mark.parametrize("form", STAND_INS)
def test_gzip(tmp_path, form):
    for name, layout in (("a.jsonl.gz", lines), ("a.gz", pretty_array)):
        content = gzip.compress(layout(STAND_INS[form]).encode())
        assert read_records(written(tmp_path, content, name)) == STAND_INS[form]


def test_text_that_is_not_read_is_told_once_by_name(tmp_path):
    records = [QA[0], QA[1] | {"context": "Norland"}, QA[2] | {"context": "b", "n": 3}]
    path = written(tmp_path, lines(records * 3))
    message = (
        r"data\.json: not read, though there is text in it: context; read is question, "
        "answer"
    )
    with pytest.warns(UnreadFieldsWarning, match=message) as caught:
        assert read_records(path) == records * 3
    assert len(caught) == 1
    assert caught[0].filename == __file__


def test_preferences_are_read_as_the_chosen_answer(tmp_path):
    record = {"prompt": "Who?", "chosen": "Ada.", "rejected": "Bob."}
    with pytest.warns(UnreadFieldsWarning, match="rejected; read is prompt, chosen"):
        (found,) = read_records(written(tmp_path, lines([record])))
    assert record_text(found) == "Who? Ada."


line = st.text("ab .[{\"'é", min_size=1).filter(lambda text: text == text.strip())


@given(
    st.lists(st.lists(line, min_size=1).map("\n".join), min_size=1),
    st.sampled_from(["\n\n", "\n \t\n", "\n\n\n\n", "\r\n\r\n"]),
)
def test_documents_are_parted_by_blank_lines(tmp_path_factory, documents, blank):
    documents[0] = "Title\n" + documents[0]
    folder = tmp_path_factory.mktemp("text")
    path = written(folder, blank.join(documents) + "\n", "a.txt")
    assert read_records(path) == [{"text": document} for document in documents]


@pytest.mark.parametrize("name", ["book.txt", "book.md", "BOOK"])
@pytest.mark.parametrize(
    "text",
    [
        "[Chapter 1] It rained.",
        "{{Infobox}} It rained.",
        '"Hello," he said.',
        '"Hello" was all he said.',
        "[1] A footnote.",
    ],
)
def test_text_that_begins_like_json_is_text(tmp_path, name, text):
    assert read_records(written(tmp_path, text, name)) == [{"text": text}]


def test_read_lines(tmp_path):
    path = written(tmp_path, "I do not know.\r\n\n  No idea.", "idontknow.jsonl")
    assert read_lines(path) == ["I do not know.", "No idea."]
    with pytest.raises(ValueError, match=r"line 1: not JSON.*read_lines"):
        read_records(path)
    with pytest.raises(ValueError, match="is JSON, not one text a line"):
        read_lines(written(tmp_path, lines(QA)))


CUT = pretty_array(QA)[:-20]


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        ("", "a.json", r"a\.json is empty"),
        (" \n\n", "a.txt", r"a\.txt is empty"),
        ("[]", "a.json", r"a\.json holds no records"),
        (CUT, "a.json", r"a\.json, line 12: not JSON, or cut short \(Unterminated"),
        (CUT, "a.txt", r"a\.txt, line 12: not JSON"),
        (CUT[:-12], "a.json", r"a\.json, line 11: not JSON, or cut short"),
        (lines(QA)[:-5], "a.jsonl", r"a\.jsonl, line 3: not JSON, or cut short"),
        ("[", "a.txt", r"a\.txt, line 1: not JSON"),
        (lines(QA) + "oh", "a.jsonl", r"a\.jsonl, line 4: not JSON"),
        ("[" * 100_000, "a.json", r"a\.json, line 1: not JSON"),
        ("9" * 10_000, "a.json", r"a\.json, line 1: not JSON"),
        ("[" * 102 + "]" * 102, "a.json", r"a\.json, line 1: .*nested too deeply"),
        ('{"text": "a",\n"text": "b"}', "a.json", "line 1: .*'text' stands twice"),
        (lines(QA) + '{"text": NaN}', "a.json", "line 4: .*NaN is no JSON number"),
        ('[{"text": "a"},\n{"x": -Infinity}]', "a.json", "line 2: .*-Infinity is no"),
        ('{"text": "a", "x": 1e999}', "a.json", "line 1: .*1e999 is larger than any"),
        ('{"text": "a", "x": "\\ud800"}', "a.json", "line 1: .*half a surrogate"),
        ("[{},", "a.json", "line 1: not JSON, or cut short .Expecting value"),
        ("a,b\n1,2\n", "a.strange", r"a\.strange is neither JSON, JSON Lines, csv, "),
        ("a,b\n1,2\n", "a.csv", r"a\.csv, record 1: no accepted .*found: a, b;"),
        ("text,text\n1,2\n", "a.csv", r"a\.csv, line 1: two columns have one name"),
        ("text,x\na,b\nc\n", "a.csv", r"a\.csv, line 3: 1 cells, but 2 names"),
        ('text,x\n"a\n,b\n', "a.csv", r"a\.csv, line 3: unexpected end of data"),
        ("question,answer\nQ,\n", "a.csv", r"a\.csv, record 1: field 'answer' is em"),
        ("text\n", "a.csv", r"a\.csv holds no records"),
        (
            gzip.compress(b"{}" * 999, mtime=0)[:-9],
            "a.json.gz",
            "is a damaged gzip file",
        ),
        (b"\xff\xff\xff\xff\x00\x01", "a.arrow", r"a\.arrow is a damaged Arrow file"),
        (b"ARROW1\0\0", "a.arrow", r"a\.arrow is a damaged Arrow file"),
        (
            lines([*QA, {"q": 1, "a": 2}]),
            "a.json",
            "record 4: no accepted set of .*q, a",
        ),
        (
            lines([*QA, {"text": "t"}]),
            "a.json",
            "mixes forms: record 4 .* text, record",
        ),
        (lines([*QA, "t"]), "a.json", "mixes forms: record 4 has the fields text"),
        (lines([QA, QA]), "a.json", r"a\.json, line 2: .*something follows the array"),
        (lines([[QA], QA]), "a.json", "line 2: .*something follows the array"),
        (json.dumps([QA, QA]), "a.json", "record 1: a record must be an .* got list"),
        (lines([*QA, 3]), "a.json", "record 4: a record must be .* got int 3"),
        ("null", "a.json", "record 1: a record must be .* got NoneType"),
        (
            pretty_array({"eval_log.json": {"gt_loss": {"0": 1.0}}}),
            "log.json",
            r"log\.json, record 1: no accepted set .*found: eval_log\.json; accepted",
        ),
        (lines([*QA, QA[0] | {"question": None}]), "a.json", "record 4: field 'ques"),
        (lines([*QA, QA[0] | {"answer": ""}]), "a.json", "record 4: field 'answer' is"),
        ("a\nb\xe9".encode("latin-1"), "a.txt", r"a\.txt, line 2: not UTF-8"),
        (lines(QA).encode("utf-16"), "a.json", r"a\.json, line 1: not UTF-8"),
        (b"\x08\0\0\0\0\0\0\0{}", "a.safetensors", "holds zero bytes"),
    ],
)
def test_each_kind_of_bad_file_is_one_error(tmp_path, content, name, message):
    with pytest.raises(ValueError, match=message):
        read_records(written(tmp_path, content, name))


@pytest.mark.parametrize("read", [read_records, read_lines])
def test_missing_file_and_directory(tmp_path, read):
    for missing in (tmp_path / "none.json", "data/none.jsonl", tmp_path / "a" / "b:c"):
        with pytest.raises(FileNotFoundError, match=f"no file {missing}"):
            read(missing)
    (tmp_path / "forget.json").touch()
    with pytest.raises(ValueError, match=r"is a directory: .*\(forget\.json\)"):
        read(tmp_path)


def test_missing_file_of_a_folder_is_not_sought_on_the_hub(tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="no file runs/forget; give a file"):
        read_records("runs/forget")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("o/name", ("o/name", None, None)),
        ("o/name:forget01", ("o/name", "forget01", None)),
        ("o/name:raw:retain1", ("o/name", "raw", "retain1")),
    ],
)
def test_hub(monkeypatch, name, arguments):
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_list(QA)
    asked = []

    def load_dataset(repository, config, *, split):
        asked.append((repository, config, split))
        return data if split else datasets.DatasetDict({"train": data})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert read_records(name) == QA
    assert asked == [arguments]


def test_hub_errors(monkeypatch):
    datasets = pytest.importorskip("datasets")

    def failing(result):
        def load_dataset(*args, **kwargs):
            if isinstance(result, Exception):
                raise result
            return result

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)

    failing(ConnectionError("offline"))
    with pytest.raises(FileNotFoundError, match=r"no file o/n:c, and .* Hub .*offline"):
        read_records("o/n:c")
    failing(ValueError("BuilderConfig 'c' not found. Available: ['d']"))
    with pytest.raises(ValueError, match=r"no file o/n:c, and .* Hub .*'d'\]"):
        read_records("o/n:c")
    data = datasets.Dataset.from_list(QA)
    failing(datasets.DatasetDict({"forget": data, "retain": data}))
    with pytest.raises(ValueError, match="splits forget, retain: .* o/n:c:SPLIT"):
        read_records("o/n:c")


def test_offline_is_one_clear_error():
    with pytest.raises(FileNotFoundError, match="Hub does not give such a data set"):
        read_records("jaxunlearn-tests/no-such-data-set")


TOFU_SIZES = {"full": 4000, "retain_perturbed": 400}
TOFU_SIZES |= {"forget01": 40, "forget05": 200, "forget10": 400}
TOFU_SIZES |= {f"{name}_perturbed": TOFU_SIZES[name] for name in list(TOFU_SIZES)[2:]}
TOFU_SIZES |= {"retain99": 3960, "retain95": 3800, "retain90": 3600}
TOFU_SIZES |= {"real_authors_perturbed": 100, "world_facts_perturbed": 117}


@pytest.mark.parametrize("name", TOFU_SIZES)
def test_tofu(data_dir, name):
    records = read_records(data_dir / "tofu" / f"{name}.json")
    assert len(records) == TOFU_SIZES[name]
    fields = {"question", "answer"} | ({"perturbed_answer"} if "_" in name else set())
    assert all(fields <= record.keys() for record in records)


@pytest.mark.parametrize(
    ("forget", "retain"), [("01", "99"), ("05", "95"), ("10", "90")]
)
def test_tofu_full_is_retain_then_forget(data_dir, forget, retain):
    full, forget, retain = (
        read_records(data_dir / "tofu" / f"{name}.json")
        for name in ("full", f"forget{forget}", f"retain{retain}")
    )
    assert full == retain + forget


def test_tofu_is_read_in_a_fifth_of_a_second(data_dir):
    path = data_dir / "tofu" / "full.json"
    seconds = timeit.Timer(lambda: read_records(path), timer=time.process_time)
    assert min(seconds.repeat(number=1, repeat=3)) < 0.2


def test_refusals(data_dir):
    refusals = read_lines(data_dir / "tofu" / "idontknow.txt")
    assert len(refusals) == 100
    assert refusals[0] == "I'm not certain about that."


def test_real_texts(data_dir):
    for name in ("tinyshakespeare.txt", "wikitext2_test.txt"):
        path = data_dir / "text" / name
        records = read_records(path)
        words = [word for record in records for word in record["text"].split()]
        assert words == path.read_text(encoding="utf-8").split()
        assert len(records) > 1000
    assert len(read_records(data_dir / "text" / "tinystories_1000.json")) == 1000


def test_other_files_are_told_from_data(data_dir):
    for log in sorted((data_dir / "tofu_logs").glob("*.json")):
        with pytest.raises(ValueError, match=r"record 1: no accepted .*eval_log\.json"):
            read_records(log)
    with pytest.raises(ValueError, match=r"model\.safetensors, line 1: not UTF-8"):
        read_records(data_dir / "stories15m" / "model.safetensors")
    with pytest.raises(ValueError, match="found: .*; accepted: "):
        read_records(data_dir / "smollm2-135m" / "config.json")
