#!/usr/bin/env python3
"""pressure.py WORKER FOLDER --journal FOLDER [--stop FILE] [--check FOLDER] [--seed N] [--fsx PATH --fsx-config PATH]
            [--light]

The load of the ring drills: one worker, until FILE exists (JOURNAL/stop unless told otherwise). FOLDER is on
the file system under test; --check is the same folder through a mount that
caches nothing. What was acknowledged is noted in JOURNAL, on a local disk.

WORKER  append  numbered lines, each with fsync; every tenth time a file, made,
                synced and renamed into place
        storm   files created, overwritten, renamed, linked and unlinked, with
                fsync, compared with what they should be all the while
        bank    sqlite transactions that keep a sum, each noted when it is
                committed; several such workers (bank1, bank2) share one base
        git     clones of a repository, with fsck, again and again
        fsx     fsx, with one seed after the other
        rsync   a tree that changes is copied with rsync, and compared by rsync -c

A name may have a number and, after a dash, a word more: bank1, bank2-nfs.

Prints "COUNT name operations" now and then, "SLOW name operation seconds" for
what took long, "ERROR name ..." and ends at once if anything fails, or in the
end "LONGEST name seconds operation" and "END name".

With --light it does less at a time and rests in between, for a slow machine.

With --verify nothing is written: what was acknowledged is looked for in FOLDER,
and the outcome printed as "PASS name" or "FAIL name: reason". --quick reads only
the newest of the files that append has made.
"""
import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import sqlite3
import sys
import time
import traceback

import repository
from tools import content, expect, sh, write

# What takes longer is told at once.
SLOW = 0.5
COUNT_EVERY = 0.5
REST = 0.02
ACCOUNTS, DEPOSIT = 10, 1000


class Work:
    """One worker's surroundings: where it works, what it has noted, how long its operations took."""

    def __init__(self, options):
        self.name, self.folder, self.journal = options.worker, options.folder, options.journal
        self.check = options.check or options.folder
        self.stop = options.stop or os.path.join(options.journal, "stop")
        self.options = options
        self.chance = random.Random(options.seed)
        self.count, self.told, self.longest = 0, 0.0, (0.0, "nothing")

    def note(self, name):
        return os.path.join(self.journal, f"{self.name}.{name}")

    def seen(self, path):
        """The same path through the mount that caches nothing."""
        return os.path.join(self.check, os.path.relpath(path, self.folder))

    def goes_on(self):
        if self.options.light:
            time.sleep(REST)
        return not os.path.exists(self.stop)

    @contextlib.contextmanager
    def operation(self, name):
        begin = time.monotonic()
        yield
        took = time.monotonic() - begin
        self.count += 1
        self.longest = max(self.longest, (took, name))
        if took >= SLOW:
            print("SLOW", self.name, name, f"{took:.3f}", flush=True)
        if begin + took - self.told >= COUNT_EVERY:
            self.told = begin + took
            print("COUNT", self.name, self.count, flush=True)

    def make(self, path, data):
        with self.operation("create"):
            file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o644)
        with self.operation("write"):
            expect(os.write(file, data) == len(data), "a short write to", path)
        with self.operation("fsync"):
            os.fsync(file)
        with self.operation("close"):
            os.close(file)


# ---- append

def line_of(name, number):
    return f"{name} {number:08d} {'x' * (number % 300)}\n"


def append(work):
    log = os.open(os.path.join(work.folder, work.name + ".log"), os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
    acked = os.open(work.note("acked"), os.O_CREAT | os.O_WRONLY, 0o644)
    made = open(work.note("made"), "w", buffering=1)
    number = 0
    while work.goes_on():
        with work.operation("append"):
            os.write(log, line_of(work.name, number).encode())
        with work.operation("fsync"):
            os.fsync(log)
        os.pwrite(acked, b"%020d" % number, 0)
        if number % 10 == 0:
            path = os.path.join(work.folder, f"{work.name}-{number}")
            work.make(path + ".new", f"made {number}\n".encode())
            with work.operation("rename"):
                os.rename(path + ".new", path)
            with work.operation("fsync of a folder"):
                folder = os.open(work.folder, os.O_RDONLY)
                os.fsync(folder)
                os.close(folder)
            made.write(f"{number}\n")
        number += 1
    os.close(log)


def verify_append(work):
    # First what was acknowledged, then what is there: the worker may go on meanwhile.
    made = open(work.note("made")).read().split("\n")[:-1]
    last = int(open(work.note("acked")).read())
    number = 0
    with open(os.path.join(work.folder, work.name + ".log"), "rb", buffering=1 << 20) as file:
        for line in file:
            wanted = line_of(work.name, number).encode()
            if line != wanted and number > last and wanted.startswith(line):
                break
            expect(line == wanted, "line", number, "of", last, "is", line[:60])
            number += 1
    expect(number > last, "line", last, "was acknowledged, but there are only", number)
    missing = {f"{work.name}-{number}" for number in made} - set(os.listdir(work.folder))
    expect(not missing, "these were made and are not listed:", sorted(missing)[:5])
    for number in made[-20:] if work.options.quick else made:
        path = os.path.join(work.folder, f"{work.name}-{number}")
        expect(open(path, "rb").read() == f"made {number}\n".encode(), path, "has other content")


# ---- storm

def digest(data):
    return hashlib.sha256(data).hexdigest()


def storm(work):
    top, check = (os.path.join(place, work.name) for place in (work.folder, work.check))
    os.mkdir(top)
    files, step = {}, 0
    while work.goes_on():
        step += 1
        action = work.chance.random()
        if action < 0.4 or len(files) < 5:
            name, data = f"f{step}", work.chance.randbytes(work.chance.choice([0, 10, 1000, 20_000, 150_000]))
            work.make(os.path.join(top, name), data)
            files[name] = digest(data)
        elif action < 0.5:
            name, data = work.chance.choice(sorted(files)), work.chance.randbytes(work.chance.choice([1, 5000, 70_000]))
            work.make(os.path.join(top, name), data)
            files[name] = digest(data)
        elif action < 0.7:
            old = work.chance.choice(sorted(files))
            new = work.chance.choice(sorted(files)) if action < 0.6 else f"r{step}"
            with work.operation("rename"):
                os.rename(os.path.join(top, old), os.path.join(top, new))
            files[new] = files.pop(old)
        elif action < 0.75:
            name = work.chance.choice(sorted(files))
            with work.operation("link"):
                os.link(os.path.join(top, name), os.path.join(top, f"l{step}"))
            with work.operation("unlink"):
                os.unlink(os.path.join(top, name))
            files[f"l{step}"] = files.pop(name)
        elif action < 0.9:
            name = work.chance.choice(sorted(files))
            with work.operation("unlink"):
                os.unlink(os.path.join(top, name))
            del files[name]
        else:
            with work.operation("list"):
                found = os.listdir(check)
            expect(sorted(found) == sorted(files), "step", step, "lists", set(found) ^ set(files))
            name = work.chance.choice(sorted(files))
            with work.operation("read"), open(os.path.join(check, name), "rb") as file:
                data = file.read()
            expect(digest(data) == files[name], "step", step, name, "has other content")
        while len(files) > 120:
            name = work.chance.choice(sorted(files))
            with work.operation("unlink"):
                os.unlink(os.path.join(top, name))
            del files[name]
    with open(work.note("files"), "w") as file:
        json.dump(files, file)


def verify_storm(work):
    top, files = os.path.join(work.folder, work.name), json.load(open(work.note("files")))
    found = set(os.listdir(top))
    expect(found == files.keys(), "missing", sorted(files.keys() - found)[:5], "too many", sorted(found - files.keys())[:5])
    for name, wanted in files.items():
        with open(os.path.join(top, name), "rb") as file:
            expect(digest(file.read()) == wanted, name, "has other content")


# ---- bank

def bank_base(work):
    base = sqlite3.connect(os.path.join(work.folder, "bank.db"), timeout=120, isolation_level=None)
    base.execute("pragma synchronous=full")
    return base


def bank(work):
    base = bank_base(work)
    acked = os.open(work.note("acked"), os.O_CREAT | os.O_WRONLY, 0o644)
    base.execute("begin immediate")
    base.execute("create table if not exists accounts (id integer primary key, money integer)")
    base.execute("create table if not exists moves (who, number, primary key (who, number))")
    for account in range(ACCOUNTS):
        base.execute("insert or ignore into accounts values (?, ?)", (account, DEPOSIT))
    base.execute("commit")
    number = 0
    while work.goes_on():
        # Taking the lock takes as long as the others hold it: that is no stall.
        base.execute("begin immediate")
        source, target = work.chance.sample(range(ACCOUNTS), 2)
        amount = work.chance.randrange(100)
        base.execute("update accounts set money = money - ? where id = ?", (amount, source))
        base.execute("update accounts set money = money + ? where id = ?", (amount, target))
        base.execute("insert into moves values (?, ?)", (work.name, number))
        if number % 50 == 0:
            total = base.execute("select sum(money) from accounts").fetchone()
            expect(total == (ACCOUNTS * DEPOSIT,), "the sum is", total)
        with work.operation("commit"):
            base.execute("commit")
        os.pwrite(acked, b"%020d" % number, 0)
        number += 1
    base.close()


def verify_bank(work):
    last = int(open(work.note("acked")).read())
    base = bank_base(work)
    expect(base.execute("pragma integrity_check").fetchall() == [("ok",)], "integrity_check")
    total = base.execute("select sum(money) from accounts").fetchone()
    expect(total == (ACCOUNTS * DEPOSIT,), "the sum is", total)
    numbers = [row[0] for row in base.execute("select number from moves where who = ? order by number", (work.name,))]
    expect(numbers == list(range(len(numbers))), "moves are missing")
    expect(len(numbers) > last, "move", last, "was acknowledged, but there are only", len(numbers))
    base.close()


# ---- git

def git(work):
    origin, clone = os.path.join(work.journal, work.name + "-origin"), os.path.join(work.folder, work.name + "-clone")
    sh(*repository.GIT, "init", "-q", origin)
    commits, files = (2, 20) if work.options.light else (3, 90)
    for commit in range(commits):
        for number in range(commit, files, commits):
            write(os.path.join(origin, f"f{number}"), content(number * 31 + commit, 50 + number * 37 % 9000))
        sh(*repository.GIT, "add", "-A", cwd=origin)
        sh(*repository.GIT, "commit", "-q", "-m", f"commit {commit}", cwd=origin)
    head = sh(*repository.GIT, "rev-parse", "HEAD", cwd=origin)
    # Its commands make hundreds of operations each, so that their times are no stalls: they are counted only.
    while work.goes_on():
        sh(*repository.GIT, "clone", "-q", "--no-local", origin, clone)
        counted(work)
        sh(*repository.GIT, "fsck", "--full", "--strict", cwd=clone)
        counted(work)
        expect(sh(*repository.GIT, "status", "--porcelain", cwd=clone) == "", "a fresh clone must be clean")
        expect(sh(*repository.GIT, "rev-parse", "HEAD", cwd=clone) == head, "another HEAD")
        shutil.rmtree(clone)
        counted(work)


def counted(work):
    work.count += 1
    print("COUNT", work.name, work.count, flush=True)


# ---- fsx

def fsx(work):
    while work.goes_on():
        seed = work.chance.randrange(1 << 32)
        path = os.path.join(work.folder, f"{work.name}-{seed}")
        sh(work.options.fsx, "-N", "80" if work.options.light else "400", "-S", str(seed), "-f", work.options.fsx_config, "-P", work.journal, path)
        os.unlink(path)
        counted(work)


# ---- rsync

def rsync(work):
    origin, copy = os.path.join(work.journal, work.name + "-origin"), os.path.join(work.folder, work.name + "-copy")
    os.mkdir(origin)
    step, files = 0, 12 if work.options.light else 40
    while work.goes_on():
        for number in range(files) if step == 0 else work.chance.sample(range(files), files // 4):
            folder = os.path.join(origin, f"d{number % 5}")
            os.makedirs(folder, exist_ok=True)
            path = os.path.join(folder, f"f{number}")
            if step > 0 and number % 4 == 0 and os.path.exists(path):
                os.unlink(path)
            else:
                write(path, work.chance.randbytes(work.chance.choice([0, 100, 4096, 60_000])))
        # By contents: what changes within a second and keeps its size would be taken for the same.
        sh("rsync", "-ac", "--delete", origin + "/", copy)
        counted(work)
        found = sh("rsync", "-acn", "--delete", "--itemize-changes", origin + "/", work.seen(copy))
        # Linux's 9P client sets times of whole seconds only, which rsync shows as a "t" and nothing more.
        found = [line for line in found.split("\n") if line.split(" ")[0].strip(".fdt") != ""]
        expect(not found, "step", step, "the copy differs:", found[:5])
        counted(work)
        step += 1


WORKERS = {"append": (append, verify_append), "storm": (storm, verify_storm), "bank": (bank, verify_bank),
           "git": (git, None), "fsx": (fsx, None), "rsync": (rsync, None)}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("worker")
    parser.add_argument("folder")
    parser.add_argument("--journal", required=True)
    parser.add_argument("--check")
    parser.add_argument("--stop")
    parser.add_argument("--light", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--fsx")
    parser.add_argument("--fsx-config")
    parser.add_argument("--verify", action="store_true")
    parser.add_argument("--quick", action="store_true")
    work = Work(parser.parse_args())
    run, verify = WORKERS[work.name.split("-")[0].rstrip("0123456789")]
    if work.options.verify:
        return judge(work, verify)
    try:
        run(work)
    except BaseException as error:
        traceback.print_exc()
        print("ERROR", work.name, type(error).__name__, str(error).replace("\n", " | ")[:1500], flush=True)
        return 1
    print("LONGEST", work.name, f"{work.longest[0]:.3f}", work.longest[1])
    print("END", work.name, flush=True)
    return 0


def judge(work, verify):
    try:
        verify(work)
        print("PASS", work.name, flush=True)
        return 0
    except Exception as error:
        traceback.print_exc()
        print(f"FAIL {work.name}:", type(error).__name__, str(error).replace("\n", " | ")[:1500], flush=True)
        return 1


if __name__ == "__main__":
    sys.exit(main())
