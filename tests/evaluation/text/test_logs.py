import copy
import json
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxunlearn.evaluation.text.answer_log import AnswerLog, answer_scores
from jaxunlearn.evaluation.text.logs import (
    read_logs,
    read_stated,
    write_open_unlearning,
)

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
    from jaxunlearn.evaluation.text.answer_log import ratios_of

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
    assert found.counts["forget_quality"] == (5, 1)
    assert found.counts["forget_truth_ratio"] == (5, 1)


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
        (lambda x: change(x, "avg_gt_loss", float("nan")), "3: nan is no finite num"),
        (lambda x: change(x, "avg_gt_loss", -math.inf), "3: -inf is no finite number"),
        (lambda x: change(x, "avg_gt_loss", -0.5), "question 3: -0.5 does not lie"),
        (lambda x: change(x, "avg_gt_loss", True), "loss of question 3: True where"),
        (lambda x: change(x, "num_token_gt", 10**400), "question 3: 1000.*any float"),
        (lambda x: change(x, "num_token_gt", math.inf), "tokens of question 3: inf"),
        (lambda x: change(x, "average_perturb_loss", []), "question 3: an empty list"),
        (lambda x: change(x, "rougeL_recall", 1.5), "question 3: 1.5 does not lie"),
        (lambda x: change(x, "generated_text", [1, 2, 3]), "question 3 is to be"),
        (lambda _: '{"a": 1, "a": 2}', "'a' stands twice"),
        (lambda _: "[" * 100_000, "nested too deeply"),
        (lambda _: '{"forget_Q_A_Prob": {"value_by_index": []}}', "Prob: value_by_ind"),
        (
            lambda _: '{"forget_Q_A_Prob": {"value_by_index": {"7": 3}}}',
            "forget_Q_A_Prob, question 7: 3 where",
        ),
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


# --- what was not measured, and what is impossible -----------------------------------


def open_log(n=6):
    """A log in OpenUnlearning's layout; text and values of questions by number."""
    draws = np.random.default_rng(n)

    def metric(entry):
        return {
            "agg_value": 0.0,
            "value_by_index": {str(i): entry(i) for i in range(n)},
        }

    def loss(_):
        x = float(draws.exponential())
        return {"prob": math.exp(-x), "avg_loss": x}

    def losses(_):
        x = draws.exponential(size=3)
        return {"prob": np.exp(-x).tolist(), "avg_loss": x.tolist()}

    def rouge(i):
        texts = {"input": f"q{i}", "ground_truth": f"boat {i}", "generation": f"{i}"}
        return {"rouge1_recall": 0.5, "rougeL_f1": 2 / 3, "rougeL_recall": 0.5, **texts}

    found = {}
    for prefix in ("forget", "retain", "ra", "wf"):
        found[f"{prefix}_Q_A_Prob"] = metric(loss)
        found[f"{prefix}_Q_A_PERT_Prob"] = metric(losses)
        found[f"{prefix}_Q_A_ROUGE"] = metric(rouge)
    for prefix in ("forget", "retain"):
        found[f"{prefix}_Q_A_PARA_Prob"] = metric(loss)
    return found


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(
    ("metric", "field", "touched"),
    [
        ("forget_Q_A_ROUGE", "rougeL_recall", {"rouge", "rouge_f1", "rouge1"}),
        ("forget_Q_A_Prob", "avg_loss", {"loss", "probability"}),
        (
            "forget_Q_A_PARA_Prob",
            "avg_loss",
            {
                *("paraphrased_probability", "truth_ratio", "truth_share"),
                "truth_ratio_arithmetic",
            },
        ),
    ],
)
def test_a_null_leaves_every_other_metric_alone(read, metric, field, touched, whole):
    log = open_log()
    full = answer_scores(read(log), resamples=0)
    entry = log[metric]["value_by_index"]
    if whole:
        entry["2"] = None
    else:
        entry["2"] = {k: None for k in entry["2"]}
    found = answer_scores(read(log), resamples=0)
    for name, value in full.values.items():
        of_forget = name.removeprefix("forget_")
        if of_forget in touched and name.startswith("forget_"):
            assert found.counts[name] == (5, 1)
        else:
            assert found.values[name] == value, name
            assert name not in found.counts or found.counts[name][1] == 0
    kept = [entry[i][field] for i in "01345"]
    if metric == "forget_Q_A_Prob":
        assert found.values["forget_loss"] == pytest.approx(np.mean(kept))
        assert found.values["forget_probability"] == pytest.approx(
            np.exp(-np.array(kept)).mean()
        )


def test_a_null_in_tofus_layout_is_left_out_of_its_statistic_alone(small_log, read):
    full = answer_scores(read(small_log), resamples=20)
    block = small_log["eval_log.json"]
    for statistic, score in (
        ("avg_gt_loss", "loss"),
        ("avg_paraphrased_loss", "truth_ratio"),
        ("generated_text", "rouge_f1"),  # the recall of that question is stored
    ):
        found = answer_scores(
            read(change_of(small_log, "eval_log.json", statistic, None)), resamples=20
        )
        assert found.counts[f"retain_{score}"] == (len(block["avg_gt_loss"]) - 1, 1)
        assert "model_utility" in found.intervals
        for name in ("forget_loss", "forget_rouge", "world_facts_truth_ratio"):
            assert found.values[name] == full.values[name]


def change_of(log, name, statistic, value):
    log = copy.deepcopy(log)
    log[name][statistic]["3"] = value
    return log


def test_what_no_question_has_is_missing_and_said(read):
    log = open_log(2)
    for entry in log["forget_Q_A_Prob"]["value_by_index"].values():
        entry["avg_loss"] = entry["prob"] = None
    found = answer_scores(read(log), resamples=5)
    assert "forget_loss" not in found.values
    found = answer_scores(
        {"forget": AnswerLog(("0", "1"), loss=np.full(2, np.nan))}, resamples=5
    )
    assert found.missing["forget_loss"] == "none of 2 questions has a value"
    assert found.counts["forget_loss"] == (0, 2)


def test_a_log_of_muse_is_read(read, tmp_path):
    texts = {"input": "Q", "ground_truth": "a b", "generation": "a c"}
    every = {"rouge1_recall": 0.5, "rougeL_f1": 0.5, "rougeL_recall": 0.5, **texts}
    log = {
        "forget_knowmem_ROUGE": {"agg_value": 0.5, "value_by_index": {"0": every}},
        "forget_verbmem_ROUGE": {
            "agg_value": 0.2,
            "value_by_index": {"0": {"rougeL_f1": 0.1}, "1": {"rougeL_f1": 0.3}},
        },
        "retain_knowmem_ROUGE": {
            "agg_value": 0.5,
            "value_by_index": {"0": {"rougeL_f1": 0.5}, "1": None},
        },
        "extraction_strength": {
            "agg_value": 0,
            "value_by_index": {"0": {"score": 0.4}},
        },
        "privleak": {"agg_value": -99.8},
        "mia_min_k": {"auc": 0.9, "agg_value": 0.9},
    }
    logs = read(log)
    found = answer_scores(logs, resamples=0)
    assert found.values["forget_knowmem_rouge_f1"] == 0.5
    assert found.values["forget_verbmem_rouge_f1"] == 0.2
    assert found.values["retain_knowmem_rouge_f1"] == 0.5
    assert found.counts["retain_knowmem_rouge_f1"] == (1, 1)
    assert found.values["forget_extraction_strength"] == 0.4
    stated = read_stated(tmp_path / "log.json")
    assert stated == {"privleak": -99.8, "mia_min_k_auc": 0.9}
    write_open_unlearning(tmp_path / "again.json", logs, found.values)
    again = answer_scores(read_logs(tmp_path / "again.json"), resamples=0)
    assert again.values == found.values
    with pytest.raises(ValueError, match="needs the answers"):
        read_logs(tmp_path / "log.json", words="unicode")


def collapsed(log):
    """The log of a model that gives every answer a probability of 0."""
    for name, metric in log.items():
        for entry in metric["value_by_index"].values():
            if name.endswith("PERT_Prob"):
                entry |= {"prob": [0.0] * 3, "avg_loss": [math.inf] * 3}
            elif name.endswith("Prob"):
                entry |= {"prob": 0.0, "avg_loss": math.inf}
    return log


@pytest.mark.parametrize("strict", [False, True])
def test_a_collapsed_model_is_measured(read, tmp_path, strict):
    log = collapsed(open_log())
    if strict:  # a writer without Infinity: null beside the probability 0
        log = json.loads(json.dumps(log).replace("Infinity", "null"))
    logs = read(log)
    found = answer_scores(logs, logs, resamples=20)
    assert found.values["forget_probability"] == 0
    assert found.values["retain_probability"] == 0
    assert found.values["real_authors_probability"] == 0
    assert found.values["forget_loss"] == math.inf
    assert "6 of 6 answers" in found.notes["forget_loss"]
    assert found.values["model_utility"] == 0
    assert found.values["model_utility_arithmetic"] == 0
    assert found.values["forget_truth_ratio"] == 1  # it tells nothing from anything
    assert found.values["retain_truth_ratio"] == 0
    assert found.values["forget_quality"] == 1
    assert found.counts["forget_probability"] == (6, 0)
    write_open_unlearning(tmp_path / "again.json", logs, found.values)
    assert "Infinity" not in (tmp_path / "again.json").read_text()
    again = answer_scores(read_logs(tmp_path / "again.json"), resamples=0)
    assert again.values.items() <= found.values.items()


def test_one_impossible_answer_is_one_zero_among_others(read):
    log = open_log()
    entry = log["forget_Q_A_Prob"]["value_by_index"]
    entry["1"] = {"prob": 0.0, "avg_loss": math.inf}
    found = answer_scores(read(log), resamples=0).values
    expected = np.mean([e["prob"] for e in entry.values()])
    assert found["forget_probability"] == pytest.approx(expected)


def test_perplexity_beyond_every_number_has_a_note():
    log = AnswerLog(("0",), loss=np.array([800.0]), tokens=np.array([3.0]))
    found = answer_scores({"retain": log}, resamples=0)
    assert found.values["retain_perplexity"] == math.inf
    assert found.notes["retain_perplexity"].startswith("exp(800)")


def test_nulls_and_words_go_out_and_come_in(read, tmp_path):
    log = open_log()
    log["forget_Q_A_ROUGE"]["value_by_index"]["1"] = None
    log["forget_Q_A_PERT_Prob"]["value_by_index"]["4"] = None
    log["retain_Q_A_Prob"]["value_by_index"]["0"] = None
    logs = read(log)
    found = answer_scores(logs, resamples=0)
    write_open_unlearning(tmp_path / "again.json", logs, found.values)
    again = answer_scores(read_logs(tmp_path / "again.json"), resamples=0)
    assert again.values == pytest.approx(found.values, rel=1e-12)
    assert again.counts == found.counts


def test_answers_in_another_script_are_not_read_as_forgotten(read, tmp_path):
    text = {"input": "Где?", "ground_truth": "В Праге.", "generation": "В Праге."}
    zero = {"rouge1_recall": 0.0, "rougeL_f1": 0.0, "rougeL_recall": 0.0}
    log = {"forget_Q_A_ROUGE": {"agg_value": 0, "value_by_index": {"0": zero | text}}}
    found = answer_scores(read(log), resamples=0)
    assert "forget_rouge" not in found.values  # those words are none to OpenUnlearning
    assert found.counts["forget_rouge"] == (0, 1)
    logs = read_logs(tmp_path / "log.json", words="unicode")
    assert answer_scores(logs, resamples=0).values["forget_rouge"] == 1
    write_open_unlearning(tmp_path / "again.json", logs, {"forget_rouge": 1.0})
    theirs = json.loads((tmp_path / "again.json").read_text())["forget_Q_A_ROUGE"]
    assert theirs["value_by_index"]["0"] == zero | text


JSON_VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.just(10**400),
        st.floats(),
        st.text(max_size=3),
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["0", "prob", "avg_loss", "x"]), inner, max_size=3
        )
    ),
    max_leaves=5,
)


def places_of(value, path=()):
    """Every place in a JSON value, as keys from the top."""
    yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places_of(inner, (*path, key))


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.data())
def test_whatever_stands_in_a_log_it_is_read_or_refused_by_its_file(tmp_path, data):
    log = data.draw(st.sampled_from([open_log(2), {"eval_log.json": tofu_block(2)}]))
    log = copy.deepcopy(log)
    for _ in range(data.draw(st.integers(1, 3))):
        *way, last = data.draw(st.sampled_from(list(places_of(log))[1:]))
        inner = log
        for key in way:
            inner = inner[key]
        inner[last] = data.draw(JSON_VALUES)
    path = tmp_path / "log.json"
    path.write_text(json.dumps(log))
    refused = None
    try:
        found = answer_scores(read_logs(path), resamples=3)
    except ValueError as error:
        refused = str(error)
    if refused is not None:
        assert str(path) in refused
        return
    assert not any(math.isnan(value) for value in found.values.values())
    assert all(used > 0 for n, (used, _) in found.counts.items() if n in found.values)
