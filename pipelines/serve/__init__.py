"""The model behind an HTTP API and a page, on Ray Serve: see `pipelines.serve.application`."""
