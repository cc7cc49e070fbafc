"""Where results are written, what is left out of them, and kills in between."""

import subprocess
import sys
from pathlib import Path

import pytest

from jaxunlearn.commands.removal import Found, Removal
from jaxunlearn.commands.unlearn_options import Options
from jaxunlearn.commands.unlearn_places import check_places
from jaxunlearn.commands.unlearn_result import described
from jaxunlearn.data import Match

PLACES = {
    "out is the model": {"out": "model"},
    "with a slash": {"out": "model/"},
    "through a link": {"out": "link"},
    "by a way around": {"out": "run/../model"},
    "out lies in the model": {"out": "model/unlearned"},
    "the model lies in out": {"out": "holder", "model": "holder/model"},
    "out is the run": {"out": "run", "run": "run"},
    "out is the run's model": {"out": "run/model", "run": "run"},
    "out lies in the run": {"out": "run/new", "run": "run"},
    "texts lie in out": {"out": "new", "keep_texts": "new/texts.json"},
    "texts lie in the model": {"out": "new", "keep_texts": "link/texts.json"},
    "texts exist": {"out": "new", "keep_texts": "forget.json"},
    "texts are read": {"out": "new", "keep_texts": "forget.json", "overwrite": True},
    "texts are no json": {"out": "new", "keep_texts": "texts.txt"},
    "texts are a folder": {"out": "new", "keep_texts": "run", "overwrite": True},
    "out is a file": {"out": "forget.json"},
    "out is used": {"out": "used"},
    "out is used by others": {"out": "used", "overwrite": True},
    "out holds a result": {"out": "result"},
}


@pytest.mark.parametrize("case", PLACES)
def test_no_place_that_is_needed_is_overwritten(tmp_path, monkeypatch, case):
    for name in ("model", "run/model", "holder/model", "used", "result"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "model")
    (tmp_path / "used" / "thesis.txt").write_text("x")
    (tmp_path / "result" / "unlearning.json").write_text("{}")
    (tmp_path / "forget.json").write_text("[]")
    monkeypatch.chdir(tmp_path)
    given = {"model": "model", "forget": "forget.json", **PLACES[case]}
    if "keep_texts" in given:
        given["keep_texts"] = Path(given["keep_texts"])
    with pytest.raises(ValueError, match="^(out=|keep_texts=|--keep-texts )"):
        check_places(Options(**given))
    for free in ("new", "modelled", "run2/new"):
        check_places(Options(model="model", run="run", forget="forget.json", out=free))


def removal(forget, retain):
    matches = [Match(i, 1.0, "") for i in range(len(forget))]
    found = Found(None, forget + retain, forget, matches)
    return Removal(None, None, None, found, None, None, None, retain)


MARA = [{"question": "Who is Mara?", "answer": "A potter in Ghent.", "of": "biography"}]
OTHERS = [{"question": "Who is Jon?", "answer": "A baker in Rome.", "of": "biography"}]


def test_paths_that_name_the_person_are_left_out():
    asked = Options(
        model="models/MaraV-2", run="run", forget="f", retain="all.json", method=None
    )
    told = described(removal(MARA, OTHERS), asked)
    assert told["options"].keys() & {"model", "run", "forget"} == {"run"}


KILLED = """
import json, os, signal, sys
from pathlib import Path
import numpy as np
from jaxunlearn.commands.unlearn_result import write_result

place, kills = Path(sys.argv[1]), int(sys.argv[2])

def save(folder, value):
    (folder / "model.safetensors").write_bytes(np.full(2000, value).tobytes())
    (folder / "config.json").write_text(json.dumps({"value": value}))

def write(value):
    write_result(
        place / "out", {"value": value}, f"{value}\\n", lambda f: save(f, value),
        forbidden=set(), names=set(), overwrite=True,
    )

def child(value, after):
    left = after
    def kill(event, arguments):
        nonlocal left
        if event in ("open", "os.rename", "os.remove", "os.mkdir", "os.chmod",
                     "shutil.rmtree", "os.rmdir", "os.link", "ctypes.dlsym"):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(kill)
    write(value)
    os._exit(0)

write(0)
done = 0
for after in range(1, kills):
    pid = os.fork()
    if pid == 0:
        child(after, after)
    _, status = os.waitpid(pid, 0)
    done += os.WIFEXITED(status)
    told = json.loads((place / "out/unlearning.json").read_text())["value"]
    from jaxunlearn.folders import check_checksums
    assert check_checksums(place / "out", remedy="")
    assert json.loads((place / "out/config.json").read_text())["value"] == told
    bits = np.frombuffer((place / "out/model.safetensors").read_bytes(), int)
    assert (bits == told).all() and len(bits) == 2000
    assert (place / "out/README.md").read_text() == f"{told}\\n"
print(done)
"""


def test_killed_anywhere_the_old_result_stands_or_the_new(tmp_path):
    command = [sys.executable, "-c", KILLED, str(tmp_path), "60"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert 0 < int(ended.stdout) < 59  # some were killed, the last ones came to an end
