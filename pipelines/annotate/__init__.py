"""A corpus of videos to predictions, on the streaming engine; long videos are joined from windows."""
