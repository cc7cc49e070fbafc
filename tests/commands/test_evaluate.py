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
