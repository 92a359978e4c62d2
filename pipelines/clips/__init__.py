"""Prepared data to training batches: epoch plan, sampling, augmentation, collate."""
