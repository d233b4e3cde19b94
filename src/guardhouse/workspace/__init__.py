"""Every path of the workspace, resolved below one directory handle: read, write, find, search, unpack, spill.

A synchronous library over one descriptor. Runs in the files worker; nothing here opens anything by an absolute path.
"""

from guardhouse.workspace.change import move_path, remove_path
from guardhouse.workspace.entry import Entry, Kind, stat_path
from guardhouse.workspace.errors import Code, PathEscapesWorkspace, WorkspaceRefusal
from guardhouse.workspace.find import Found, find_paths
from guardhouse.workspace.handle import Method, Workspace, open_beneath, open_workspace, parse_path
from guardhouse.workspace.hashed import Hashed, hash_file
from guardhouse.workspace.install import InstalledSkill, install_skill, list_skills, remove_skill
from guardhouse.workspace.listing import Listing, list_directory
from guardhouse.workspace.read import FilePart, read_file
from guardhouse.workspace.rules import PathRules, make_rules
from guardhouse.workspace.search import Hit, Searched, search_files
from guardhouse.workspace.spill import Bounded, bound_text, expire_outputs
from guardhouse.workspace.temporaries import Temporaries, remove_leftovers
from guardhouse.workspace.upload import expire_uploads, write_part
from guardhouse.workspace.usage import Quota, Usage, measure
from guardhouse.workspace.write import Edited, Written, edit_file, write_file

__all__ = [
    "Bounded",
    "Code",
    "Edited",
    "Entry",
    "FilePart",
    "Found",
    "Hashed",
    "Hit",
    "InstalledSkill",
    "Kind",
    "Listing",
    "Method",
    "PathEscapesWorkspace",
    "PathRules",
    "Quota",
    "Searched",
    "Temporaries",
    "Usage",
    "Workspace",
    "WorkspaceRefusal",
    "Written",
    "bound_text",
    "edit_file",
    "expire_outputs",
    "expire_uploads",
    "find_paths",
    "hash_file",
    "install_skill",
    "list_directory",
    "list_skills",
    "make_rules",
    "measure",
    "move_path",
    "open_beneath",
    "open_workspace",
    "parse_path",
    "read_file",
    "remove_leftovers",
    "remove_path",
    "remove_skill",
    "search_files",
    "stat_path",
    "write_file",
    "write_part",
]
