"""How much memory this process can still take."""

from __future__ import annotations

from pathlib import Path

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")


def available_bytes() -> int | None:
    """Free memory of the machine, or of the container where that is less; None where unknown."""
    known = [size for size in (_of_machine(), _of_container()) if size is not None]
    return min(known, default=None)


def _of_machine() -> int | None:
    try:
        line = next(line for line in MEMINFO.read_text().splitlines()
                    if line.startswith("MemAvailable"))
        return 1024 * int(line.split()[1])
    except (OSError, StopIteration, ValueError, IndexError):
        return None


def _of_container() -> int | None:
    try:
        most, used = ((CGROUP / name).read_text() for name in ("memory.max", "memory.current"))
        # "max" where there is no limit; the cache of files, which can be given up, counts as used
        cached = next(int(line.split()[1])
                      for line in (CGROUP / "memory.stat").read_text().splitlines()
                      if line.startswith("inactive_file"))
        return int(most) - int(used) + cached
    except (OSError, StopIteration, ValueError):
        return None
