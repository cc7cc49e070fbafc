"""What hashing costs: its share of writing checkpoints and of building an index.

    python experiments/bench_checksums.py

CPU seconds of this process, so other work on the machine does not count.
"""

import hashlib
import tempfile
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from jaxunlearn.folders import write_checksums
from jaxunlearn.gradients.projections.projection import Block, Projection
from jaxunlearn.influence.index.build import build_index
from jaxunlearn.influence.index.description import open_index
from jaxunlearn.influence.index.query import top_k
from jaxunlearn.training import checkpoints

MEGABYTES = 200
ROWS, WIDTH, LAYERS = 8192, 4096, 16


def seconds(work):
    start = time.process_time()
    work()
    return time.process_time() - start


def main():
    rng = np.random.default_rng(0)
    data = rng.bytes(10**6 * MEGABYTES)
    hashing = seconds(lambda: hashlib.sha256(data).digest())
    print(f"SHA-256: {MEGABYTES / 1000 / hashing:.2f} GB/s")
    with tempfile.TemporaryDirectory() as place:
        params = {"x": jnp.asarray(np.frombuffer(data, np.uint8))}
        saving = seconds(lambda: checkpoints.save_params(Path(place) / "p", params))
        hashing = seconds(lambda: write_checksums(Path(place) / "p"))
        print(
            f"checkpoint of {MEGABYTES} MB: {saving:.2f} s, of it hashes "
            f"{hashing:.2f} s; at one a minute {hashing / 60:.2%} of a run"
        )
        rows = rng.standard_normal((ROWS, WIDTH), np.float32)
        layout = [
            Block(str(i), i * WIDTH // LAYERS, WIDTH // LAYERS) for i in range(LAYERS)
        ]

        def build():
            build_index(
                Path(place) / "i",
                lambda batch: batch["rows"],
                [
                    {"index": np.arange(i, i + 64), "rows": rows[i : i + 64]}
                    for i in range(0, ROWS, 64)
                ],
                model_hash="",
                data_hash="",
                projection=Projection(),
                layout=layout,
            )

        building = seconds(build)
        index = open_index(Path(place) / "i", model_hash=None)
        asking = seconds(lambda: top_k(index, rows[:16], k=5))
        size = ROWS * (WIDTH + 4 * LAYERS + 8)
        hashing = seconds(lambda: hashlib.sha256(bytes(size)).digest())
        print(
            f"index of {ROWS} rows, {size / 1e6:.0f} MB, without the gradients: built "
            f"in {building:.2f} s, 16 queries in {asking:.2f} s, of each hashes "
            f"{hashing:.3f} s"
        )


if __name__ == "__main__":
    main()
