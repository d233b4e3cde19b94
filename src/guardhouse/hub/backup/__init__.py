"""Backup and restore of the store, of either database, in one file. Runs in `guardhouse hub backup` and `… restore`."""

from guardhouse.hub.backup.dump import BackupMade, make_backup
from guardhouse.hub.backup.restore import Restored, restore_backup

__all__ = ["BackupMade", "Restored", "make_backup", "restore_backup"]
