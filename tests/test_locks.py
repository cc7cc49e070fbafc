import subprocess
import sys

import pytest

from jaxunlearn import locks


def test_a_locked_folder_names_the_process_and_is_free_after_its_death(tmp_path):
    hold = (
        "import sys, time; from jaxunlearn.locks import locked\n"
        "with locked(sys.argv[1]): print('held', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", hold, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with (
            pytest.raises(ValueError, match=f"in use by process {other.pid} on"),
            locks.locked(tmp_path),
        ):
            pass
        other.kill()
    with locks.locked(tmp_path):
        pass
