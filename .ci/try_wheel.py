"""Tries an installed wheel: every file, every import, one page.

python try_wheel.py PACKAGE, the folder of the package that the wheel was built from.
"""

import importlib
import pkgutil
import sys
import tempfile
from pathlib import Path

import jaxunlearn
from jaxunlearn.report import (
    Influential,
    QueryInfluence,
    write_influence_page,
)

source, installed = Path(sys.argv[1]).resolve(), Path(jaxunlearn.__file__).parent
assert installed.is_relative_to(sys.prefix), f"{installed} is not in {sys.prefix}"

files = {x.relative_to(source) for x in source.rglob("*") if x.is_file()}
assert Path("py.typed") in files
missing = sorted(str(name) for name in files if not (installed / name).is_file())
assert not missing, f"not in the wheel: {missing}"

for module in pkgutil.walk_packages(jaxunlearn.__path__, "jaxunlearn."):
    if not module.name.endswith("__main__") and "torch" not in module.name:
        importlib.import_module(module.name)

query = QueryInfluence("query", [Influential(3, 2.5, "first")], [])
with tempfile.TemporaryDirectory() as place:
    page = Path(place) / "page.html"
    write_influence_page(page, [query], facts={"method": "tried"})
    assert "<style" in page.read_text(encoding="utf-8")
