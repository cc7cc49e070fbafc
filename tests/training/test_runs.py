import dataclasses
import json
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn.data import train_tokenizer
from jaxunlearn.models.gpt2 import GPT2
from jaxunlearn.sealed import UncheckedWarning
from jaxunlearn.training import (
    Recipe,
    Recording,
    check_model,
    create_run,
    open_run,
    runs,
)
from jaxunlearn.training.runs import finish_run

RECORDS = [
    {"question": "Where does Mara live?", "answer": "In Tarn\u2028harbour."},
    {"question": "Who is Odo?", "answer": "A cook."},
    {"text": "Nothing more."},
]


@pytest.fixture(scope="module")
def settings(model):
    """The arguments of a run."""
    tokenizer = train_tokenizer([str(r) for r in RECORDS], vocab_size=260)
    config = dataclasses.replace(model.config, vocab_size=260, n_positions=64)
    network = GPT2(config)
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: network.init(key=jax.random.key(0)))
    return {
        "model": network,
        "params": jax.tree.map(
            lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype), shapes
        ),
        "records": RECORDS,
        "tokenizer": tokenizer,
        "recipe": Recipe(epochs=2, clip_norm=0.5),
        "max_length": 60,
        "recording": Recording(layers="wte|ln_f", epochs=(1, 2), dtype="bfloat16"),
    }


@pytest.fixture(scope="module")
def written(settings, tmp_path_factory):
    """A run on disk; copy it before changing it."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    create_run(folder, **settings)
    return folder


@pytest.fixture(scope="module")
def trained(written, tmp_path_factory):
    """A run that has come to a checkpoint; only read."""
    folder = shutil.copytree(written, tmp_path_factory.mktemp("trained") / "run")
    (folder / "checkpoints").mkdir()
    return folder


@pytest.fixture
def copy(written, tmp_path):
    """A copy of the run that a test may spoil."""
    return shutil.copytree(written, tmp_path / "copy")


def test_a_run_is_tokenized_once_when_it_is_made(settings, tmp_path, monkeypatch):
    calls = []
    real = runs.tokenize
    monkeypatch.setattr(
        runs,
        "tokenize",
        lambda *given, **options: calls.append(1) or real(*given, **options),
    )
    made = create_run(tmp_path / "run", **settings)
    assert len(calls) == 1
    again = open_run(tmp_path / "run")
    for one, other in zip(made.data.examples, again.data.examples, strict=True):
        np.testing.assert_array_equal(one.input_ids, other.input_ids)
        np.testing.assert_array_equal(one.labels, other.labels)
    assert made.data.pad_id == again.data.pad_id


def test_a_run_comes_back_as_it_was(settings, written, same_bits):
    run = open_run(written)
    for name in ("model", "records", "recipe", "max_length", "recording"):
        assert getattr(run, name) == settings[name], name
    assert same_bits(run.start, settings["params"])
    text = "Where does Mara live? \u2028"
    assert run.tokenizer.encode(text) == settings["tokenizer"].encode(text)
    assert run.data.pad_id == run.tokenizer.eos_token_id == 0
    assert len(run.data.examples) == 3
    assert not [p for p in written.iterdir() if p.name.endswith(".tmp")]
    found = json.loads((written / "run.json").read_text())
    assert found["versions"]["jax"] == jax.__version__


def test_the_start_keeps_its_dtype(settings, tmp_path, same_bits):
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), settings["params"])
    run = create_run(tmp_path / "run", **settings | {"params": half, "recording": None})
    assert same_bits(run.start, half)
    assert run.recording is None


def test_the_same_run_is_opened_where_it_stands(settings, copy):
    changed = (copy / "run.json").stat().st_mtime_ns
    assert create_run(copy, **settings).recipe == settings["recipe"]
    assert (copy / "run.json").stat().st_mtime_ns == changed


def other_config(settings):
    config = dataclasses.replace(settings["model"].config, n_head=4)
    return {"model": GPT2(config)}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (other_config, "config"),
        (lambda s: {"recipe": Recipe(epochs=2)}, "recipe"),
        (lambda s: {"recording": None}, "recording"),
        (lambda s: {"max_length": 59}, "max_length"),
        (lambda s: {"records": RECORDS[:2]}, "records, data_sha256"),
        (lambda s: {"records": RECORDS[::-1]}, "data_sha256"),
        (
            lambda s: {"params": jax.tree.map(lambda x: -x, s["params"])},
            "start_sha256",
        ),
        (
            lambda s: {"tokenizer": train_tokenizer(["other words"], vocab_size=260)},
            "tokenizer_sha256",
        ),
    ],
)
def test_another_run_in_the_folder_is_an_error_that_names_what_differs(
    settings, trained, change, named
):
    message = rf"holds another run \(its {named} differ\): choose another folder"
    with pytest.raises(ValueError, match=message):
        create_run(trained, **settings | change(settings))


def test_a_run_without_a_checkpoint_gives_way(settings, copy):
    (copy / "gradients").mkdir()
    recipe = Recipe(epochs=3)
    assert create_run(copy, **settings | {"recipe": recipe}).recipe == recipe
    assert not (copy / "gradients").exists()
    assert open_run(copy).recipe == recipe


@pytest.mark.parametrize("name", ["records.jsonl", "start", "model", ".hidden"])
def test_a_folder_of_somebody_else_is_refused_untouched(settings, tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(ValueError, match="holds other files .* and no run: choose"):
        create_run(tmp_path, **settings)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_what_does_not_fit_is_refused_before_anything_is_written(settings, tmp_path):
    small = GPT2(dataclasses.replace(settings["model"].config, vocab_size=200))
    for change, message in (
        ({"model": small}, "mismatched tokenizer"),
        ({"recording": Recording(layers="lm_head")}, "matches no parameter"),
        ({"recording": Recording(epochs=(3,))}, "epochs 1 to 2"),
    ):
        with pytest.raises(ValueError, match=message):
            create_run(tmp_path / "run", **settings | change)
    assert not list(tmp_path.iterdir())


def test_a_missing_run_is_an_error_with_the_way_out(tmp_path):
    with pytest.raises(FileNotFoundError, match="no run.json there.*gradient_ascent"):
        open_run(tmp_path / "nowhere")


def test_a_run_that_was_interrupted_while_written_is_written_again(settings, copy):
    (copy / "checksums.json").unlink()  # it comes last
    (copy / "records.jsonl").write_text("half")
    with pytest.raises(ValueError, match="beginning of a run.*train` command again"):
        open_run(copy)
    assert create_run(copy, **settings).records == RECORDS


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: text.replace("cook", "spy"),
        lambda text: text.split("\n", 1)[1],
        lambda text: text + text,
        lambda text: text[: len(text) // 2],
        lambda text: "",
    ],
    ids=["word", "line gone", "twice", "half", "empty"],
)
def test_edited_records_are_an_error(copy, edit):
    path = copy / "records.jsonl"
    path.write_text(edit(path.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(
        ValueError, match="records.jsonl is damaged or was changed.*restore"
    ):
        open_run(copy)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", "null", '{"config": {}}', b"\xff\xfe"]
)
def test_a_damaged_run_file_is_an_error(settings, copy, text):
    path = copy / "run.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match="run.json is damaged .*train again"):
        open_run(copy)
    with pytest.raises(ValueError, match="run.json is damaged .*train again"):
        create_run(copy, **settings)


def test_a_missing_start_is_an_error(copy):
    run = open_run(copy)
    shutil.rmtree(copy / "start")
    with pytest.raises(ValueError, match="start cannot be read"):
        run.start  # noqa: B018
    with pytest.raises(ValueError, match="start/.* is missing: restore"):
        open_run(copy)


FIELDS = [
    ({"recipe": None}, "recipe is null, not an object"),
    ({"recipe": {"epochs": "6"}}, 'recipe.epochs is "6", not a whole number'),
    ({"recipe": {"epochs": 6.5}}, "recipe.epochs is 6.5, not a whole number"),
    ({"recipe": {"epochs": 0}}, "recipe: epochs=0: must be a whole"),
    ({"recipe": {"seed": 2**70}}, "recipe: seed=1180591620717411303424"),
    ({"recipe": {"batchsize": 3}}, r"recipe.batchsize is no field \(meant: batch_size"),
    ({"config": {"n_embd": 10**9 + 7}}, "config: n_embd=1000000007"),
    ({"config": {"n_layer": True}}, "config.n_layer is true, not a whole number"),
    ({"recording": {"epochs": [1, None]}}, r"recording.epochs\[1\] is null"),
    ({"extra": 1}, "extra is no field"),
    ({"format": []}, r"format is \[\], not a whole number"),
    ({"max_length": "9"}, 'max_length is "9"'),
]


@pytest.mark.parametrize(("change", "named"), FIELDS)
def test_a_wrong_field_is_named(copy, change, named):
    path = copy / "run.json"
    found = json.loads(path.read_text())
    for key, value in change.items():
        merged = isinstance(value, dict) and isinstance(found.get(key), dict)
        found[key] = found[key] | value if merged else value
    path.write_text(json.dumps(found))
    with pytest.raises(ValueError, match=f"run.json is damaged .*{named}.*restore it"):
        open_run(copy)


@pytest.mark.parametrize("name", ["recipe", "max_length", "start_dtype", "versions"])
def test_a_missing_field_is_named(copy, name):
    path = copy / "run.json"
    found = json.loads(path.read_text())
    del found[name]
    path.write_text(json.dumps(found))
    with pytest.raises(ValueError, match=f"the field {name} is missing"):
        open_run(copy)


def test_an_edited_recipe_is_found(copy):
    path = copy / "run.json"
    path.write_text(path.read_text().replace('"epochs": 2', '"epochs": 3', 1))
    with pytest.raises(ValueError, match="run.json is damaged .*it was edited"):
        open_run(copy)


def test_a_swap_of_tokens_is_found(copy):
    path = copy / "tokenizer" / "tokenizer.json"
    told = json.loads(path.read_text())
    vocab = told["model"]["vocab"]
    one, other = list(vocab)[10:12]
    vocab[one], vocab[other] = vocab[other], vocab[one]
    path.write_text(json.dumps(told))
    with pytest.raises(ValueError, match="tokenizer.json is damaged or was changed"):
        open_run(copy)
    without_hashes(copy)
    with (
        pytest.warns(UncheckedWarning),
        pytest.raises(ValueError, match="tokenizer is not the tokenizer .* hash of"),
    ):
        open_run(copy)


def without_hashes(run):
    """Make a run one of the first format."""
    for path in run.rglob("checksums.json"):
        path.unlink()
    told = json.loads((run / "run.json").read_text())
    del told["sha256"], told["format"]
    (run / "run.json").write_text(json.dumps(told))


def test_a_run_of_an_earlier_version_is_opened_with_a_warning(
    settings, copy, same_bits
):
    without_hashes(copy)
    with pytest.warns(UncheckedWarning, match="run.json was written without hashes"):
        run = open_run(copy)
    assert run.recipe == settings["recipe"]
    with pytest.warns(UncheckedWarning, match="written without hashes"):
        assert same_bits(run.start, settings["params"])
    with pytest.warns(UncheckedWarning):
        assert create_run(copy, **settings).records == RECORDS
    with pytest.warns(UncheckedWarning, match="run.json was written without hashes"):
        check_model(run, settings["params"])


def test_another_model_of_the_same_shapes_is_refused(settings, copy):
    run = open_run(copy)
    with pytest.raises(ValueError, match="has not come to its end"):
        check_model(run, settings["params"])
    finish_run(copy, settings["params"])
    check_model(run, settings["params"])
    other = jax.tree.map(lambda x: x.at[(0,) * x.ndim].add(1), settings["params"])
    with pytest.raises(ValueError, match="is not the one that .* ended with"):
        check_model(run, other)


def test_every_flipped_bit_is_found_and_named(copy):
    rng = np.random.default_rng(0)
    for path in sorted(copy.rglob("*")):
        if not path.is_file():
            continue
        whole = path.read_bytes()
        for bit in rng.integers(0, 8 * len(whole), 6):
            flipped = bytearray(whole)
            flipped[bit // 8] ^= 1 << int(bit) % 8
            path.write_bytes(flipped)
            with pytest.raises(ValueError, match=re.escape(str(copy))):
                open_run(copy).start  # noqa: B018
        path.write_bytes(whole)
    assert open_run(copy).records == RECORDS
