"""MLflow: runs, metrics, models, and an outbox for when the server is away. Only this package imports it."""
