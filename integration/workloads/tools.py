"""What the workloads share."""
import hashlib
import os
import random
import subprocess


def sh(*command, cwd=None, timeout=600):
    """Runs a program; its output is part of the error if it fails."""
    done = subprocess.run(command, cwd=cwd, timeout=timeout, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    text = done.stdout.decode(errors="replace")
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, command))} ended with {done.returncode}: {text[-1500:]}")
    return text


def expect(condition, *what):
    if not condition:
        raise AssertionError(" ".join(map(str, what)))


def content(seed, length):
    """Bytes that the seed fixes."""
    return random.Random(seed).randbytes(length)


def digest(path, opener=None):
    """SHA-256 of a file."""
    sum = hashlib.sha256()
    with open(path, "rb", opener=opener) as file:
        while part := file.read(1 << 20):
            sum.update(part)
    return sum.hexdigest()


def write(path, data):
    with open(path, "wb") as file:
        file.write(data)


def read(path):
    with open(path, "rb") as file:
        return file.read()
