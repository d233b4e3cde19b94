"""The one door to raw system calls."""
