"""Copy exactly the packages that a locked requirements file names, out of this environment, into a directory.

``copy_locked.py REQUIREMENTS DIRECTORY``: no network and no resolver. A package that is locked for another platform
only (its marker) is left out; one that should be here and is not, or has another version, ends this with status 1.
"""

import shutil
import sys
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement


def main() -> int:
    """Copy, and return the exit status."""
    requirements, target = Path(sys.argv[1]), Path(sys.argv[2])
    wrong: list[str] = []
    for line in requirements.read_text(encoding="utf-8").splitlines():
        # Lines with a hash or a comment are indented.
        if not line or line[0] in " #":
            continue
        locked = Requirement(line.rstrip("\\ "))
        if locked.marker is not None and not locked.marker.evaluate():
            continue
        try:
            distribution = metadata.distribution(locked.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{locked.name}: not installed")
            continue
        if distribution.version not in locked.specifier:
            wrong.append(f"{locked.name}: {distribution.version} is installed, {locked.specifier} is locked")
            continue
        for file in distribution.files or ():
            source = Path(str(file.locate()))
            # Scripts stand outside (../../../bin) and name this environment's interpreter: they are of no use there.
            if ".." in file.parts or not source.is_file():
                continue
            place = target / file
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, place)
    for text in wrong:
        sys.stderr.write(f"copy_locked.py: {text}\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
