#!/usr/bin/env python3
"""appender.py NAME FOLDER: the load of the restart drills.

Appends numbered lines to FOLDER/NAME.log, each with fsync, and every tenth time
makes a file FOLDER/NAME-N with fsync. Prints "ACK NAME LINE" when a line, and
"MADE NAME N" when a file is on disk by the word of the file system. Goes on
until FOLDER/stop exists; then prints "END NAME". An error ends it with
"ERROR NAME ...": a hard mount shows none, however long the server is away.
"""
import os
import sys


def main():
    name, folder = sys.argv[1], sys.argv[2]
    log = os.open(os.path.join(folder, name + ".log"), os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
    line = 0
    try:
        while not os.path.exists(os.path.join(folder, "stop")):
            os.write(log, f"{name} {line:08d} {'x' * (line % 300)}\n".encode())
            os.fsync(log)
            print("ACK", name, line, flush=True)
            if line % 10 == 0:
                make(os.path.join(folder, f"{name}-{line}"), f"made {name} {line}\n".encode())
                print("MADE", name, line, flush=True)
            line += 1
        os.close(log)
    except OSError as error:
        print("ERROR", name, line, error, flush=True)
        return 1
    print("END", name, flush=True)
    return 0


def make(path, data):
    file = os.open(path + ".new", os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o644)
    os.write(file, data)
    os.fsync(file)
    os.close(file)
    os.rename(path + ".new", path)
    folder = os.open(os.path.dirname(path), os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


if __name__ == "__main__":
    sys.exit(main())
