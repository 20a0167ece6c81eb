"""deploy.register: the trained model becomes a version in the MLflow registry."""
