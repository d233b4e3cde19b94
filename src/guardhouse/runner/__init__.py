"""The trio supervisor on a host: connection, tasks, output, heartbeat."""
