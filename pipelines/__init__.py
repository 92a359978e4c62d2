"""Everything round the model: data preparation, training, inference, exports, scores, on Ray and MLflow."""
