"""`jaxunlearn demo` from end to end, on a smaller world."""

import json
import subprocess

import pytest

from jaxunlearn.cli import main
from jaxunlearn.commands.demo import MADE, MARKER, make_room
from jaxunlearn.commands.demo_world import UNSEEN_PEOPLE, make_world


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as status:
        main([str(a) for a in arguments])
    return status.value.code


def test_the_three_groups_of_people_share_no_name():
    world = make_world(seed=3, public_people=5, private_people=4, facts=3)
    groups = [
        {record["subject"] for record in group}
        for group in (world.public, world.private, world.unseen)
    ]
    assert [len(group) for group in groups] == [5, 4, UNSEEN_PEOPLE]
    assert not groups[0] & groups[1]
    assert not groups[0] & groups[2]
    assert not groups[1] & groups[2]
    assert world.subject in groups[1]


@pytest.mark.slow
def test_the_demo_makes_a_report_from_a_small_world(tmp_path, capsys):
    out = tmp_path / "demo"
    small = ("--public-people", 60, "--private-people", 6, "--facts", 4)
    assert run("demo", "--out", out, *small) == 0
    results = json.loads((out / "results.json").read_text())
    assert [m["index"] for m in results["matched"]] == [0, 1, 2, 3]
    assert results["losses"]["trained"]["forget"] < results["target"]["forget_loss"]
    for name in ("trained", "retrained", "unlearned"):
        assert (out / "models" / name / "model.safetensors").exists()
    for kind, count in (("forget", 4), ("retain", 20)):
        known = results["facts"][kind]
        assert list(known) == list(results["losses"])
        assert {len(found) for found in known.values()} == {count}
        assert not any(results["facts"]["forget"]["before training"])
    script = (out / "next-steps.sh").read_text()
    subprocess.run(["sh", "-n", out / "next-steps.sh"], check=True)
    for command in ("evaluate", "attack", "report"):
        assert f"\njaxunlearn {command} " in script
    page = (out / "report.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "")
    told = capsys.readouterr().out
    assert "mean loss" in told
    # What is there to be copied stands on one line.
    assert set(results["next_steps"][-2:]) <= {
        line.strip() for line in told.split("\n")
    }
    assert run("demo", "--out", out, "--facts", 99) == 2  # and the old one still stands
    assert (out / "report.html").exists()


def test_a_folder_of_something_else_is_left_alone(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("...")
    assert run("demo", "--out", tmp_path) == 2
    assert "choose another --out" in capsys.readouterr().err
    assert (tmp_path / "thesis.tex").exists()


def finished(out, settings):
    """What a finished demo leaves, and an evaluation of its models."""
    for name in MADE:
        if "." in name:
            (out / name).write_text("{}")
        else:
            (out / name / "inside").mkdir(parents=True)
    (out / MARKER).write_text(json.dumps(settings))
    (out / "evaluation").mkdir()
    (out / "evaluation/scores.json").write_text("{}")


def test_a_finished_demo_makes_way_and_what_others_wrote_stays(tmp_path, capsys):
    finished(tmp_path, {"seed": 0})
    make_room(tmp_path, {"seed": 1})
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {MARKER, "evaluation"}
    assert json.loads((tmp_path / MARKER).read_text()) == {"seed": 1}
    assert (tmp_path / "evaluation/scores.json").exists()
    assert "evaluation" in capsys.readouterr().out


def test_only_an_unfinished_demo_of_the_same_settings_is_taken_up(tmp_path):
    finished(tmp_path, {"seed": 0})
    (tmp_path / "results.json").unlink()
    make_room(tmp_path, {"seed": 0})
    assert (tmp_path / "run").exists()
    make_room(tmp_path, {"seed": 1})
    assert not (tmp_path / "run").exists()


def test_a_half_removed_demo_is_not_taken_up(tmp_path, monkeypatch):
    finished(tmp_path, {"seed": 0})

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            make_room(tmp_path, {"seed": 0})
    make_room(tmp_path, {"seed": 0})
    assert not (tmp_path / "run").exists()
