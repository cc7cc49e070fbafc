import os

import jax
import pytest

from jaxunlearn import memory


def test_what_is_available_is_there_and_no_more():
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < memory.host_memory() <= physical


@pytest.mark.parametrize(("text", "limit"), [("4096\n", 4096), ("max\n", None)])
def test_a_containers_limit_holds(tmp_path, monkeypatch, text, limit):
    (tmp_path / "memory.max").write_text(text)
    whole = memory.host_memory()
    monkeypatch.setattr(memory, "LIMITS", (str(tmp_path / "memory.max"),))
    assert memory.host_memory() == limit or (limit is None and whole > 4096)


def test_an_accelerator_tells_its_own(monkeypatch):
    class Device:
        def memory_stats(self):
            return {"bytes_limit": 7}

    monkeypatch.setattr(jax, "local_devices", lambda: [Device()])
    assert memory.available_memory() == 7
