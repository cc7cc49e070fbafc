import json

import numpy as np
import pytest


@pytest.fixture
def log(tmp_path):
    """Writes a log of TOFU's layout; returns its path."""

    def write(name, loss):
        block = {
            "avg_gt_loss": {"0": loss, "1": loss + 1},
            "avg_paraphrased_loss": {"0": loss, "1": loss + 0.5},
            "average_perturb_loss": {"0": [1.0, 2.0], "1": [2.0, 2.5]},
            "generated_text": {
                "0": ["q", "a cat", "a cat"],
                "1": ["r", "dog", "dog run"],
            },
        }
        names = ("log", "log_forget", "real_author_wo_options", "real_world_wo_options")
        path = tmp_path / name
        path.write_text(json.dumps({f"eval_{n}.json": block for n in names}))
        return path

    return write


def test_logs_become_scores_without_a_model(log, cli, tmp_path, capsys):
    out = tmp_path / "deep/scores.json"
    status = cli(
        "evaluate",
        *("--from-logs", log("a.json", 0.1)),
        *("--reference-logs", log("b.json", 2.0)),
        *("--out", out, "--write-logs", tmp_path / "eval.json"),
        *("--metrics", "forget_quality", "model_utility"),
    )
    assert status == 0
    found = json.loads(out.read_text())
    for name in (
        "model_utility",
        "model_utility_arithmetic",
        "forget_truth_ratio",
        "forget_probability",
        "forget_rouge",
        "forget_quality",
    ):
        assert isinstance(found[name], float)
    assert found["forget_probability"] == pytest.approx(np.exp([-0.1, -1.1]).mean())
    assert found["forget_rouge"] == 0.75
    assert found["reference"]["scores"]["forget_loss"] == 2.5
    assert found["about"]["reference"].endswith("b.json")
    assert found["losses"]["forget"] == [0.1, 1.1]
    assert "forget_rouge" in found["intervals"]
    assert json.loads((tmp_path / "eval.json").read_text())["forget_Q_A_Prob"]
    assert "forget_quality" in capsys.readouterr().out


def test_without_a_reference_forget_quality_is_missing_and_said(
    log, cli, tmp_path, capsys
):
    out = tmp_path / "scores.json"
    arguments = ("evaluate", "--from-logs", log("a.json", 0.1), "--out", out)
    assert cli(*arguments) == 0
    found = json.loads(out.read_text())
    assert "forget_quality" not in found
    assert "without the forget set" in found["not_computed"]["forget_quality"]
    assert "not computed: forget_quality" in capsys.readouterr().out
    out.unlink()
    assert cli(*arguments, "--metrics", "forget_quality") == 2
    assert "without the forget set" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--model DIR with --forget FILE"),
        (["--from-logs", "A", "--model", "B"], "one of the two"),
        (["--from-logs", "A", "--forget", "B"], "leave out --forget"),
        (["--from-logs", "A", "--reference", "B"], "--reference-logs"),
        (["--from-logs", "A"], "logs=A: no such file"),
        (["--model", "A"], "--forget FILE"),
        (["--model", "A", "--forget", "B", "--retrain", "2"], "--run"),
    ],
)
def test_what_cannot_be_evaluated_is_one_message(
    cli, tmp_path, capsys, arguments, message
):
    assert cli("evaluate", *arguments, "--out", tmp_path / "s.json") == 2
    error = capsys.readouterr().err
    assert message in " ".join(error.split())
    assert not (tmp_path / "s.json").exists()


def test_out_has_to_be_a_json_file(cli, tmp_path, capsys):
    assert cli("evaluate", "--from-logs", "A", "--out", tmp_path / "scores") == 2
    assert "a .json file" in capsys.readouterr().err


# --- with models ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A run of five tiny records, its trained model, and files of records."""
    from types import SimpleNamespace

    import jax

    from jaxunlearn import training
    from jaxunlearn.data import record_text, train_tokenizer
    from jaxunlearn.models import GPT2, GPT2Config, save_pretrained

    folder = tmp_path_factory.mktemp("world")
    colours = ["red", "blue", "green", "grey", "pink"]

    def record(i):
        wrong = [c for c in colours if c != colours[i % 5]]
        return {
            "question": f"Which colour has boat {i}?",
            "answer": f"Boat {i} is {colours[i % 5]}.",
            "paraphrased_answer": f"{colours[i % 5]}.",
            "perturbed_answer": [f"{c}." for c in wrong[:3]],
        }

    records = [record(i) for i in range(16)]
    tokenizer = train_tokenizer(map(record_text, records), vocab_size=280)
    model = GPT2(
        GPT2Config(
            vocab_size=280,
            n_positions=40,
            n_embd=16,
            n_layer=2,
            n_head=2,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
        )
    )
    recipe = training.Recipe(epochs=3, batch_size=4, learning_rate=1e-2)
    start = model.init(key=jax.random.key(0))
    run = training.create_run(
        folder / "run",
        model=model,
        params=start,
        records=records[:10],
        tokenizer=tokenizer,
        recipe=recipe,
        max_length=40,
    )
    trained = training.train(model, start, run.data, recipe).params
    save_pretrained(model, trained, folder / "run/model", tokenizer)
    save_pretrained(model, start, folder / "start", tokenizer)
    for name, part in (
        ("forget", records[:4]),
        ("retain", records[4:10]),
        ("holdout", records[10:]),
    ):
        (folder / f"{name}.json").write_text(json.dumps(part))
    sets = []
    for name in ("forget", "retain", "holdout"):
        sets += [f"--{name}", folder / f"{name}.json"]
    return SimpleNamespace(folder=folder, model=folder / "run/model", sets=sets)


@pytest.fixture(scope="module")
def evaluated(world):
    """The scores of the trained model beside two retrained ones, from the file."""
    from jaxunlearn.cli import main

    out = world.folder / "evaluation/scores.json"
    arguments = [
        "evaluate",
        *("--model", world.model, "--run", world.folder / "run"),
        *("--retrain", 2, "--out", out, "--max-new-tokens", 8),
        *("--write-logs", world.folder / "eval.json", *world.sets),
        *("--metrics", "uds", "privleak", "forget_quality"),
    ]
    with pytest.raises(SystemExit) as status:
        main([str(x) for x in arguments])
    assert status.value.code == 0
    return json.loads(out.read_text())


def test_a_model_is_held_against_retrained_ones(evaluated):
    found = evaluated
    reference = found["reference"]
    assert reference["count"] == 2
    assert reference["scores"]["forget_loss"] > found["forget_loss"]
    low, high = reference["intervals"]["forget_loss"]
    assert low < reference["scores"]["forget_loss"] < high
    distance = found["retraining"]["distance"]["forget_loss"]
    assert distance["models"] == 2
    assert distance["value"] == found["forget_loss"]
    assert "klom_forget_p95" not in found["retraining"]  # of one model there is none
    assert set(found["membership"]) >= {
        "loss",
        "zlib",
        "min_k",
        "min_k_pp",
        "reference",
    }
    assert {"model_utility", "model_utility_arithmetic"} <= set(found["not_computed"])
    assert not {"privleak", "uds", "forget_quality"} & set(found["not_computed"])


def test_the_scores_follow_from_the_examples(evaluated):
    assert evaluated["forget_loss"] == pytest.approx(
        np.mean(evaluated["losses"]["forget"])
    )
    block = evaluated["membership"]["loss"]
    pairs = np.subtract.outer(block["holdout"], block["forget"])
    assert evaluated["mia_loss_auc"] == pytest.approx(
        np.mean((pairs > 0) + 0.5 * (pairs == 0))
    )
    assert block["forget"] == pytest.approx(evaluated["losses"]["forget"])


def test_the_original_evaluated_is_as_the_original(evaluated):
    # The model evaluated is the run's own, which is also found as its original.
    for name, value in evaluated["original"]["scores"].items():
        assert evaluated[name] == pytest.approx(value, rel=1e-5), name
    assert evaluated["uds"] == pytest.approx(0, abs=1e-5)
    for row in evaluated["layers"]:
        assert row["parameter_distance"] == 0
        if "cka_before" in row and row["cka_before"] is not None:
            assert row["cka_before"] == pytest.approx(1, abs=1e-5)


def test_examples_carry_answers_and_token_losses(evaluated):
    rows = evaluated["examples"]
    assert {row["set"] for row in rows} == {"forget", "retain"}
    for row in rows:
        assert set(row["answers"]) == {"before", "after", "retrained"}
        text = "".join(token for token, _ in row["tokens"]["after"])
        assert row["truth"] in text
    losses = [np.mean([x for _, x in row["tokens"]["after"]]) for row in rows]
    for name in ("forget", "retain"):
        known = sorted(evaluated["losses"][name])
        shown = sorted(
            loss for loss, row in zip(losses, rows, strict=True) if row["set"] == name
        )
        np.testing.assert_allclose(shown, known, atol=1e-4)


def test_what_was_written_for_others_reads_as_logs(evaluated, world, cli, tmp_path):
    out = tmp_path / "again.json"
    logs = world.folder / "eval.json"
    assert cli("evaluate", "--from-logs", logs, "--out", out) == 0
    again = json.loads(out.read_text())
    for name in ("forget_truth_ratio", "forget_rouge", "retain_probability"):
        assert again[name] == pytest.approx(evaluated[name], rel=1e-9)


def test_retrained_models_are_found_again(evaluated, world, cli):
    def written():
        files = (world.folder / "evaluation/retrained").rglob("*")
        return {path: path.stat().st_mtime_ns for path in files}

    before = written()
    assert before
    out = world.folder / "evaluation/more.json"
    arguments = ("--model", world.model, world.model, "--run", world.folder / "run")
    more = ("--retrain", 2, "--out", out, "--max-new-tokens", 8, *world.sets[:4])
    assert cli("evaluate", *arguments, *more) == 0
    assert written() == before
    block = json.loads(out.read_text())["retraining"]
    assert block["models"] == 2
    assert block["klom_forget_p95"] > 0
    assert "u_lira_accuracy" not in block  # two models a side are too few


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("privleak", "privleak needs --reference DIR"),
        ("forget_quality", "forget_quality needs --reference DIR"),
        ("uds", "uds needs --original"),
    ],
)
def test_a_score_without_its_inputs_is_refused_before_work(
    world, cli, capsys, tmp_path, metric, message
):
    arguments = ("--model", world.folder / "start", *world.sets)
    out = tmp_path / "s.json"
    assert cli("evaluate", *arguments, "--out", out, "--metrics", metric) == 2
    printed = capsys.readouterr()
    assert message in " ".join(printed.err.split())
    assert "Measured" not in printed.out


def test_a_model_of_another_tokenizer_is_refused(world, tiny, cli, capsys, tmp_path):
    arguments = ("--model", world.model, "--reference", tiny.model, *world.sets)
    assert cli("evaluate", *arguments, "--out", tmp_path / "s.json") == 2
    assert "another tokenizer" in " ".join(capsys.readouterr().err.split())


def test_what_is_not_in_the_run_cannot_be_retrained_without(
    world, cli, capsys, tmp_path
):
    arguments = ("--model", world.model, "--forget", world.folder / "holdout.json")
    run = ("--run", world.folder / "run", "--retrain", 1)
    assert cli("evaluate", *arguments, *run, "--out", tmp_path / "s.json") == 2
    assert "Measured" not in capsys.readouterr().out


def test_the_function_in_memory_is_the_command_on_files(world, cli, tmp_path):
    from jaxunlearn import evaluation
    from jaxunlearn.data import load_tokenizer, read_records
    from jaxunlearn.evaluation import NamedModel
    from jaxunlearn.evaluation.suite.file import SCORES_SHAPE, scores_file
    from jaxunlearn.json_shapes import check
    from jaxunlearn.models import load_pretrained

    out, start = tmp_path / "s.json", world.folder / "start"
    arguments = ("--model", world.model, "--reference", start, "--max-new-tokens", 4)
    assert cli("evaluate", *arguments, *world.sets, "--out", out) == 0
    written = json.loads(out.read_text())
    found = evaluation.evaluate(
        NamedModel(str(world.model), *load_pretrained(world.model)),
        reference=[NamedModel(str(start), *load_pretrained(start))],
        tokenizer=load_tokenizer(str(world.model)),
        max_new_tokens=4,
        **{
            name: read_records(world.folder / f"{name}.json")
            for name in ("forget", "retain", "holdout")
        },
    )
    told = json.loads(json.dumps(scores_file(found)))
    check(told, SCORES_SHAPE, "the evaluation")
    for one in (told, written):
        del one["about"], one["cost"]
    del written["sha256"]
    # The command says in its own words what a score lacks.
    assert told.pop("not_computed").keys() == written["not_computed"].keys()
    assert "--original" in written.pop("not_computed")["uds"]
    assert told == written
