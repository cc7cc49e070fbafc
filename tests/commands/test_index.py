"""`jaxunlearn index build` and `index query` on files, as a user runs them."""

import json
import re
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxunlearn.data import batches, record_text
from jaxunlearn.influence import load_scores, open_index, projected_gradients
from jaxunlearn.influence.index.reading import read_rows
from jaxunlearn.report.influence.facts import coverage_text
from jaxunlearn.sealed import write_sealed

LAYERS = "mlp|wpe"


def build(cli, tiny, out, *options):
    return cli(
        *("index", "build", "--model", tiny.model, "--train", tiny.train),
        *("--out", out, "--batch-size", 4, *options),
    )


def query(cli, tiny, index, *options):
    return cli(
        *("index", "query", "--index", index, "--model", tiny.model),
        *("--train", tiny.train, "--query", tiny.query, *options),
    )


@pytest.fixture(scope="module")
def built(tiny, tmp_path_factory):
    from jaxunlearn.cli import main

    out = tmp_path_factory.mktemp("built") / "index"

    def cli(*arguments):
        with pytest.raises(SystemExit) as status:
            main([str(argument) for argument in arguments])
        return status.value.code

    options = ("--dimensions", 3, 2, "--dtype", "float32", "--layers", LAYERS)
    assert build(cli, tiny, out, *options) == 0
    return out


def test_scores_are_products_of_projected_gradients(
    cli, tiny, built, loaded, load_once, tmp_path, capsys
):
    held = open_index(built, model_hash=None)
    assert (held.rows, held.complete) == (7, True)
    assert held.about == {"layers": LAYERS, "max_length": None}
    out, page = tmp_path / "scores.npz", tmp_path / "page.html"
    options = ("--no-precondition", "--out", out, "--page", page, "--top", 1)
    assert query(cli, tiny, built, *options) == 0
    found = load_scores(out)
    model, params = loaded
    asked = batches(tiny.records["query"], tiny.tokenizer, batch_size=2, max_length=64)
    given = (model.per_example_loss, params, list(asked), held.projection)
    asked = np.asarray(projected_gradients(*given, layers=LAYERS))
    rows = asked, read_rows(held, range(7))
    # The first query is the first training record.
    np.testing.assert_allclose(rows[1][0], asked[0], atol=1e-5 * np.abs(asked).max())
    expected = rows[0] @ rows[1].T
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found.scores, expected, atol=1e-4 * scale)
    assert found.index.tolist() == list(range(7))
    assert 0 < found.coverage["parameters"] < found.coverage["of"]
    best = int(expected[1].argmax())
    text = record_text(tiny.records["train"][best])
    assert text.splitlines()[0] in page.read_text(encoding="utf-8")
    printed = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert f"{found.scores[1, best]:+.4g} {best} {' '.join(text.split())}" in printed
    assert f"Coverage: {coverage_text(found.coverage)} Query 0: " in printed

    # The damped inverse: (F + d I)^-1 in each layer's block, d a tenth of F's mean.
    assert query(cli, tiny, built, "--damping-share", 0.1, "--out", out) == 0
    total = 0.0
    for block in held.layout:
        part = slice(block.offset, block.offset + block.size)
        left, right = (r[:, part].astype(np.float64) for r in rows)
        fisher = right.T @ right / len(right)
        damped = fisher + 0.1 * np.trace(fisher) / block.size * np.eye(block.size)
        if fisher.any():
            total = total + left @ np.linalg.solve(damped, right.T)
    found = load_scores(out)
    np.testing.assert_allclose(found.scores, total, atol=1e-3 * np.abs(total).max())
    assert "mean eigenvalue" in found.damping


def test_building_again_goes_on_and_other_layers_are_refused(cli, tiny, built, capsys):
    options = ("--dimensions", 3, 2, "--dtype", "float32")
    before = (built / "index.json").read_bytes()
    assert build(cli, tiny, built, *options, "--layers", "mlp") == 2
    assert "about is" in capsys.readouterr().err
    assert (built / "index.json").read_bytes() == before


def other_model(tiny, folder):
    shutil.copytree(tiny.model, folder, ignore=shutil.ignore_patterns("checksums.json"))
    weights = load_file(folder / "model.safetensors")
    weights["transformer.wpe.weight"][0, 0] += 1
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def unfinished(built, folder):
    shutil.copytree(built, folder)
    held = json.loads((folder / "index.json").read_text())
    del held["sha256"]
    write_sealed(folder / "index.json", held | {"complete": False})
    return folder


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"index": "nowhere"}, "build an index there first"),
        ({"index": "UNFINISHED"}, "unfinished build"),
        ({"model": "OTHER"}, "its model_hash is"),
        ({"model": "./nowhere"}, "no such directory"),
        ({"train": "QUERY"}, "not the data that"),
        ({"query": "nowhere.jsonl"}, "nowhere.jsonl"),
        ({"top": 0}, "--top 0"),
        ({"damping-share": -1}, "--damping-share -1"),
        ({"out": "scores.csv"}, "must end in .npz"),
        ({"page": "page.pdf"}, "must end in .html"),
    ],
)
def test_queries_that_do_not_fit_are_refused(
    cli, tiny, built, tmp_path, capsys, options, message
):
    make = {
        "OTHER": lambda: other_model(tiny, tmp_path / "other"),
        "UNFINISHED": lambda: unfinished(built, tmp_path / "index"),
        "QUERY": lambda: tiny.query,
    }
    given = {"index": built, "model": tiny.model, "train": tiny.train}
    given |= {"query": tiny.query} | options
    words = [
        word
        for name, value in given.items()
        for word in (f"--{name}", make[value]() if value in make else value)
    ]
    assert cli("index", "query", *words) == 2
    told = capsys.readouterr().err
    assert told.startswith("jaxunlearn: error: ")
    assert message in told


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--dimensions", 4), "kronecker takes 2"),
        (("--projection", "dense", "--dimensions", 4, 4), "dense takes 1"),
        (("--dimensions", 0, 4), "each at least 1"),
        (("--layers", "h/5/"), "matches no parameter"),
        (("--seed", -1), "--seed -1"),
        (("--max-length", 1), "2 to 64"),
    ],
)
def test_builds_that_cannot_be_are_refused(
    cli, tiny, tmp_path, capsys, options, message
):
    assert build(cli, tiny, tmp_path / "index", *options) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "index" / "index.json").exists()


def test_a_file_or_anothers_folder_is_no_place_for_an_index(
    cli, tiny, tmp_path, capsys
):
    (tmp_path / "letter.txt").write_text("mine")
    assert build(cli, tiny, tmp_path / "letter.txt") == 2
    assert "is a file: name a directory" in capsys.readouterr().err
