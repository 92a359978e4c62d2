"""Code that predict and annotate share: the streaming engine, its actor and messages, protocols, the predictor."""
