"""Code that the commands share: command line, predictor flags, progress, submitter."""
