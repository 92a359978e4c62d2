"""Life of a run beside others: its lease of a folder, signals, the address of Ray."""
