"""One module a step; each names the one before it. A step that has been released is never changed, and none is undone.

The way back is the backup made before the upgrade (`guardhouse hub restore`).
"""
