#!/usr/bin/env bash
# A checkpoint of Orbax whose bytes changed on the disk is restored without a word.
#
# Expected: OCDBT, the store below Orbax, has CRC-32C checksums in its own nodes, so that
# a flipped bit in a checkpoint is an error when it is restored. What happens: the
# checksums cover the store's nodes, not the values that lie beside them, and arrays of
# floats hardly compress, so most of a checkpoint's bytes are covered by nothing. With
# orbax-checkpoint 0.12.8 and tensorstore 0.1.86, every one of 24 single-bit flips in the
# largest file of a small checkpoint gives another array and no error. What we do: each
# checkpoint holds the SHA-256 of its files (checksums.json), which is compared first.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q orbax-checkpoint==0.12.8 jax==0.10.2 jaxlib==0.10.2 \
  tensorstore==0.1.86 numpy==2.4.6
cat > "$work/flip.py" <<'PYTHON'
import importlib.metadata
import pathlib
import sys

import jax
import numpy as np
import orbax.checkpoint as ocp

for name in ("orbax-checkpoint", "tensorstore", "jax"):
    print(name, importlib.metadata.version(name))
held = np.random.default_rng(0).standard_normal(2000).astype(np.float32)
like = {"x": jax.ShapeDtypeStruct(held.shape, held.dtype)}
folder = pathlib.Path(sys.argv[1]) / "checkpoint"
with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(folder, {"x": held})
files = [path for path in folder.rglob("*") if path.is_file()]
file = max(files, key=lambda path: path.stat().st_size)
whole = file.read_bytes()
bits = np.random.default_rng(1).choice(8 * len(whole), 24, replace=False)
found = {"error": 0, "the same array": 0, "another array": 0}
for bit in bits:
    flipped = bytearray(whole)
    flipped[bit // 8] ^= 1 << int(bit) % 8
    file.write_bytes(flipped)
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            read = np.asarray(checkpointer.restore(folder, like)["x"])
        same = read.tobytes() == held.tobytes()
        found["the same array" if same else "another array"] += 1
    except Exception:
        found["error"] += 1
print(f"one flipped bit of {len(whole)} bytes, {len(bits)} times: {found}")
sys.exit(0 if found["another array"] > 0 else "every flip was found: no finding any more")
PYTHON
JAX_PLATFORMS=cpu "$work/venv/bin/python" -W ignore "$work/flip.py" "$work" 2>"$work/errors" ||
  { cat "$work/errors"; exit 1; }
