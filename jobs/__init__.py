"""What people submit: each file is one command, `python jobs/x.py` or `ray job submit`."""
