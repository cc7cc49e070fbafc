"""Influence through training: its courses against loops, its files, its figures."""

import dataclasses
import io

import numpy as np
import pytest

from jaxunlearn.influence import InfluenceTrack, save_track
from jaxunlearn.intervals import mean_interval
from jaxunlearn.report import ComparedRun, read_runs
from jaxunlearn.report.comparison.track import (
    course,
    method_names,
    norm_rows,
    track_rows,
)
from jaxunlearn.report.comparison.track_figures import (
    norm_figure,
    score_figure,
    track_line,
)
from jaxunlearn.report.comparison.track_file import Tracked, read_track
from jaxunlearn.sealed import write_sealed

EPOCHS, RECORDS, SIZE = 3, 4, 20
SAME = ((5,), (0, 7), (), (19,))


def tracked(same=SAME, blocks=2, **changes):
    draw = np.random.default_rng(0)
    groups = ("wte", *(f"h/{i}" for i in range(blocks)), "ln_f")
    track = InfluenceTrack(
        scores={
            "gradient_dot": draw.normal(size=(EPOCHS, RECORDS, SIZE)),
            "hvp": draw.normal(size=(EPOCHS, 1, SIZE)),
        },
        losses=np.ones((EPOCHS, SIZE)),
        query_losses=np.ones((EPOCHS, RECORDS)),
        gradient_norms=np.exp(draw.normal(size=(EPOCHS, len(groups), RECORDS))),
        groups=groups,
        index=np.arange(SIZE),
        coverage={"layers": None, "parameters": 9, "of": 9},
        solvers={"gradient_dot": ({},) * EPOCHS, "hvp": ({},) * EPOCHS},
        hashes=("a", "b", "c"),
    )
    return Tracked(dataclasses.replace(track, **changes), same)


def close(line, expected):
    np.testing.assert_allclose(
        [one[:3] for one in line], [one[:3] for one in expected], rtol=1e-12
    )


@pytest.mark.parametrize("method", ["gradient_dot", "hvp"])
def test_a_course_is_that_of_a_loop_over_records(method):
    given = tracked()
    found = course(given, method)
    own, rest = [], []
    for scores in given.track.scores[method]:
        rows = np.broadcast_to(scores, (RECORDS, SIZE))
        having = [(row, list(x)) for row, x in zip(rows, SAME, strict=True) if x]
        own.append([row[x].mean() for row, x in having])
        rest.append([np.delete(row, x).mean() for row, x in having])
    close(found.own, map(mean_interval, own))
    close(found.rest, map(mean_interval, rest))
    close(found.apart, map(mean_interval, np.subtract(own, rest)))
    assert (found.own_name, found.records) == ("the same text", 3)


def test_places_are_positions_in_the_data_not_columns():
    given = tracked()
    order = np.random.default_rng(1).permutation(SIZE)
    scores = {k: v[..., order] for k, v in given.track.scores.items()}
    moved = tracked(scores=scores, index=given.track.index[order])
    close(course(moved, "gradient_dot").own, course(given, "gradient_dot").own)


@pytest.mark.parametrize("same", [None, ((),) * RECORDS])
def test_without_the_same_text_the_highest_tenth_of_the_end_is_followed(same):
    given = tracked(same)
    found = course(given, "gradient_dot")
    scores = given.track.scores["gradient_dot"]
    chosen = np.argsort(scores[-1])[:, -SIZE // 10 :]
    own = np.take_along_axis(scores, chosen[None], axis=2).mean(2)
    close(found.own, map(mean_interval, own))
    assert found.own_name == "highest tenth at the end"
    assert found.own[-1].low > found.rest[-1].high
    # What asks no query chooses once: no interval over records.
    curvature = course(given, "hvp").own
    assert all(np.isnan(one.low) and np.isfinite(one.value) for one in curvature)


def test_what_is_not_finite_is_not_counted():
    given = tracked()
    scores = given.track.scores["gradient_dot"].copy()
    scores[1, 0, 3] = np.nan
    broken = tracked(scores={"gradient_dot": scores})
    found = course(broken, "gradient_dot")
    close(found.own, course(tracked(((), *SAME[1:])), "gradient_dot").own)
    assert found.records == 2
    run = ComparedRun("x", track=broken)
    assert "2 of the records could be counted" in track_line(run, "gradient_dot")
    scores[:] = np.inf
    run = ComparedRun("x", track=tracked(scores={"gradient_dot": scores}))
    assert all(row["score"] is None for row in track_rows([run]))
    score_figure([run], "gradient_dot").savefig(io.BytesIO(), format="svg")


@pytest.fixture
def folder(tmp_path):
    save_track(tmp_path / "influence_track.npz", tracked().track)
    write_sealed(tmp_path / "influence_track.json", {"same": SAME})
    return tmp_path


def test_a_track_is_read_with_its_run_or_alone(folder):
    path = folder / "influence_track.npz"
    for place in (folder, path):
        (run,) = read_runs([place])
        assert run.name == folder.name
        assert run.track is not None
        assert run.track.same == SAME
        assert run.sources == (str(path),)
    (folder / "influence_track.json").unlink()
    assert read_track(path).same is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "damaged"),
        ("[]", "damaged"),
        ('{"same": 3}', "damaged"),
        ('{"same": [["x"]]}', "damaged"),
        ('{"same": [[0]]}', "other records"),
        ('{"same": [[0], [1], [2], [20]]}', "other records or training data"),
    ],
)
def test_a_wrong_file_of_places_is_refused(folder, text, said):
    (folder / "influence_track.json").write_text(text)
    with pytest.raises(ValueError, match=said):
        read_runs([folder])


def test_a_damaged_track_is_refused(folder):
    (folder / "influence_track.npz").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="damaged"):
        read_runs([folder])


def test_a_figure_has_the_lines_of_the_course():
    runs = [ComparedRun("bare"), ComparedRun("x", track=tracked())]
    assert method_names(runs) == ["gradient_dot", "hvp"]
    (axes,) = score_figure(runs, "gradient_dot").axes
    found = course(runs[1].track, "gradient_dot")
    drawn = [line.get_ydata() for line in axes.lines]
    for line, values in zip((found.rest, found.own), drawn, strict=True):
        np.testing.assert_array_equal(values, [one.value for one in line])
    assert len(axes.collections) == 2  # bands
    alone = ComparedRun("x", track=tracked(same=(SAME[0], (), (), ())))
    assert not score_figure([alone], "gradient_dot").axes[0].collections


@pytest.mark.parametrize(("blocks", "entries"), [(2, 4), (12, 4)])
def test_norms_have_a_line_a_part_and_a_short_legend(blocks, entries):
    run = ComparedRun("x", track=tracked(blocks=blocks))
    assert norm_figure([ComparedRun("bare")]) is None
    figure = norm_figure([run])
    figure.savefig(io.BytesIO(), format="svg")
    (axes,) = figure.axes
    means = run.track.track.gradient_norms.mean(2)
    np.testing.assert_array_equal([x.get_ydata() for x in axes.lines], means.T)
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(names) == entries
    assert {"wte", "h/0", f"h/{blocks - 1}", "ln_f"} == set(names)


def test_rows_hold_every_epoch():
    run = ComparedRun("x", track=tracked())
    rows = track_rows([ComparedRun("bare"), run])
    assert len(rows) == 2 * 3 * EPOCHS
    own = course(run.track, "gradient_dot").own[-1]
    (row,) = (
        r
        for r in rows
        if (r["method"], r["epoch"]) == ("gradient_dot", EPOCHS - 1)
        and r["training_examples"] == "the same text"
    )
    assert (row["score"], row["low"], row["high"]) == own[:3]
    norms = norm_rows([run])
    assert len(norms) == EPOCHS * 4
    assert norms[-1]["part"] == "ln_f"
    assert norms[-1]["gradient_norm"] == run.track.track.gradient_norms[-1, -1].mean()


def test_a_track_of_some_layers_says_so():
    part = {"layers": "wte", "parameters": 3, "of": 9}
    run = ComparedRun("x", track=tracked(coverage=part))
    assert "3 of 9 parameters" in track_line(run, "gradient_dot")
    assert "of 9" not in track_line(ComparedRun("x", track=tracked()), "gradient_dot")
    assert track_line(run, "cosine") is None
