"""Any bytes as a skill's archive: refused, or a list whose every entry stays inside and unpacks to what it promised."""

from driver import main
from guardhouse import limits
from guardhouse.skills import SkillRefused, read_archive, read_content


def fuzz_one(data: bytes) -> None:
    try:
        archive = read_archive(data)
    except SkillRefused:
        return
    assert archive.total_size <= limits.SKILL_TOTAL_MAX_BYTES
    assert archive.manifest.name
    seen = set()
    for entry in archive.entries:
        assert entry.parts
        assert not {"", ".", ".."} & set(entry.parts)
        assert not any("/" in part or "\0" in part or "\\" in part for part in entry.parts)
        assert entry.parts not in seen
        seen.add(entry.parts)
        try:
            size = sum(len(chunk) for chunk in read_content(data, entry))
        except SkillRefused:
            continue
        assert size == entry.size


TARGET = fuzz_one

if __name__ == "__main__":
    main(fuzz_one, __file__)
