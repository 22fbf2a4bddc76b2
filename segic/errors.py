"""The errors that segic raises on purpose, and the exit status each one means on the command line.

Every message names the thing, the value, what was expected and what to do. The command line prints the message alone;
a traceback there is a defect.
"""

INTERRUPTED = 130  # the shell's own exit status for Ctrl-C


class SegicError(Exception):
    """A run that failed: a truncated video, a full disk, a download that broke. Exit status 1."""

    exit_status = 1


class UsageError(SegicError):
    """A request that cannot be carried out as given: a missing file, a mask of another size. Exit status 2."""

    exit_status = 2
