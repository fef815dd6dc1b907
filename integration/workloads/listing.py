"""A folder of 100,000 entries is listed while it changes: what was there all the time is seen exactly once."""
import collections
import os
import sys
import threading

from tools import expect

ENTRIES = 100_000


def fill(folder, entries):
    for number in range(entries):
        os.close(os.open(os.path.join(folder, f"stays-{number:06d}"), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))


def run(work, scratch, options):
    folder = options.listing
    if folder is None:
        folder = os.path.join(work, "many")
        os.mkdir(folder)
        fill(folder, ENTRIES)
    stop, errors, changes = threading.Event(), [], [0]

    def change():
        """Creates, renames and removes other names, everywhere among the ones that stay."""
        try:
            step = 0
            while not stop.is_set():
                name = os.path.join(folder, f"comes-{os.getpid()}-{step}")
                with open(name, "wb"):
                    pass
                os.rename(name, name + ".renamed")
                os.unlink(name + ".renamed")
                step += 1
                changes[0] = step
        except BaseException as error:
            errors.append(repr(error))

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(2 if options.quick else 3):
            with os.scandir(folder) as entries:
                seen = collections.Counter(entry.name for entry in entries if entry.name.startswith("stays-"))
            twice = [name for name, times in seen.items() if times > 1]
            expect(not twice, len(twice), "entries seen more than once, such as", twice[:3])
            expect(len(seen) == ENTRIES, "seen", len(seen), "of", ENTRIES)
    finally:
        stop.set()
        thread.join()
    expect(not errors, errors)
    expect(changes[0] > 0, "nothing changed while it was listed")


if __name__ == "__main__":
    os.mkdir(sys.argv[1])
    fill(sys.argv[1], ENTRIES)
