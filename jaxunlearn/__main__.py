"""``python -m jaxunlearn``: the console script without its entry point."""

from jaxunlearn.cli import main

main()
