"""Instructions and image features in, masks out: everything that is trained."""

from segic.decoder.decoder import Decoder, Output

__all__ = ["Decoder", "Output"]
