"""Eight threads create, rename, link and unlink in one folder; at the end it holds exactly what it should."""
import errno
import os
import random
import threading

from tools import expect, read, write

THREADS = 8


def run(work, scratch, options):
    rounds = 60 if options.quick else 400
    expected, errors = [dict() for _ in range(THREADS)], []

    def worker(number):
        try:
            storm(work, number, rounds, expected[number])
        except BaseException as error:
            errors.append(f"thread {number}: {error!r}")

    threads = [threading.Thread(target=worker, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expect(not errors, errors)
    wanted = {name: data for part in expected for name, data in part.items()}
    shared = {"shared"} if os.path.lexists(os.path.join(work, "shared")) else set()
    found = set(os.listdir(work))
    expect(found == wanted.keys() | shared, "missing", sorted(wanted.keys() - found)[:5], "too many",
           sorted(found - wanted.keys() - shared)[:5])
    for name, data in wanted.items():
        expect(read(os.path.join(work, name)) == data, name, "has other content")
        expect(os.stat(os.path.join(work, name)).st_nlink == 1, name, "has other links")


def storm(work, number, rounds, mine):
    """Own names are predictable; "shared" is what all threads fight for."""
    chance = random.Random(number)
    for step in range(rounds):
        action = chance.random()
        if action < 0.45 or not mine:
            name = f"t{number}-{step}"
            data = b"%d %d\n" % (number, step) * chance.choice([1, 50, 2000])
            write(os.path.join(work, name), data)
            mine[name] = data
        elif action < 0.65:
            old, new = chance.choice(sorted(mine)), f"t{number}-r{step}"
            os.rename(os.path.join(work, old), os.path.join(work, new))
            mine[new] = mine.pop(old)
        elif action < 0.75 and len(mine) > 1:
            old, new = chance.sample(sorted(mine), 2)
            os.rename(os.path.join(work, old), os.path.join(work, new))
            mine[new] = mine.pop(old)
        elif action < 0.85:
            name = chance.choice(sorted(mine))
            os.unlink(os.path.join(work, name))
            del mine[name]
            try:
                os.stat(os.path.join(work, name))
                raise AssertionError(f"{name} is still there after its unlink")
            except FileNotFoundError:
                pass
        elif action < 0.92:
            name = chance.choice(sorted(mine))
            os.link(os.path.join(work, name), os.path.join(work, name + ".l"))
            os.unlink(os.path.join(work, name + ".l"))
        else:
            fight(work, number, step)


def fight(work, number, step):
    """Any outcome is fine but an error that POSIX does not know here."""
    temporary, shared = os.path.join(work, f"s{number}-{step}"), os.path.join(work, "shared")
    write(temporary, b"shared\n")
    os.rename(temporary, shared)
    try:
        os.unlink(shared)
    except OSError as error:
        # ESTALE: NFSv3 finds the name, and another has replaced the file since.
        expect(error.errno in (errno.ENOENT, errno.ESTALE), "unlink of a shared name:", error)
