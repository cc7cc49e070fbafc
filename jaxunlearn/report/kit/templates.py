"""How pages are rendered: every text escaped, and shown as the signs that it has."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxunlearn.report.kit.tables import visible

if TYPE_CHECKING:
    from jinja2 import Environment


def environment(*folders: Path) -> "Environment":
    """Make an environment for templates of some folders, and the look of all pages.

    Every value is escaped unless it is markup of ours, and shown without control
    characters, whatever file it came from. A name that a template misspells is an
    error.
    """
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader([*folders, Path(__file__).parent]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def shown(value: Any) -> Any:
    """Return a value as it is put into a page."""
    return visible(value) if isinstance(value, str) else value
