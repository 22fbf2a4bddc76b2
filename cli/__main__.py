"""`python -m segic_cli`."""

from .main import main

main()
