"""People of the account: passwords, signing in, one-time links. Runs in the hub."""
