"""`python -m sodec` is the command line."""

from .cli import main

main()
