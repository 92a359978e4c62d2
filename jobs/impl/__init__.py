"""The work of each command: what `main` of jobs/x.py imports once its flags are parsed."""
