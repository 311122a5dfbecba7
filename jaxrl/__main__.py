"""`python -m jaxrl`: the command line."""

from jaxrl.cli import main

main()
