"""Positioned reads out of compiled code, so that a pass over gigabytes does not come back to the interpreter in between.

POSIX pread(2), by the C library's own symbol. Where there is none (Windows), AVAILABLE is False and stream.Reader reads.
"""

import os
from typing import Any

from numba import njit, types

AVAILABLE = hasattr(os, "pread")
PIECE = 1 << 30  # bytes asked for at once: some systems take no more than 2³¹
_pread: Any = types.ExternalFunction("pread", types.intp(types.int32, types.voidptr, types.uintp, types.int64))


def compiled(function=None, *, exact=False):
    """njit without the interpreter's lock, kept on disk where there is a place for it.

    Sums may be reordered, which vectorises them; NaN and infinity stay what they are. `exact` forbids even that.
    """

    def decorate(python):
        options: dict[str, Any] = {"nogil": True, "fastmath": False if exact else {"reassoc", "contract", "nsz"}}
        try:
            return njit(python, cache=True, **options)
        except RuntimeError:  # neither a home nor a folder that can be written
            return njit(python, **options)

    return decorate(function) if function else decorate


@compiled
def pull(file, address, count, offset):
    """Read `count` bytes at `offset` of an open file to a memory address; False where the file ends before."""
    done = 0
    while done < count:
        got = _pread(file, address + done, min(count - done, PIECE), offset + done)
        if got <= 0:
            return False
        done += got
    return True


@compiled
def pull_all(files, offsets, start, count, buffers):
    """Read elements [start, start + count) of every file into its row of `buffers`; the index of the file that ends
    before, or −1. `offsets` are the bytes where element 0 lies."""
    width = buffers.itemsize
    for k in range(len(files)):
        if not pull(files[k], buffers[k].ctypes.data, count * width, offsets[k] + start * width):
            return k
    return -1
