"""The signals by which a system asks a program to end, besides Ctrl-C (SIGINT)."""

import signal

# SIGTERM, as batch systems send it, and SIGHUP of a terminal that is closed, which Windows does not have.
ENDING = tuple(each for each in signal.Signals if each.name in ("SIGTERM", "SIGHUP"))
