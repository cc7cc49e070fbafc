"""The house rules that a program can check, on the text of the files alone."""

import ast
import functools
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "jaxunlearn"

LINES = 300
COLUMNS = 100

LONG = {
    "experiments/influence_task.py": "the task and its truth, one story",
    "experiments/paper/laboratory.py": "the paper's models, trained and kept",
    "experiments/paper/matched.py": "one table, its rows written out",
    "experiments/tofu_gpt2.py": "one run from data to table",
    "jaxunlearn/data/text/tokenizer.py": "every form in which tokenizers lie on disk",
    "jaxunlearn/training/recipe.py": "the step, from batch to update",
}
"""Files of more than ``LINES`` lines, and why one idea needs so many."""

WIDE = {}
"""Markdown files that are not yet in ``COLUMNS`` columns."""

FLAGS = {
    "jaxunlearn/report/comparison/panel_grid.py",
    "jaxunlearn/report/kit/drawing.py",
    "jaxunlearn/report/run/card.py",
}
"""Library files whose messages still speak of options of the command line."""

SAME_NAME = {
    "jaxunlearn/data/text/__init__.py",
}
"""Modules that share a name with a function or class of their package."""

WTE: set[str] = set()
"""Files outside ``models/`` that index the embedding by its name."""


KEPT = {
    "jaxunlearn/training/recipe.py": "a step a recipe; the oldest are let go",
    "jaxunlearn/training/together.py": "a step a recipe; the oldest are let go",
    "jaxunlearn/unlearning/descent_step.py": "a step a method and recipe; as above",
    "jaxunlearn/unlearning/fine_tuning.py": "a step a recipe; the oldest are let go",
}
"""Files that keep jitted functions themselves, a few at most, and why."""


@functools.cache
def tracked(*patterns):
    """Files under version control, as paths from the root; all without git."""
    listing = subprocess.run(
        ["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True
    )
    if listing.returncode == 0 and listing.stdout:
        return [name for name in listing.stdout.split("\n") if (ROOT / name).is_file()]
    found = {path for pattern in patterns for path in ROOT.rglob(pattern)}
    return sorted(path.relative_to(ROOT).as_posix() for path in found)


@functools.cache
def parsed(name):
    return ast.parse((ROOT / name).read_text(encoding="utf-8"), name)


def library(but=()):
    """The package's files, without those below the folders ``but``."""
    names = tracked("*.py")
    return [
        name
        for name in names
        if name.startswith("jaxunlearn/")
        and not any(name.startswith(f"jaxunlearn/{folder}") for folder in but)
    ]


def refuse(offenders, allowed, remedy):
    """Fail on offenders that are not allowed, and on allowances without one."""
    new = {k: v for k, v in offenders.items() if k not in allowed}
    assert not new, f"{remedy}: {new}"
    over = sorted(set(allowed) - set(offenders))
    assert not over, f"no longer needed, take it off the list: {over}"


def signatures(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield node.args


def arguments(tree):
    return {
        argument.arg
        for args in signatures(tree)
        for argument in (*args.posonlyargs, *args.args, *args.kwonlyargs)
    }


def docstrings(tree):
    holders = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, holders) and ast.get_docstring(node) is not None:
            yield node.body[0].value


def texts(tree):
    """What strings say that are no docstrings, parts of f-strings too."""
    described = {id(node) for node in docstrings(tree)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            described.add(id(node.value))  # the description of a constant
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if id(node) not in described:
                yield node.value


def test_no_helper_hides_behind_an_underscore():
    for name in library():
        for node in parsed(name).body:
            targets = getattr(node, "targets", [getattr(node, "target", node)])
            words = [getattr(x, "name", getattr(x, "id", "")) for x in targets]
            hidden = [w for w in words if w[:1] == "_" and w[:2] != "__" and w != "_"]
            assert not hidden, (name, hidden)


def test_a_file_holds_one_idea():
    names = [*library(), *(x for x in tracked("*.py") if x.startswith("experiments/"))]
    lengths = {name: (ROOT / name).read_text().count("\n") for name in names}
    long = {name: count for name, count in lengths.items() if count > LINES}
    refuse(long, LONG, f"above {LINES} lines: split it, or give a reason in LONG")


def test_markdown_is_as_wide_as_a_page():
    """Tables and what holds no space cannot be broken, so they may be wider."""
    wide = {}
    for name in tracked("*.md"):
        fenced = False
        for number, line in enumerate((ROOT / name).read_text().splitlines(), start=1):
            fenced ^= line.startswith("```")
            breakable = len(line.split()) > 1 and not line.startswith("|")
            if len(line) > COLUMNS and (breakable or fenced):
                wide.setdefault(name, []).append(number)
    refuse(wide, WIDE, f"lines wider than {COLUMNS} columns")


def test_the_readme_is_read_in_one_sitting():
    assert (ROOT / "README.md").read_text(encoding="utf-8").count("\n") <= 120


def test_only_commands_speak_of_options_of_the_command_line():
    option = re.compile(r"(?<![\w-])--[a-z][a-z_-]+")
    found = {
        name: said
        for name in library(but=("commands/", "cli.py"))
        if (said := [x for text in texts(parsed(name)) for x in option.findall(text)])
    }
    refuse(found, FLAGS, "name the argument; the command line says the option")


def test_only_placement_and_models_shard():
    words = {"Mesh", "NamedSharding", "PartitionSpec", "make_mesh", "with_sharding"}
    found = {}
    for name in library(but=("placement.py", "models/")):
        for node in ast.walk(parsed(name)):
            if isinstance(node, ast.Attribute) and node.attr in words | {"sharding"}:
                inside = ast.unparse(node)
                if inside.startswith("jax."):
                    found.setdefault(name, []).append(inside)
            elif isinstance(node, ast.ImportFrom) and node.module == "jax.sharding":
                found.setdefault(name, []).append(node.module)
    refuse(found, (), "place arrays with jaxunlearn.placement")


def defined(tree):
    """The public functions and classes that a file defines."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return {
        node.name
        for node in tree.body
        if isinstance(node, kinds) and not node.name.startswith("_")
    }


def exported(package):
    """The functions and classes that a package gives, by its __init__ and its stub."""
    names = set()
    for file in (package / "__init__.py", package / "__init__.pyi"):
        if file.exists():
            for node in ast.parse(file.read_text()).body:
                # From the package itself come its modules.
                if isinstance(node, ast.ImportFrom) and node.module not in (
                    None,
                    package.relative_to(ROOT).as_posix().replace("/", "."),
                ):
                    names |= {alias.asname or alias.name for alias in node.names}
    return names


def test_a_module_and_a_function_never_share_a_name():
    """Else ``from package import name`` gives the one or the other, who knows when.

    A file of ``commands/`` has the name of its subcommand, and so has its function,
    which ``cli.py`` alone imports.
    """
    found = {}
    for name in library(but=("commands/",)):
        path = ROOT / name
        if path.name == "__init__.py":
            path = path.parent
        if path == PACKAGE:
            continue
        # One that the module defines or that stands beside it in its package.
        given = exported(path.parent)
        for beside in {ROOT / name, *path.parent.glob("*.py")}:
            given |= defined(parsed(beside.relative_to(ROOT).as_posix()))
        if path.stem in given:
            found[name] = path.stem
    refuse(found, SAME_NAME, "rename the module or the function")


def test_padding_stays_in_data():
    found = {
        name: "pad_id"
        for name in library(but=("data/",))
        if "pad_id" in arguments(parsed(name))
    }
    refuse(found, (), "the data know their padding: take Batches")


def test_shared_words_are_defined_once():
    words = {"IGNORED_LABEL", "Batch", "Params", "LinearMap"}
    found = {}
    for name in library(but=("types.py",)):
        for node in parsed(name).body:
            targets = node.targets if isinstance(node, ast.Assign) else []
            again = words & {x.id for x in targets if isinstance(x, ast.Name)}
            if again:
                found[name] = again
    refuse(found, (), "import it from jaxunlearn.types")


def test_compiled_programs_are_remembered_by_jax_alone():
    """A cache of functions by model holds models and programs for ever."""
    found = {}
    for name in library():
        for node in ast.walk(parsed(name)):
            if not isinstance(node, ast.FunctionDef) or "jax.jit" not in ast.unparse(
                ast.Module(node.body, [])
            ):
                continue
            if any("cache" in ast.unparse(x) for x in node.decorator_list):
                found[name] = node.name
    refuse(found, KEPT, "pass what is static to one jitted function, or a Partial")


def test_only_models_know_the_names_of_their_leaves():
    found = {
        name: ast.unparse(node)
        for name in library(but=("models/",))
        for node in ast.walk(parsed(name))
        if isinstance(node, ast.Subscript)
        and isinstance(node.slice, ast.Constant)
        and node.slice.value == "wte"
    }
    refuse(found, WTE, "ask the model, or untie its parameters")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ('raise ValueError(f"give {x} --out DIR")', ["--out"]),
        ('"""Speaks of --out."""', []),
        ('x = "a -- b, 1--2"', []),
    ],
)
def test_messages_are_told_from_docstrings(source, expected):
    option = re.compile(r"(?<![\w-])--[a-z][a-z_-]+")
    said = [x for text in texts(ast.parse(source)) for x in option.findall(text)]
    assert said == expected
