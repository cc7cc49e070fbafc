import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from jaxunlearn import folders

REMEDY = "write it again"


def half(temporary):
    temporary.write_text("half of the second")
    raise RuntimeError("the disk is full, say")


def test_every_flipped_bit_of_a_folder_is_found_and_named(tmp_path):
    (tmp_path / "deep").mkdir()
    for name in ("a.bin", "deep/b.bin"):
        (tmp_path / name).write_bytes(bytes(range(7)))
    folders.write_checksums(tmp_path)
    assert folders.check_checksums(tmp_path, remedy=REMEDY)
    (tmp_path / "added.txt").write_text("a user's own")
    assert folders.check_checksums(tmp_path, remedy=REMEDY)
    for name in ("a.bin", "deep/b.bin"):
        whole = (tmp_path / name).read_bytes()
        for bit in range(8 * len(whole)):
            flipped = bytearray(whole)
            flipped[bit // 8] ^= 1 << bit % 8
            (tmp_path / name).write_bytes(flipped)
            with pytest.raises(ValueError, match=f"{name} is damaged.*{REMEDY}"):
                folders.check_checksums(tmp_path, remedy=REMEDY)
        (tmp_path / name).unlink()
        with pytest.raises(ValueError, match=f"{name} is missing"):
            folders.check_checksums(tmp_path, remedy=REMEDY)
        (tmp_path / name).write_bytes(whole)
    assert folders.check_checksums(tmp_path, remedy=REMEDY)


def test_a_folder_without_checksums_says_so_and_a_damaged_list_is_refused(tmp_path):
    assert not folders.check_checksums(tmp_path, remedy=REMEDY)
    for text in ("[]", '{"sha256": 3}', "{"):
        (tmp_path / folders.CHECKSUMS).write_text(text)
        with pytest.raises(ValueError, match=folders.CHECKSUMS):
            folders.check_checksums(tmp_path, remedy=REMEDY)
    (tmp_path / folders.CHECKSUMS).write_text('{"sha256": {"../x": "0"}}')
    with pytest.raises(ValueError, match="outside its folder"):
        folders.check_checksums(tmp_path, remedy=REMEDY)


def test_a_folder_is_swapped_whole(tmp_path):
    out = tmp_path / "out"
    with folders.replaced_folder(out) as fresh:
        (fresh / "a").write_text("1")
    assert (out / "a").read_text() == "1"
    with pytest.raises(RuntimeError), folders.replaced_folder(out) as fresh:
        half(fresh / "b")
    assert os.listdir(out) == ["a"]
    with folders.replaced_folder(out) as fresh:
        (fresh / "b").write_text("2")
    assert os.listdir(out) == ["b"]
    assert os.listdir(tmp_path) == ["out"]


def test_a_folder_killed_between_the_two_renames_comes_back(tmp_path):
    (tmp_path / ".out.previous").mkdir()
    (tmp_path / ".out.previous" / "a").write_text("1")
    with (
        pytest.raises(RuntimeError),
        folders.replaced_folder(tmp_path / "out") as fresh,
    ):
        half(fresh / "b")
    assert (tmp_path / "out" / "a").read_text() == "1"


def test_a_killed_writer_s_folder_is_swept_and_a_living_one_s_is_not(
    tmp_path,
):
    write = (
        "import os, sys, time; from jaxunlearn.folders import replaced_folder\n"
        "with replaced_folder(sys.argv[1]) as fresh:\n"
        "    (fresh / 'half').write_text(''); print(fresh, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", write]
    started = [
        subprocess.Popen(
            [*command, str(tmp_path / name)], stdout=subprocess.PIPE, text=True
        )
        for name in ("killed", "living")
    ]
    dead, living = (Path(one.stdout.readline().strip()) for one in started)
    try:
        started[0].kill()
        started[0].wait()
        assert dead.exists()
        with folders.replaced_folder(tmp_path / "out") as fresh:
            (fresh / "a").write_text("1")
        assert not dead.exists()
        assert (living / "half").exists()
    finally:
        for one in started:
            one.kill()
            one.communicate()


def test_a_folder_swept_before_it_is_locked_is_made_again(tmp_path, monkeypatch):
    make, made = tempfile.mkdtemp, []

    def make_and_lose(**options):
        made.append(make(**options))
        if len(made) == 1:
            folders.sweep_dead(tmp_path)
        return made[-1]

    monkeypatch.setattr(tempfile, "mkdtemp", make_and_lose)
    with folders.replaced_folder(tmp_path / "out") as fresh:
        (fresh / "a").write_text("1")
    assert len(made) == 2
    assert os.listdir(tmp_path) == ["out"]
