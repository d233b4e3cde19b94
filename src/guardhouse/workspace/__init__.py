"""Every path of the workspace, resolved below one directory handle."""
