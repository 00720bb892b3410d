"""`python -m spanwise` is the `spanwise` program."""

from spanwise.cli import main

main()
