"""One module a step; each names the one before it. A step that has been released is never changed."""
