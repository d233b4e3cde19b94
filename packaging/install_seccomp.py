"""Put libseccomp's own Python binding (`import seccomp`) into a virtual environment.

The binding is part of libseccomp's source tree and is in no package registry; registries carry a look-alike of
another name and other semantics (docs/dependencies.md). Three ways, the first that works wins:

1. copy the shared object of Debian's `python3-seccomp` where it was built for this interpreter's ABI;
2. the same from `apt-get download python3-seccomp`, which needs no privileges, only package lists;
3. build it from Debian's `libseccomp` source with Cython, for every other CPython from 3.11 on
   (needs gcc, libseccomp-dev, dpkg-dev; the whole takes about half a minute).

Run with the interpreter of the environment: `.venv/bin/python packaging/install_seccomp.py`. Uses the standard
library only, because it runs before anything is installed.
"""

import importlib.util
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

SUFFIX = str(sysconfig.get_config_var("EXT_SUFFIX"))
SITE = Path(sysconfig.get_path("platlib"))
DEBIAN_SITE = Path("/usr/lib/python3/dist-packages")
REPOSITORY = Path(__file__).resolve().parent.parent


def binding_works() -> bool:
    """Tell whether a new interpreter of this environment can load the binding and build a filter with it."""
    check = "import seccomp; seccomp.SyscallFilter(seccomp.ALLOW).add_rule(seccomp.ERRNO(1), 'reboot')"
    return subprocess.run([sys.executable, "-c", check], capture_output=True, check=False).returncode == 0


def copy_from(directory: Path) -> bool:
    """Copy the shared object built for this ABI from ``directory`` into the environment, if there is one."""
    source = directory / f"seccomp{SUFFIX}"
    if not source.is_file():
        return False
    shutil.copy2(source, SITE / source.name)
    return binding_works()


def download_package(work: Path) -> bool:
    """Fetch Debian's package as an ordinary user may, and take the shared object out of it."""
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        return False
    fetched = subprocess.run(
        ["apt-get", "-q", "download", "python3-seccomp"], cwd=work, capture_output=True, check=False
    )
    packages = sorted(work.glob("python3-seccomp_*.deb"))
    if fetched.returncode != 0 or not packages:
        return False
    subprocess.run(["dpkg-deb", "-x", str(packages[0]), str(work / "root")], check=True)
    return copy_from(work / "root/usr/lib/python3/dist-packages")


def source_entries() -> tuple[str, str]:
    """Return the host's own package sources turned into source entries, and their file name suffix."""
    lines = []
    for listing in [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*.list"))]:
        if listing.is_file():
            lines += ["deb-src " + line[4:] for line in listing.read_text().splitlines() if line.startswith("deb ")]
    if lines:
        return "\n".join(lines) + "\n", "list"
    stanzas = [p.read_text() for p in sorted(Path("/etc/apt/sources.list.d").glob("*.sources"))]
    return "\n".join(stanzas).replace("Types: deb", "Types: deb-src"), "sources"


def build_from_source(work: Path) -> str:
    """Build the binding against the static libseccomp. Returns "" when it works, otherwise what is missing."""
    missing = [tool for tool in ("gcc", "apt-get", "dpkg-source") if not shutil.which(tool)]
    archives = sorted(Path("/usr/lib").glob("*/libseccomp.a")) + sorted(Path("/usr/lib").glob("libseccomp.a"))
    if missing or not archives:
        wanted = [*missing, *([] if archives else ["libseccomp.a (package libseccomp-dev)"])]
        return "cannot build the binding: missing " + ", ".join(wanted)
    entries, suffix = source_entries()
    for directory in ("lists/partial", "cache/archives/partial", "build"):
        (work / directory).mkdir(parents=True)
    (work / f"sources.{suffix}").write_text(entries)
    options = [
        f"-oDir::Etc::sourcelist={work}/sources.{suffix}",
        "-oDir::Etc::sourceparts=-",
        f"-oDir::State::lists={work}/lists",
        f"-oDir::Cache={work}/cache",
        *(["-oAPT::Sandbox::User=root"] if shutil.which("id") else []),
    ]
    for arguments in (["update"], ["source", "--download-only", "libseccomp"]):
        done = subprocess.run(["apt-get", *options, "-q", *arguments], cwd=work, capture_output=True, check=False)
        if done.returncode != 0:
            return f"apt-get {arguments[0]} failed: {done.stderr.decode(errors='replace').strip()[-500:]}"
    tarball = next(iter(sorted(work.glob("libseccomp_*.orig.tar.gz"))), None)
    if tarball is None:
        return "apt-get source brought no libseccomp_*.orig.tar.gz"
    subprocess.run(["tar", "xf", str(tarball)], cwd=work, check=True)
    tree = next(path for path in work.glob("libseccomp-*") if path.is_dir())
    for name in ("seccomp.pyx", "libseccomp.pxd"):
        shutil.copy2(tree / "src/python" / name, work / "build" / name)
    pip = [sys.executable, "-m", "pip", "install", "-q", "--require-hashes", "--target", str(work / "tools")]
    subprocess.run([*pip, "-r", str(REPOSITORY / "requirements/build.txt")], check=True)
    (work / "build/setup.py").write_text(
        "from setuptools import Extension, setup\nfrom Cython.Build import cythonize\n"
        f"setup(name='seccomp', version='0', ext_modules=cythonize([Extension('seccomp', ['seccomp.pyx'],"
        f" extra_objects=['{archives[0]}'])], language_level=3))\n"
    )
    built = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
        cwd=work / "build",
        env={"PYTHONPATH": str(work / "tools"), "PATH": "/usr/local/bin:/usr/bin:/bin"},
        capture_output=True,
        check=False,
    )
    if built.returncode != 0:
        return f"the build failed: {built.stderr.decode(errors='replace').strip()[-1000:]}"
    return "" if copy_from(work / "build") else "the built binding does not load"


def main() -> int:
    """Install the binding; exit status 0 when `import seccomp` works afterwards."""
    if importlib.util.find_spec("seccomp") is not None and binding_works():
        return 0
    if copy_from(DEBIAN_SITE):
        print(f"seccomp: took Debian's python3-seccomp ({DEBIAN_SITE})")
        return 0
    with tempfile.TemporaryDirectory(prefix="guardhouse-seccomp-") as scratch:
        work = Path(scratch)
        if download_package(work):
            print("seccomp: took the binding from Debian's package python3-seccomp")
            return 0
        reason = build_from_source(work)
    if reason:
        print(
            f"seccomp: no libseccomp binding for {sys.executable} ({SUFFIX}): {reason}.\n"
            "Install the package python3-seccomp and use Debian's own interpreter, or install"
            " gcc, libseccomp-dev and dpkg-dev and run this again.",
            file=sys.stderr,
        )
        return 1
    print("seccomp: built the binding from Debian's libseccomp source")
    return 0


if __name__ == "__main__":
    sys.exit(main())
