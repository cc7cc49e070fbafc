#!/usr/bin/env bash
# safetensors' NumPy writer writes an array's memory, not its values.
#
# Expected: save_file of an array gives a file that load_file reads as the same array,
# or an error for an array it does not take, as safetensors.torch gives for tensors that
# are not contiguous. What happens: the bytes are written as they lie, under the array's
# shape: a transposed view, an array in Fortran's order and a slice of columns all come
# back as other arrays, and no error. Seen with safetensors 0.8.0 and numpy 2.4.6. What
# we do: each array is brought into the order of rows first (files.write_tensors, the
# one place that writes such files).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q safetensors==0.8.0 numpy==2.4.6
cat > "$work/memory.py" <<'PYTHON'
import importlib.metadata
import sys

import numpy as np
from safetensors.numpy import load_file, save_file

print("safetensors", importlib.metadata.version("safetensors"), "numpy", np.__version__)
rows = np.arange(6, dtype=np.float32).reshape(2, 3)
arrays = {
    "by rows": rows,
    "a transposed view": np.ascontiguousarray(rows.T).T,
    "in Fortran's order": np.asfortranarray(rows),
    "every second column": np.repeat(rows, 2, axis=1)[:, ::2],
}
other = []
for name, array in arrays.items():
    assert (array == rows).all()
    try:
        save_file({"x": array}, sys.argv[1])
        same = np.array_equal(load_file(sys.argv[1])["x"], rows)
        print(f"{name}: {'the same array' if same else 'another array'}")
        other += [] if same else [name]
    except Exception as error:
        print(f"{name}: {type(error).__name__}: {error}")
sys.exit(0 if len(other) == 3 else f"other arrays only of {other}: the finding changed")
PYTHON
"$work/venv/bin/python" "$work/memory.py" "$work/x.safetensors"
