"""Skill archives: read as a list and judged before anything of them is unpacked. Pure: bytes in, values out."""

from guardhouse.skills.archive import Archive, ArchiveEntry, read_archive, read_content
from guardhouse.skills.errors import SkillRefused
from guardhouse.skills.manifest import Manifest, check_skill_name, parse_manifest
from guardhouse.skills.tar import as_zip

__all__ = [
    "Archive",
    "ArchiveEntry",
    "Manifest",
    "SkillRefused",
    "as_zip",
    "check_skill_name",
    "parse_manifest",
    "read_archive",
    "read_content",
]
