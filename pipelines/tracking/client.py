"""Names of MLflow that other packages use; only `pipelines.tracking` imports mlflow."""

from mlflow import MlflowClient
from mlflow.entities import Metric, Run
from mlflow.exceptions import MlflowException

__all__ = ["Metric", "MlflowClient", "MlflowException", "Run"]
