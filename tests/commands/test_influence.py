"""`jaxunlearn influence` on files, as a user runs it."""

import dataclasses
import html.parser
import json
import re
import shutil

import jax
import numpy as np
import pytest

from jaxunlearn import influence
from jaxunlearn.commands.influence_queries import ranked_queries, with_tokens
from jaxunlearn.commands.inputs import model_directory, prepare
from jaxunlearn.data import record_text
from jaxunlearn.influence import load_scores, resume
from jaxunlearn.models import load_pretrained
from jaxunlearn.provenance import data_hash, params_hash
from jaxunlearn.report.influence.facts import coverage_text
from jaxunlearn.report.influence.queries import query_influence


class Spans(html.parser.HTMLParser):
    """The texts and titles of a page's coloured tokens, example by example."""

    def __init__(self, text):
        super().__init__()
        self.examples, self.inside = [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag == "div" and attrs.get("class") == "text":
            self.examples.append([])
            self.inside = True
        elif tag == "span" and self.inside:
            self.examples[-1].append(attrs["title"])

    def handle_endtag(self, tag):
        self.inside = self.inside and tag != "div"


def number(title):
    return float(title.replace("−", "-").replace(",", ""))


def score(cli, tiny, out, *options):
    return cli(
        *("influence", "--model", tiny.model, "--train", tiny.train),
        *("--query", tiny.query, "--out", out, "--batch-size", 3, *options),
    )


@pytest.fixture(scope="module")
def inputs(tiny, loaded):
    found = prepare(
        model=str(tiny.model),
        train=str(tiny.train),
        query=str(tiny.query),
        layers=None,
        batch_size=3,
        max_length=None,
    )
    return found._replace(model=loaded[0], params=loaded[1])


@pytest.fixture(scope="module")
def truth(inputs):
    """What the library gives for the same, gradient_dot."""
    loss, train, query = inputs.model.per_example_loss, inputs.train, inputs.query
    return influence.scores(
        loss,
        inputs.params,
        list(train),
        list(query),
        keep_directions=True,
        method="gradient_dot",
    )


def kill(*arguments, **options):
    raise KeyboardInterrupt


def test_killed_and_run_again_it_gives_scores_texts_and_page(
    cli, tiny, inputs, truth, load_once, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(resume, "GROUP", 1)
    out, page = tmp_path / "new" / "scores.npz", tmp_path / "page.html"
    options = ("--method", "gradient_dot", "--top", 2, "--tokens", 1, "--page", page)
    with monkeypatch.context() as patch:
        patch.setattr(influence, "save_scores", kill)
        assert score(cli, tiny, out, *options) == 130
    parts = out.with_name("scores.npz.parts")
    kept = sorted(path.name for path in parts.iterdir())
    assert kept == [*(f"products-{i:06d}.npz" for i in range(3)), "run.json"]
    assert score(cli, tiny, out, *options, "--layers", "wte") == 2
    assert "its layers differ" in capsys.readouterr().err

    assert score(cli, tiny, out, *options) == 0
    assert [path.name for path in out.parent.iterdir()] == ["scores.npz"]
    found = load_scores(out)
    np.testing.assert_array_equal(found.scores, truth.scores)
    assert found.index.tolist() == list(range(7))
    told = found.provenance
    assert told["train_sha256"] == data_hash(tiny.records["train"])
    assert told["query_sha256"] == data_hash(tiny.records["query"])
    assert told["model_sha256"] == params_hash(inputs.params)
    assert told["options"]["method"] == "gradient_dot"
    assert "jax" in told["versions"]
    printed = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert "Taking up the " in printed
    told = f"Coverage: {coverage_text(found.coverage)} Query 0: "
    assert told in printed
    best = int(found.scores[0].argmax())
    assert f"proponent {found.scores[0, best]:+.4g} {best} Question" in printed
    assert "Query 1: Question: What colour is boat 1?" in printed

    text = page.read_text(encoding="utf-8")
    assert "\U0001f6a4" in text  # of the query
    shown = Spans(text).examples
    ends = [(row.max(), row.argmax()) for row in found.scores]
    ends += [(row.min(), row.argmin()) for row in found.scores if row.min() < 0]
    assert len(shown) == len(ends)
    for titles in shown:
        total = sum(map(number, titles))
        value, index = min(ends, key=lambda end: abs(end[0] - total))
        assert total == pytest.approx(value, rel=1e-2)
        assert len(titles) == len(inputs.train.data.examples[index].input_ids)


def test_options_reach_the_library(cli, tiny, tmp_path, monkeypatch):
    seen = {}

    def capture(*arguments, **options):
        seen.update(options)
        kill()

    monkeypatch.setattr(influence, "scores", capture)
    status = score(
        *(cli, tiny, tmp_path / "s.npz", "--method", "influence_cg"),
        *("--damping-share", 0.5, "--curvature", "hessian", "--max-steps", 7),
        *("--aggregate", "mean", "--seed", 4, "--layers", "wte"),
    )
    assert status == 130
    assert seen["damping"] == ("mean_eigenvalue", 0.5)
    assert seen["key"] == jax.random.key(4)
    wanted = {"method": "cg", "curvature": "hessian", "max_steps": 7}
    wanted |= {"aggregate": "mean", "layers": "wte", "state": tmp_path / "s.npz.parts"}
    assert {name: seen[name] for name in wanted} == wanted
    score(cli, tiny, tmp_path / "s.npz", "--method", "trak", "--damping", 2)
    assert (seen["state"], seen["keep_directions"], seen["damping"]) == (None, False, 2)
    assert seen["key"] is seen["rank"] is None
    score(cli, tiny, tmp_path / "s.npz", "--method", "lanczos", "--rank", 3)
    assert (seen["rank"], seen["key"]) == (3, jax.random.key(0))
    page = ("--page", tmp_path / "page.html")
    for words, kept in (((), False), (page, True), ((*page, "--tokens", 0), False)):
        score(cli, tiny, tmp_path / "s.npz", *words)
        assert seen["keep_directions"] is kept


def test_rankings_go_by_sign(inputs, truth):
    queries = ranked_queries(truth, inputs, 3, None)
    for query, row in zip(queries, truth.scores, strict=True):
        for examples, order in (
            (query.proponents, np.argsort(-row)[:3]),
            (query.opponents, np.argsort(row)[:3]),
        ):
            sign = 1 if examples is query.proponents else -1
            kept = [i for i in order if row[i] * sign > 0]
            assert [e.index for e in examples] == kept
            texts = [record_text(inputs.train_records[i]) for i in kept]
            assert [e.text for e in examples] == texts
    mean = dataclasses.replace(truth, scores=truth.scores.mean(0, keepdims=True))
    (query,) = ranked_queries(mean, inputs, 1, "mean")
    assert query.text.startswith("(the mean of 2 queries)")
    itself = dataclasses.replace(mean, method="self_influence")
    assert "itself" in ranked_queries(itself, inputs, 1, None)[0].text
    broken = dataclasses.replace(truth, scores=truth.scores * np.nan, notes=("why",))
    with pytest.raises(ValueError, match=r"7 scores of query 0 .* why"):
        ranked_queries(broken, inputs, 1, None)


def test_token_shares_add_up_to_the_score_they_are_of(inputs, truth):
    best = int(truth.scores[1].argmax())
    score = float(truth.scores[1, best])
    for method, value in (("gradient_dot", score), ("cosine", 0.125)):
        found = dataclasses.replace(truth, method=method)
        query = query_influence("q", [(best, value)], [], inputs.train_records)
        (marked,) = with_tokens([query, query], found, inputs, 1)[1].proponents
        assert "".join(t for t, _ in marked.tokens) == marked.text + "<|endoftext|>"
        assert sum(v for _, v in marked.tokens) == pytest.approx(value, rel=1e-4)


@pytest.mark.slow
def test_tracin_goes_over_the_epochs_of_a_run(cli, tiny, tmp_path, monkeypatch):
    run, seen = tmp_path / "run", {}
    status = cli(
        *("train", "--model", tiny.model, "--data", tiny.train, "--out", run),
        *("--epochs", 2, "--batch-size", 4, "--learning-rate", "1e-2"),
        *("--schedule", "linear", "--dropout", 0),
    )
    assert status == 0

    def capture(*arguments, **options):
        seen.update(options)
        kill()

    monkeypatch.setattr(influence, "scores", capture)
    words = ("--train", tiny.train, "--query", tiny.query, "--method", "tracin")
    out = ("--out", tmp_path / "s.npz")
    assert cli("influence", "--model", run / "model", *words, *out) == 130
    first, last = seen["checkpoints"]
    _, params = load_pretrained(run / "model")
    jax.tree.map(np.testing.assert_array_equal, last.params, params)
    # Two steps an epoch at a rate that falls from 0.01 to 0 in four.
    rates = (first.learning_rate, last.learning_rate)
    assert rates == pytest.approx((0.00875, 0.00375), rel=1e-5)
    _, start = load_pretrained(tiny.model)
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), first.params, start)
    assert all(change > 0 for change in jax.tree.leaves(moved))


def test_a_run_directory_stands_for_its_model(tmp_path):
    run = tmp_path / "run"
    (run / "model").mkdir(parents=True)
    assert model_directory(str(run / "model")) == (run / "model", None)
    (run / "run.json").write_text("{}")
    (run / "model" / "config.json").write_text("{}")
    assert model_directory(str(run)) == (run / "model", run)
    assert model_directory(str(run / "model")) == (run / "model", run)


def broken_model(tiny, folder):
    from safetensors.numpy import load_file, save_file

    shutil.copytree(tiny.model, folder, ignore=shutil.ignore_patterns("checksums.json"))
    weights = load_file(folder / "model.safetensors")
    weights["transformer.wpe.weight"][0, 0] = np.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def small_model(tiny, folder):
    shutil.copytree(tiny.model, folder, ignore=shutil.ignore_patterns("checksums.json"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": 270}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "nowhere/at/all"}, "nowhere/at/all"),
        ({"model": "./nowhere"}, "no such directory"),
        ({"model": "NAN"}, "wpe"),
        ({"model": "SMALL"}, "mismatched tokenizer"),
        ({"model": "RUN"}, "finish it with the same"),
        ({"train": "nowhere.jsonl"}, "nowhere.jsonl"),
        ({"train": "EMPTY"}, "empty.jsonl"),
        ({"query": "EMPTY"}, "empty.jsonl"),
        ({"query": None}, "needs --query FILE"),
        ({"method": "self_influence"}, "leave --query out"),
        ({"method": "magic_lamp"}, "one of gradient_dot, cosine"),
        ({"method": "source"}, "influence.scores(..., method='source'"),
        ({"method": "magic"}, "run=TrainingRun("),
        ({"method": "tracin"}, "method='tracin', checkpoints="),
        ({"layers": "h/7/"}, "matches no parameter"),
        ({"layers": "("}, "regular expression"),
        ({"out": "scores.json"}, "must end in .npz"),
        ({"out": "FOLDER.npz"}, "is a directory"),
        ({"out": "FILE/scores.npz"}, "--out"),
        ({"page": "page.txt"}, "must end in .html"),
        ({"damping": -1, "method": "ekfac"}, "--damping -1"),
        ({"damping": "nan", "method": "ekfac"}, "--damping nan"),
        ({"damping": 0.1}, "--damping does not go with --method"),
        ({"rank": 3, "method": "cg"}, "--rank does not go with --method cg"),
        ({"seed": 3, "method": "ekfac"}, "--seed does not go with --method ekfac"),
        ({"damping": 1, "damping-share": 1, "method": "cg"}, "one of --damping and"),
        ({"batch-size": 0}, "--batch-size 0"),
        ({"max-length": 65}, "2 to 64"),
        ({"max-length": 3}, "leaves nothing to learn"),
        ({"top": 0}, "--top 0"),
        ({"tokens": -1}, "--tokens -1"),
    ],
)
def test_bad_input_is_one_line_that_says_what_to_do(
    cli, tiny, tmp_path, capsys, options, message
):
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "FILE").write_text("")
    (tmp_path / "FOLDER.npz").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    names = {
        "EMPTY": tmp_path / "empty.jsonl",
        "NAN": tmp_path / "nan",
        "SMALL": tmp_path / "small",
        "RUN": tmp_path / "run",
    }
    if options.get("model") == "NAN":
        broken_model(tiny, names["NAN"])
    if options.get("model") == "SMALL":
        small_model(tiny, names["SMALL"])
    given = {
        "model": tiny.model,
        "train": tiny.train,
        "query": tiny.query,
        "method": "gradient_dot",
        **options,
        "out": tmp_path / options.get("out", "scores.npz"),
    }
    if "page" in options:
        given["page"] = tmp_path / options["page"]
    arguments = [
        word
        for name, value in given.items()
        if value is not None
        for word in (f"--{name}", names.get(value, value))
    ]
    assert cli("influence", *arguments) == 2
    told = capsys.readouterr().err
    assert told.startswith("jaxunlearn: error: ")
    assert message in told
    assert not (tmp_path / "scores.npz").exists()
    assert not (tmp_path / "scores.npz.parts").exists()
