"""Defaults of reading videos, apart from the code that reads: command lines import them at once."""

LENGTH = 36
"""Frames of a window."""
OVERLAP = 4
"""Frames that neighbouring windows share."""
TIME_LIMIT = 600.0
"""Seconds without a heartbeat of the decoder, of which every decoded frame is one, after which a video is given up."""
