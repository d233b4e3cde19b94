"""The control plane: environments, tokens, tasks, the runner gateway, the REST API."""
