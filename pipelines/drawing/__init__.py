"""Masks, boxes and text drawn on frames."""
