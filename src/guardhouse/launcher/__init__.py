"""The process that starts every command inside the wall."""
