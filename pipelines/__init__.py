"""The data, on Ray Data: raw datasets to records to clips, predictions to exports and scores."""
