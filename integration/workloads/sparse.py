"""A file of 5 GiB with a few bytes in it: its holes cost nothing and read as zeros."""
import os

from tools import content, expect

GIB = 1 << 30
SIZE = 5 * GIB
PLACES = [0, 1 * GIB - 3, 2 * GIB - 1, 2 * GIB, 4 * GIB - 7, 4 * GIB + 4096, SIZE - 100]
LENGTH = 100


def run(work, scratch, options):
    path = os.path.join(work, "sparse")
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
    try:
        os.ftruncate(descriptor, SIZE)
        # The places at 2 GiB overlap: later ones win.
        for place in PLACES:
            expect(os.pwrite(descriptor, content(place, LENGTH), place) == LENGTH, "short write at", place)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    info = os.stat(path)
    expect(info.st_size == SIZE, "size", info.st_size)
    expect(info.st_blocks * 512 < 64 << 20, "the holes take", info.st_blocks * 512, "bytes")

    with open(path, "rb", buffering=0) as file:
        for place in PLACES:
            wanted = content(place, LENGTH)
            if place == 2 * GIB - 1:
                wanted = wanted[:1] + content(2 * GIB, LENGTH)[:LENGTH - 1]
            expect(os.pread(file.fileno(), LENGTH, place) == wanted, "other bytes at", place)
            for hole in [place + 200, place + (64 << 20)]:
                if hole + 4096 <= SIZE and not any(abs(hole - other) < 8192 for other in PLACES if other != place):
                    zeros = os.pread(file.fileno(), 4096, hole)
                    expect(zeros == bytes(4096), "the hole at", hole, "is not zeros")
        expect(os.pread(file.fileno(), 10, SIZE) == b"", "bytes behind the end")

    with open(path, "r+b") as file:
        file.truncate(4 * GIB + 5000)
    expect(os.stat(path).st_size == 4 * GIB + 5000, "size after truncate")
    with open(path, "r+b") as file:
        file.truncate(SIZE)
        file.seek(SIZE - 100)
        expect(file.read() == bytes(100), "bytes that were cut off are back")
