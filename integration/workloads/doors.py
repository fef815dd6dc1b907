#!/usr/bin/env python3
"""doors.py FUSE PORT: one tree through three doors at once.

FUSE is the mount on this host. Two agents in the guest (door_agent.py) connect
to PORT and work on its mounts /mnt/nfs and /mnt/9p. What one door writes and
closes, the others must read; changes of names and attributes must show within
the time for which each client is documented to keep them.
"""
import base64
import errno
import itertools
import json
import os
import socket
import sys
import threading
import time
import traceback

import door_agent
from tools import content, expect

# The guest mounts NFS with actimeo=1; FUSE keeps attributes for at most a second as well.
SHOWS_WITHIN = 6.0


class Door:
    """One mount, here or in the guest."""

    def __init__(self, name, top, perform):
        self.name, self.top, self.perform = name, top, perform

    def __call__(self, do, path, **more):
        if "to" in more and do != "symlink":
            more["to"] = os.path.join(self.top, more["to"])
        return self.perform({"do": do, "path": os.path.join(self.top, path), **more})

    def must(self, do, path, **more):
        answer = self(do, path, **more)
        expect("is" in answer, self.name, do, path, "gave", os.strerror(answer.get("error", 0)))
        return answer["is"]

    def write(self, path, data, do="write", **more):
        return self.must(do, path, data=base64.b64encode(data).decode(), **more)

    def read(self, path):
        return base64.b64decode(self.must("read", path))

    def inode(self, path):
        """The server's number: Linux's 9P client shows what the server says plus 2 (v9fs_qid2ino)."""
        return self.must("look", path)["ino"] - (2 if self.name == "9p" else 0)

    def soon(self, what, condition):
        """Waits until the condition holds, as long as a client may keep what it knew."""
        deadline = time.monotonic() + SHOWS_WITHIN
        while True:
            value = condition()
            if value is True:
                return
            expect(time.monotonic() < deadline, what, "does not show through", self.name, "but", value)
            time.sleep(0.05)


def close_to_open(writer, readers, tag):
    """New content is there for whoever opens the file after it was closed: at once, not soon."""
    path = f"file-{tag}"
    for version, length in enumerate([10, 70_000, 5, 1 << 20, 0, 300_001]):
        data = content(f"{tag}{version}", length)
        writer.write(path, data)
        for reader in readers:
            found = reader.read(path)
            expect(found == data, f"{writer.name} wrote version {version} of {length} bytes,",
                   f"{reader.name} read {len(found)} others")
    writer.write(path, b"tail", do="append")
    writer.write(path, b"HEAD", do="write_at", offset=100)
    for reader in readers:
        expect(reader.read(path) == b"".join([data[:100], b"HEAD", data[104:], b"tail"]), reader.name, "after append")


def taking_turns(doors, tag):
    """Each door in turn adds a line to what the others wrote."""
    path, lines = f"turns-{tag}", b""
    doors[0].write(path, b"")
    for turn, door in zip(range(30), itertools.cycle(doors)):
        line = f"{turn} {door.name}\n".encode()
        expect(door.read(path) == lines, "turn", turn, door.name, "does not see all lines")
        door.write(path, line, do="append")
        lines += line
    for door in doors:
        expect(door.read(path) == lines, door.name, "does not see all lines at the end")


def names(maker, others, tag):
    """Names, links and attributes that one door makes, changes and removes."""
    top = f"names-{tag}"
    maker.must("mkdir", top)
    maker.write(f"{top}/a", b"a")
    maker.must("symlink", f"{top}/s", to="a")
    maker.must("link", f"{top}/a", to=f"{top}/h")
    for other in others:
        expect(other.read(f"{top}/a") == b"a", other.name, "reads a")
        expect(other.must("readlink", f"{top}/s") == "a", other.name, "reads the link")
        other.soon("the listing", lambda: other.must("list", top) == ["a", "h", "s"] or other.must("list", top))
        other.soon("nlink 2", lambda: other.must("look", f"{top}/h")["nlink"] == 2)
    inodes = {door.name: door.inode(f"{top}/a") for door in [maker, *others]}
    expect(len(set(inodes.values())) == 1, "inode numbers differ:", inodes)

    maker.must("rename", f"{top}/a", to=f"{top}/b")
    maker.must("chmod", f"{top}/b", mode=0o4711)
    maker.must("chown", f"{top}/b", uid=12, gid=34)
    maker.must("chmod", f"{top}/b", mode=0o4711)
    # Linux's 9P client can only set whole seconds.
    mtime = 1_600_000_000 * 10**9 + (0 if maker.name == "9p" else 123_456_789)
    maker.must("utime", f"{top}/b", ns=mtime)
    maker.must("unlink", f"{top}/h")
    for other in others:
        def changed():
            found = other("look", f"{top}/b").get("is")
            wanted = {"mode": 0o4711, "uid": 12, "gid": 34, "nlink": 1, "mtime": mtime}
            return True if found and all(found[key] == value for key, value in wanted.items()) else found
        other.soon("the changed attributes", changed)
        for lost in ["a", "h"]:
            other.soon(f"that {lost} has gone",
                       lambda: other("look", f"{top}/{lost}").get("error") == errno.ENOENT or "it is still there")
    maker.must("unlink", f"{top}/b")
    maker.must("unlink", f"{top}/s")
    maker.must("rmdir", top)
    for other in others:
        other.soon("that the folder has gone", lambda: other("look", top).get("error") == errno.ENOENT or "it is there")


def all_at_once(doors, tag):
    """All doors write many files into one folder at the same time; each then reads those of all."""
    top, count, errors = f"crowd-{tag}", 60, []
    doors[0].must("mkdir", top)

    def produce(door):
        try:
            for number in range(count):
                name = f"{top}/{door.name}-{number}"
                door.write(name + ".new", content(name, 1 + number * 997 % 40_000))
                door.must("rename", name + ".new", to=name)
        except BaseException as error:
            errors.append(f"{door.name}: {error}")

    threads = [threading.Thread(target=produce, args=(door,)) for door in doors]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expect(not errors, errors)
    wanted = sorted(f"{door.name}-{number}" for door in doors for number in range(count))
    for door in doors:
        door.soon("every file", lambda: door.must("list", top) == wanted or len(door.must("list", top)))
        for name in wanted:
            data = content(f"{top}/{name}", 1 + int(name.split("-")[1]) * 997 % 40_000)
            expect(door.read(f"{top}/{name}") == data, door.name, "reads other content in", name)


def exclusive(doors, tag):
    """Of all doors that make the same folder at once, one succeeds."""
    for number in range(20):
        answers = []
        threads = [threading.Thread(target=lambda door=door: answers.append(door("mkdir", f"only-{tag}-{number}")))
                   for door in doors]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        won = [answer for answer in answers if "is" in answer]
        lost = [answer for answer in answers if answer.get("error") == errno.EEXIST]
        expect(len(won) == 1 and len(lost) == len(doors) - 1, "round", number, answers)


def accept_agents(port, names):
    """The guest's agents by the names they say, each with a lock for its connection."""
    agents = {}
    with socket.create_server(("127.0.0.1", port)) as server:
        server.settimeout(120)
        print("LISTENING", flush=True)
        while len(agents) < len(names):
            connection, _ = server.accept()
            connection.settimeout(120)
            lines = connection.makefile("rwb")
            name = lines.readline().decode().strip()
            expect(name in names and name not in agents, "unexpected agent", name)
            agents[name] = agent(name, lines, threading.Lock())
    return agents


def agent(name, lines, lock):
    def perform(request):
        with lock:
            lines.write(json.dumps(request).encode() + b"\n")
            lines.flush()
            answer = lines.readline()
        expect(answer, "the agent for", name, "has gone")
        return json.loads(answer)

    return perform


def main():
    fuse, port = sys.argv[1], int(sys.argv[2])
    agents = accept_agents(port, ["nfs", "9p"])
    doors = [Door("fuse", fuse, door_agent.perform)]
    doors += [Door(name, "/mnt/" + name, perform) for name, perform in agents.items()]
    cases = []
    for door in doors:
        others = [other for other in doors if other is not door]
        cases.append((f"{door.name} writes, the others read",
                      lambda door=door, others=others: close_to_open(door, others, door.name)))
        cases.append((f"names made by {door.name}", lambda door=door, others=others: names(door, others, door.name)))
    cases.append(("lines in turn", lambda: taking_turns(doors, "all")))
    cases.append(("all write at once", lambda: all_at_once(doors, "all")))
    cases.append(("one makes a folder", lambda: exclusive(doors, "all")))
    failed = 0
    for name, case in cases:
        try:
            case()
            print(f"PASS {name}", flush=True)
        except Exception as error:
            failed += 1
            traceback.print_exc()
            print(f"FAIL {name}: {type(error).__name__}: {str(error)[:1500]}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
