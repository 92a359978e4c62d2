"""Training on Ray Train: preflight checks, worker, loader, checkpoints, validation, progress."""
