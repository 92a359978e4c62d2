"""Commands: each file here is one, for `python jobs/x.py` or `ray job submit`; impl/ does their work."""
