"""Raw layouts as their owners distribute them, one module a dataset: folder → items → records."""
