#!/usr/bin/env python3
"""door_agent.py ADDRESS PORT NAME: does file operations for doors.py, in the guest.

Connects to doors.py, says its NAME, reads one JSON object per line, {"do": NAME, "path": ...},
and answers with one, {"is": VALUE} or {"error": ERRNO}.
"""
import base64
import json
import os
import socket
import stat
import sys


def write(path, data, mode="wb"):
    with open(path, mode) as file:
        file.write(base64.b64decode(data))


def write_at(path, data, offset):
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.pwrite(descriptor, base64.b64decode(data), offset)
    finally:
        os.close(descriptor)


def read(path):
    with open(path, "rb") as file:
        return base64.b64encode(file.read()).decode()


def look(path):
    info = os.lstat(path)
    return {"size": info.st_size, "mode": stat.S_IMODE(info.st_mode), "kind": stat.S_IFMT(info.st_mode),
            "uid": info.st_uid, "gid": info.st_gid, "nlink": info.st_nlink, "ino": info.st_ino,
            "mtime": info.st_mtime_ns}


OPERATIONS = {
    "write": write,
    "append": lambda path, data: write(path, data, "ab"),
    "write_at": write_at,
    "read": read,
    "look": look,
    "list": lambda path: sorted(os.listdir(path)),
    "mkdir": os.mkdir,
    "rmdir": os.rmdir,
    "unlink": os.unlink,
    "rename": lambda path, to: os.rename(path, to),
    "link": lambda path, to: os.link(path, to),
    "symlink": lambda path, to: os.symlink(to, path),
    "readlink": os.readlink,
    "chmod": os.chmod,
    "chown": os.chown,
    "truncate": os.truncate,
    "utime": lambda path, ns: os.utime(path, ns=(ns, ns)),
}


def perform(request):
    request = dict(request)
    operation = OPERATIONS[request.pop("do")]
    try:
        return {"is": operation(**request)}
    except OSError as error:
        return {"error": error.errno}


def main():
    with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as connection:
        lines = connection.makefile("rwb")
        lines.write(sys.argv[3].encode() + b"\n")
        lines.flush()
        for line in lines:
            lines.write(json.dumps(perform(json.loads(line))).encode() + b"\n")
            lines.flush()


if __name__ == "__main__":
    main()
