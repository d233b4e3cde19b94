"""Confined worker processes that meet hostile input: files now, web pages later."""
