"""What the hub remembers: one module a subject, each a set of functions over a SQLAlchemy connection.

`guardhouse.hub.database` runs them; none of them knows of threads, sockets or who asks. Runs in the hub.
"""
