"""What a source says without stopping."""


class SourceWarning(UserWarning):
    """Something odd in the input that does not stop the run: a gap in a folder, a damaged frame in a video."""
