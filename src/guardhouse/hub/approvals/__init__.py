"""Approvals: questions of runners put before people, and the messages that tell people of them. Runs in the hub."""
