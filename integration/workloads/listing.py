"""A folder of 100,000 entries is listed while it changes: what was there all the time is seen exactly once."""
import collections
import concurrent.futures
import os
import sys
import threading

from tools import expect

ENTRIES = 100_000


def fill(folder):
    """Makes the entries that stay, with several threads because each waits for the server."""
    def make(number):
        os.close(os.open(name(folder, number), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))

    for_all(make)


def clear(folder):
    for_all(lambda number: os.unlink(name(folder, number)))


def name(folder, number):
    return os.path.join(folder, f"stays-{number:06d}")


def for_all(work):
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        parts = [pool.submit(lambda first=first: [work(number) for number in range(first, ENTRIES, 8)])
                 for first in range(8)]
        for part in parts:
            part.result()


def run(work, scratch, options):
    folder = options.listing
    if folder is None:
        folder = os.path.join(work, "many")
        os.mkdir(folder)
        fill(folder)
    stop, errors, changes = threading.Event(), [], [0]

    def change():
        """Creates, renames and removes other names, everywhere among the ones that stay."""
        try:
            step = 0
            while not stop.is_set():
                path = os.path.join(folder, f"comes-{os.getpid()}-{step}")
                with open(path, "wb"):
                    pass
                os.rename(path, path + ".renamed")
                os.unlink(path + ".renamed")
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
    if options.listing is None:
        clear(folder)
        expect(os.listdir(folder) == [], "entries are left")


if __name__ == "__main__":
    os.mkdir(sys.argv[1])
    fill(sys.argv[1])
