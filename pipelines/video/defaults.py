"""Defaults of reading videos, in a module of their own because command lines import them at start-up."""

LENGTH = 36
"""Frames per window."""
OVERLAP = 4
"""Frames that neighbouring windows share."""
TIME_LIMIT = 600.0
"""Seconds without a heartbeat of the decoder (every decoded frame is one) after which a video is given up."""
