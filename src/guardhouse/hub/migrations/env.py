"""Alembic's entry point: runs the steps on the connection that `guardhouse.hub.migrate` hands in."""

from alembic import context

from guardhouse.hub.schema import METADATA

connection = context.config.attributes["connection"]
# SQLite cannot alter most things in place: batch mode copies the table instead.
context.configure(connection=connection, target_metadata=METADATA, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
