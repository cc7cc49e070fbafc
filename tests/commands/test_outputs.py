"""What `evaluate`, `attack` and `report` refuse before they read a model."""

import json

import numpy as np
import pytest

from jaxunlearn.commands.outputs import check_output, is_form


@pytest.fixture
def files(tmp_path):
    """Records, a folder that looks like a model, and files of other people."""
    records = [{"question": f"q{i}", "answer": f"a{i}"} for i in range(5)]
    for name in ("forget", "retain", "mine"):
        (tmp_path / f"{name}.json").write_text(json.dumps(records))
    config = {"vocab_size": 9, "n_positions": 8, "n_embd": 4, "n_layer": 1, "n_head": 1}
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text(json.dumps(config))
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "link.json").symlink_to(tmp_path / "forget.json")
    (tmp_path / "file").write_text("x")
    return tmp_path


def contents(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


BAD = [
    (["--out", "X/forget.json"], "is the file of --forget"),
    (["--out", "X/link.json"], "is the file of --forget"),
    (["--out", "X/./model/../forget.json"], "is the file of --forget"),
    (["--out", "X/mine.json"], "file, or damaged: name another"),
    (["--out", "X/folder.json"], "is a directory: name a file"),
    (["--out", "X/s.txt"], "must end in .json"),
    (["--out", "X/file/s.json"], "choose another folder"),
    (["--max-length", "0"], "--max-length 0: at least 2"),
    (["--max-length", "-5"], "--max-length -5"),
    (["--max-length", "1000000000"], "must be 2 to 8, the positions"),
    (["--batch-size", "0"], "--batch-size 0: at least 1"),
    (["--batch-size", "1000000000"], "--batch-size 1000000000: at least 1 and at most"),
]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        *BAD,
        (["--metrics", "bogus"], "--metrics bogus: there is no such score"),
        (["--metrics", "forget_los"], "did you mean forget_loss"),
        (["--metrics", "retain_loss"], "retain_loss needs --retain"),
        (["--metrics", "mia_loss_auc"], "mia_loss_auc needs --holdout"),
        (["--metrics", "forget_truth_ratio"], "needs perturbed_answer in the records"),
        (["--metrics", "forget_quality"], "forget_quality needs --reference DIR"),
        (["--write-logs", "X/forget.json"], "is the file of --forget"),
        (["--write-logs", "X/s.json"], "is the file of --out"),
        (["--write-logs", "X/mine.json"], "no evaluation log file"),
        (["--examples", "-1"], "--examples -1: at least 0"),
        (["--max-new-tokens", "0"], "--max-new-tokens 0: at least 1"),
        (
            ["--retrain", "1000000", "--run", "X"],
            "--retrain 1000000: at least 0 and at most",
        ),
        (["--retrained", "X/file"], "is a file: name a directory"),
    ],
)
def test_evaluate_refuses_before_models(files, cli, capsys, arguments, message):
    told = refusal(files, cli, capsys, "evaluate", arguments)
    assert message in told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        *BAD,
        (["--attacks", "quantisation"], "did you mean quantization"),
        (["--attacks", "context"], "context needs --unrelated FILE"),
        (["--seed", str(2**70)], f"--seed {2**70}: at least 0 and at most"),
        (["--seed", "-1"], "--seed -1"),
        (["--steps", "0"], "--steps 0: at least 1"),
        (["--samples", "1000000000"], "--samples 1000000000: at least 1 and at most"),
    ],
)
def test_attack_refuses_before_models(files, cli, capsys, arguments, message):
    arguments = ["--reference", files / "model", *arguments]
    assert message in refusal(files, cli, capsys, "attack", arguments)


def refusal(files, cli, capsys, command, arguments):
    """What a command says; the model it is given has no weights and no tokenizer."""
    before = contents(files)
    given = [str(a).replace("X/", f"{files}/") for a in arguments]
    if "--out" not in given:
        given += ["--out", files / "s.json"]
    start = [command, "--model", files / "model", "--forget", files / "forget.json"]
    assert cli(*start, *given) == 2
    assert contents(files) == before
    error = capsys.readouterr().err
    assert error.count("jaxunlearn: error:") == 1
    return " ".join(error.split())


def test_report_refuses_before_it_draws(files, cli, capsys):
    for out in ("forget.json", "file"):
        assert cli("report", files / "forget.json", "--out", files / out) == 2
        assert "is a file: name a directory" in " ".join(
            capsys.readouterr().err.split()
        )


def test_what_the_command_itself_wrote_may_be_replaced(tmp_path):
    path = tmp_path / "s.json"
    for form, fine in (("jaxunlearn scores", True), ("jaxunlearn attack", False)):
        path.write_text(json.dumps({"about": {"format": form}}))
        assert is_form("jaxunlearn scores")(json.loads(path.read_text())) == fine
        if fine:
            check_output("out", path, ".json", kind="scores")
        else:
            with pytest.raises(ValueError, match="no scores file"):
                check_output("out", path, ".json", kind="scores")
    check_output("out", None, ".json", kind="scores")


# --- logs ---------------------------------------------------------------------------


@pytest.fixture
def log(tmp_path):
    """Writes a log in OpenUnlearning's layout of texts and losses of questions."""

    def write(name, texts, losses):
        scores = {"rouge1_recall": None, "rougeL_f1": None, "rougeL_recall": None}
        found = {
            "forget_Q_A_ROUGE": {
                str(i): None
                if text is None
                else scores | {"input": "q", "ground_truth": text, "generation": text}
                for i, text in enumerate(texts)
            },
            "forget_Q_A_Prob": {
                str(i): {"prob": float(np.exp(-x)), "avg_loss": x}
                for i, x in enumerate(losses)
            },
        }
        path = tmp_path / name
        path.write_text(
            json.dumps(
                {k: {"agg_value": 0, "value_by_index": v} for k, v in found.items()}
            )
        )
        return path

    return write


def strictly(path):
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


def test_counts_stand_beside_scores_and_are_told(log, cli, tmp_path, capsys):
    path = log("a.json", ["a cat", None, "dogs run"], [0.5, np.inf, 1.0])
    out, again = tmp_path / "s.json", tmp_path / "again.json"
    given = ("--from-logs", path, "--out", out, "--write-logs", again)
    assert cli("evaluate", *given) == 0
    found = strictly(out)
    assert found["forget_rouge"] == 1
    assert found["counts"]["forget_rouge"] == {"used": 2, "left_out": 1}
    assert found["counts"]["forget_probability"] == {"used": 3, "left_out": 0}
    assert found["forget_probability"] == pytest.approx(np.exp([-0.5, -1]).sum() / 3)
    assert found["forget_loss"] is None
    assert "probability of 0" in found["not_computed"]["forget_loss"]
    strictly(again)
    printed = " ".join(capsys.readouterr().out.split())
    assert "2 of 3" in printed
    assert "∞" in printed
    assert "1 of 3 questions have no value for forget_rouge" in printed
    assert cli("evaluate", *given) == 0  # its own files may be written again


def test_words_are_chosen_and_told(log, cli, tmp_path, capsys):
    path = log("a.json", ["В Праге.", "José"], [1.0, 1.0])
    out = tmp_path / "s.json"
    assert cli("evaluate", "--from-logs", path, "--out", out) == 0
    assert "2 of 2 true answers" in " ".join(capsys.readouterr().out.split())
    found = strictly(out)
    assert found["about"]["words"] == "open_unlearning"
    assert found["counts"]["forget_rouge"] == {"used": 1, "left_out": 1}
    given = ("--from-logs", path, "--out", out, "--words", "unicode")
    assert cli("evaluate", *given) == 0
    assert strictly(out)["forget_rouge"] == 1
    assert strictly(out)["counts"]["forget_rouge"] == {"used": 2, "left_out": 0}


def test_a_log_of_muse_gives_scores_and_what_it_states(cli, tmp_path, capsys):
    path, out = tmp_path / "muse.json", tmp_path / "s.json"
    values = {"0": {"rougeL_f1": 0.2}, "1": {"rougeL_f1": 0.4}}
    log = {
        "forget_verbmem_ROUGE": {"agg_value": 0.3, "value_by_index": values},
        "privleak": {"agg_value": -99.8},
    }
    path.write_text(json.dumps(log))
    assert cli("evaluate", "--from-logs", path, "--out", out) == 0
    found = strictly(out)
    assert found["forget_verbmem_rouge_f1"] == pytest.approx(0.3)
    assert found["privleak"] == -99.8
    assert "as the log states it" in found["notes"]["privleak"]
    printed = capsys.readouterr().out
    assert "forget_verbmem_rouge_f1" in printed
    given = ("--from-logs", path, "--out", out, "--metrics", "forget_verbmem_rouge")
    before = out.read_bytes()
    assert cli("evaluate", *given) == 2
    assert "did you mean forget_verbmem_rouge_f1" in capsys.readouterr().err
    assert out.read_bytes() == before
