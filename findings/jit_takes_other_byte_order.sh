#!/usr/bin/env bash
# A compiled function of JAX takes a NumPy array of the other byte order for one of ours.
#
# Expected: jax.jit refuses a big-endian NumPy array (dtype >f4, as FITS and IDX files
# give), or converts it. What happens: the first call is refused with a TypeError, but
# once the function was called with a native array of that shape, the same big-endian
# array is accepted and its bytes are read as they lie: other numbers, and no error. Seen
# with jax 0.10.2, and with jax 0.12.0.1 on Python 3.13. What we do: arrays that a caller
# gives are brought into this machine's byte order before JAX sees them (files.row_by_row).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cat > "$work/order.py" <<'PYTHON'
import sys

import jax
import numpy as np

print("jax", jax.__version__, "numpy", np.__version__)
native = np.array([1.0, 2.0, 3.0], "float32")
swapped = native.astype(">f4")
assert (native == swapped).all()


def doubled():
    return jax.jit(lambda x: 2 * x)


try:
    print("first call, big-endian:", doubled()(swapped))
    sys.exit("it is no longer refused: no finding any more")
except TypeError as error:
    print("first call, big-endian:", type(error).__name__)
function = doubled()
print("first call, native:", function(native))
try:
    found = np.asarray(function(swapped))
except TypeError:
    sys.exit("it is refused then too: no finding any more")
print("then big-endian:", found, "instead of", 2 * swapped)
sys.exit(0 if not np.allclose(found, 2 * native) else "right now: no finding any more")
PYTHON
JAX_PLATFORMS=cpu "$work/venv/bin/python" "$work/order.py"
