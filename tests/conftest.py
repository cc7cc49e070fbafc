"""The environment of the tests: on the CPU, offline, nothing cached between runs.

Within a run compiled programs are kept in a folder of its own: its processes, and the
commands that they start, compile the same tiny models. LLVM optimizes nothing, which
takes less than half the time to compile; XLA's own passes run as they always do.
"""

import gc
import importlib.metadata
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

# A loaded machine is no failure.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

os.environ.setdefault("JAX_PLATFORMS", "cpu")
PROGRAMS = "JAX_COMPILATION_CACHE_DIR"
OWNER = "JAXUNLEARN_TESTS_PROCESS"
if OWNER not in os.environ:  # the first process; others inherit its environment
    os.environ[OWNER] = str(os.getpid())
    os.environ[PROGRAMS] = tempfile.mkdtemp(prefix="jaxunlearn-tests-")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
XLA_FLAGS = "--xla_backend_optimization_level=0"
if importlib.metadata.version("jaxlib").startswith("0.10."):
    # The emitters before them compile in a third of the time. Later XLA has no such
    # flag, and ends the process at one that it does not know.
    XLA_FLAGS += " --xla_cpu_use_fusion_emitters=false"
os.environ.setdefault("XLA_FLAGS", XLA_FLAGS)
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["MPLBACKEND"] = "Agg"


def pytest_collection_finish():
    """Numbers are compared in float32: no file may turn on more when imported."""
    import jax

    assert not jax.config.read("jax_enable_x64"), "a collected file sets jax_enable_x64"


def pytest_unconfigure():
    """Delete the programs of this run, in the process that made their folder."""
    if os.environ.get(OWNER) == str(os.getpid()):
        shutil.rmtree(os.environ[PROGRAMS], ignore_errors=True)


@pytest.fixture(scope="module", autouse=True)
def older_programs():
    """Spare the collector what earlier files compiled: it lives as long as they do."""
    gc.freeze()


@pytest.fixture
def compilations():
    """Return the list to which each program that is compiled adds its seconds."""
    import jax

    found = []

    def listener(event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            found.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listener)
    yield found
    jax.monitoring.unregister_event_duration_listener(listener)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data, or a skip that says how to bring it."""
    value = os.environ.get("JAXUNLEARN_DATA")
    if not value:
        pytest.skip("JAXUNLEARN_DATA is unset: CONTRIBUTING.md says what to put there")
    folder = Path(value)
    if not folder.is_dir():
        pytest.fail(f"JAXUNLEARN_DATA={value!r} is not a folder")
    return folder


@pytest.fixture(scope="session")
def small_run():
    """Softmax regression, 12 examples, three epochs: small enough to differentiate."""
    import types

    import jax
    import jax.numpy as jnp
    import numpy as np

    draw = np.random.default_rng(0)
    examples, width, classes, queries = 12, 4, 3, 5
    inputs = draw.normal(size=(examples, width)).astype(np.float32)
    # A column of zeros: weights whose gradient is exactly 0 in every step.
    inputs[:, 3] = 0
    data = {"x": inputs, "y": draw.integers(0, classes, examples).astype(np.int32)}
    query = {
        "x": draw.normal(size=(queries, width)).astype(np.float32),
        "y": draw.integers(0, classes, queries).astype(np.int32),
    }
    order = np.concatenate([draw.permutation(examples) for _ in range(3)])

    def loss(params, batch):
        logits = batch["x"] @ params["kernel"] + params["bias"]
        log_probability = jax.nn.log_softmax(logits)
        return -jnp.take_along_axis(log_probability, batch["y"][:, None], 1)[:, 0]

    kernel = draw.normal(size=(width, classes)).astype(np.float32)
    return types.SimpleNamespace(
        examples=examples,
        data=data,
        query=query,
        order=order.reshape(-1, 4).astype(np.int32),
        loss=loss,
        params={"kernel": jnp.asarray(kernel), "bias": jnp.zeros(classes)},
    )


@pytest.fixture(scope="session")
def golden():
    """The arrays of a small GPT-2's golden file by their folder."""
    import numpy as np

    folders = {}
    with np.load(Path(__file__).parent / "golden" / "gpt2_tiny.npz") as file:
        for path in file.files:
            folder, _, name = path.partition("/")
            folders.setdefault(folder, {})[name] = file[path]
    return folders


@pytest.fixture(scope="session")
def checkpoint(golden, tmp_path_factory):
    """The golden weights, as a directory."""
    import safetensors.numpy

    directory = tmp_path_factory.mktemp("golden")
    (directory / "config.json").write_text(str(golden["config"][""]))
    safetensors.numpy.save_file(golden["params"], directory / "model.safetensors")
    return directory
