import copy
import json

import numpy as np
import pytest

from jaxunlearn.evaluation.answer_log import AnswerLog, answer_scores
from jaxunlearn.evaluation.logs import read_logs, write_open_unlearning

# Published with the logs of these two models (model utility in both of its forms, then
# truth ratio, probability and ROUGE-L recall on the forget set).
PUBLISHED = {
    "full": (0.62267737, 0.58588604, 0.51598542, 0.99093856, 0.98544969),
    "retain90": (0.61374500, 0.57523992, 0.67401927, 0.14756281, 0.40824362),
}
NAMES = (
    "model_utility",
    "model_utility_arithmetic",
    "forget_truth_ratio",
    "forget_probability",
    "forget_rouge",
)


@pytest.fixture(scope="session")
def published(data_dir):
    """The two models' logs, as they are on disk."""
    return {
        name: data_dir / f"tofu_logs/llama2-7b_{name}_wd0.01.json" for name in PUBLISHED
    }


@pytest.fixture(scope="session")
def logs(published):
    return {name: read_logs(path) for name, path in published.items()}


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_the_published_scores_come_out(logs, name):
    found = answer_scores(logs[name], resamples=0).values
    np.testing.assert_allclose(
        [found[score] for score in NAMES], PUBLISHED[name], rtol=0, atol=1e-8
    )


def test_the_published_forget_quality_comes_out(logs):
    found = answer_scores(logs["full"], logs["retain90"], resamples=0).values
    assert found["forget_quality_statistic"] == pytest.approx(0.3966667, abs=1e-7)
    assert found["forget_quality"] == pytest.approx(1.834066e-21, rel=1e-6)


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_every_published_recall_comes_out(published, logs, name):
    raw = json.loads(published[name].read_text())
    count = 0
    for log, block in zip(logs[name].values(), raw.values(), strict=True):
        for column, stored in (
            (log.rouge_recall, "rougeL_recall"),
            (log.rouge1_recall, "rouge1_recall"),
        ):
            np.testing.assert_allclose(
                column, list(block[stored].values()), rtol=0, atol=1e-6
            )
            count += len(column)
    assert count == 2 * 817


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_the_truth_ratios_are_the_stored_ones(published, logs, name):
    from jaxunlearn.evaluation.answer_log import ratios_of

    raw = json.loads(published[name].read_text())
    for (kind, log), block in zip(logs[name].items(), raw.values(), strict=True):
        np.testing.assert_allclose(
            ratios_of(log, kind), list(block["truth_ratio"].values()), rtol=2e-6
        )


# --- a small log in TOFU's layout ---------------------------------------------------


def tofu_block(n=4):
    draws = np.random.default_rng(n)
    ids = [str(3 * i) for i in range(n)]
    columns = {
        "avg_gt_loss": draws.exponential(size=n).tolist(),
        "num_token_gt": [5 + i for i in range(n)],
        "avg_paraphrased_loss": draws.exponential(size=n).tolist(),
        "average_perturb_loss": draws.exponential(size=(n, 3)).tolist(),
        "rougeL_recall": [1.0] * n,
        "generated_text": [[f"q{i}", f"an answer {i}", f"answer {i}"] for i in ids],
    }
    return {k: dict(zip(ids, v, strict=True)) for k, v in columns.items()}


@pytest.fixture
def small_log():
    return {
        "eval_log_forget.json": tofu_block(4),
        "eval_log.json": tofu_block(5),
        "eval_real_author_wo_options.json": tofu_block(3),
        "eval_real_world_wo_options.json": tofu_block(2),
    }


@pytest.fixture
def read(tmp_path):
    def write_and_read(value, name="log.json"):
        text = value if isinstance(value, str) else json.dumps(value)
        (tmp_path / name).write_text(text)
        return read_logs(tmp_path / name)

    return write_and_read


def scores_of(logs):
    return answer_scores(logs, resamples=0).values


def test_lists_in_place_of_objects_are_the_same_log(small_log, read):
    lists = {
        name: {k: list(v.values()) for k, v in block.items()}
        for name, block in small_log.items()
    }
    assert scores_of(read(lists)) == scores_of(read(small_log))


def test_one_file_of_a_log_is_read_by_its_name(small_log, read):
    name = "eval_log_forget.json"
    alone = scores_of(read(small_log[name], name))
    both = scores_of(read(small_log))
    assert alone == {k: v for k, v in both.items() if k.startswith("forget")}


def test_open_unlearnings_layout_goes_out_and_comes_in(small_log, read, tmp_path):
    logs = read(small_log)
    scores = answer_scores(logs, logs, resamples=0).values
    write_open_unlearning(tmp_path / "TOFU_EVAL.json", logs, scores)
    found = read_logs(tmp_path / "TOFU_EVAL.json")
    again = answer_scores(found, found, resamples=0).values
    lost = {k for k in scores if k not in again}
    assert {k.split("_", 1)[1] for k in lost} <= {"perplexity", "facts_perplexity"} | {
        "authors_perplexity"
    }
    for name, value in again.items():
        assert value == pytest.approx(scores[name], rel=1e-12), name
    raw = json.loads((tmp_path / "TOFU_EVAL.json").read_text())
    assert raw["forget_truth_ratio"]["agg_value"] == scores["forget_truth_ratio"]
    assert set(raw["ra_Q_A_PERT_Prob"]["value_by_index"]["0"]) == {"prob", "avg_loss"}
    assert len(raw["ra_Q_A_PERT_Prob"]["value_by_index"]["0"]["prob"]) == 3


def test_ratios_alone_give_forget_quality(read):
    scores = {str(i): {"score": 0.1 * i} for i in range(5)}
    scores["5"] = None  # what that framework writes where nothing was measured
    logs = read({"forget_truth_ratio": {"agg_value": 1, "value_by_index": scores}})
    found = answer_scores(logs, logs, resamples=0)
    assert found.values["forget_quality"] == 1
    assert len(logs["forget"].index) == 5


def change(block, statistic, value):
    block = copy.deepcopy(block)
    block["eval_log_forget.json"][statistic]["3"] = value
    return block


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda x: json.dumps(x)[:-30], "cut short"),
        (lambda _: "[1]", "an object"),
        (lambda _: {"a": 1}, "found a; accepted"),
        (lambda x: change(x, "avg_gt_loss", None), "avg_gt_loss|loss"),
        (lambda x: change(x, "avg_gt_loss", float("nan")), "no finite number"),
        (
            lambda x: change(x, "average_perturb_loss", "x"),
            "wrong answers of question 3",
        ),
        (lambda x: change(x, "rougeL_recall", 0.5), "question 3: 1.000000, stored 0.5"),
        (lambda x: change(x, "generated_text", ["q"]), "prompt, answer, truth"),
        (lambda x: {**x, "eval_log.json": {}}, "eval_log.json has no avg_gt_loss"),
        (lambda x: {**x, "eval_log.json": 3}, "eval_log.json: an object"),
    ],
)
def test_a_damaged_log_is_refused_by_name(small_log, read, damage, message):
    with pytest.raises(ValueError, match=message):
        read(damage(small_log))


def test_columns_of_other_questions_are_refused(small_log, read):
    del small_log["eval_log_forget.json"]["num_token_gt"]["3"]
    with pytest.raises(ValueError, match=r"num_token_gt is of 3 questions"):
        read(small_log)


def test_a_missing_log_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_logs(tmp_path / "nowhere.json")


# --- what follows from a log --------------------------------------------------------


def test_what_is_missing_is_said():
    found = answer_scores({"forget": AnswerLog(("0",), loss=np.array([1.0]))})
    assert found.values["forget_loss"] == 1
    assert "paraphrased_answer" in found.missing["forget_quality"]
    assert found.missing["model_utility"].startswith("needs of retain probability")


def test_a_reference_is_never_made_up(small_log, read):
    logs = read(small_log)
    found = answer_scores(logs, resamples=0)
    assert "forget_quality" not in found.values
    assert "without the forget set" in found.missing["forget_quality"]
    missing = answer_scores(logs, {"retain": logs["retain"]}, resamples=0).missing
    assert "the reference's logs" in missing["forget_quality"]


def test_perplexity_is_over_tokens_not_questions():
    log = AnswerLog(("0", "1"), loss=np.array([1.0, 2.0]), tokens=np.array([3.0, 1.0]))
    found = answer_scores({"retain": log}, resamples=0).values
    assert found["retain_perplexity"] == pytest.approx(np.exp(5 / 4))
    assert found["retain_loss"] == 1.5


def test_intervals_hold_their_values(small_log, read):
    found = answer_scores(read(small_log), resamples=200)
    assert "model_utility" in found.intervals
    for name, interval in found.intervals.items():
        assert interval.value == found.values[name]
        assert interval.low <= interval.value <= interval.high
