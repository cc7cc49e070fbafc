"""How much memory there is for arrays, asked before they are allocated."""

import os
from pathlib import Path

import jax

LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def available_memory() -> int:
    """Return the bytes that arrays on the default device may take.

    On an accelerator its limit; on the host what is free or can be freed, and no more
    than a container's limit.
    """
    told = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    return host_memory() if told is None else int(told)


def host_memory() -> int:
    """Return the bytes of the host's memory that are free or can be freed."""
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for line in text_of("/proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            found.append(int(line.split()[1]) * 1024)
    found += [int(text) for path in LIMITS if (text := text_of(path).strip()).isdigit()]
    return min(found)


def text_of(path: str) -> str:
    """Return a file's text, or nothing where this system has no such file."""
    return Path(path).read_text() if os.access(path, os.R_OK) else ""
