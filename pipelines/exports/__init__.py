"""Conversion of predictions to the formats of benchmark servers and annotation tools, and checks of the files."""
