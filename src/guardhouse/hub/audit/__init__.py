"""The audit log as a chain: records, signed checkpoints, verification, export and forwarding. Runs in the hub.

`guardhouse.hub.store.audit` writes and reads the rows; `verify` and `read` also run in the `guardhouse` command.
"""
