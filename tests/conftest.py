"""The environment of the tests: on the CPU, offline, nothing cached between runs."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# A loaded machine is no failure.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["MPLBACKEND"] = "Agg"


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data, or a skip that says how to bring it."""
    value = os.environ.get("JAXUNLEARN_DATA")
    if not value:
        pytest.skip("JAXUNLEARN_DATA is unset: README.md says what to put there")
    folder = Path(value)
    if not folder.is_dir():
        pytest.fail(f"JAXUNLEARN_DATA={value!r} is not a folder")
    return folder
