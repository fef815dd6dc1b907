"""A tree goes into the file system and out again through tar, unchanged."""
import os
import random
import stat

from tools import content, digest, expect, sh, write


def run(work, scratch, options):
    original = os.path.join(scratch, "original")
    make_tree(original, 80 if options.quick else 400, 10**9 if options.whole_seconds else 1)
    before = manifest(original)

    inbound = os.path.join(scratch, "in.tar")
    sh("tar", "--format=pax", "-C", scratch, "-cf", inbound, "original")
    sh("tar", "-C", work, "-xpf", inbound)
    compare(before, manifest(os.path.join(work, "original")), "unpacked")

    outbound = os.path.join(scratch, "out.tar")
    sh("tar", "--format=pax", "-C", work, "-cf", outbound, "original")
    os.mkdir(os.path.join(scratch, "back"))
    sh("tar", "-C", os.path.join(scratch, "back"), "-xpf", outbound)
    compare(before, manifest(os.path.join(scratch, "back", "original")), "packed and unpacked again")


def make_tree(top, files, granularity):
    chance = random.Random(99)
    folders = [top]
    os.mkdir(top)
    for number in range(files // 10):
        folder = os.path.join(chance.choice(folders), f"d{number}")
        os.mkdir(folder)
        folders.append(folder)
    regular = []
    for number in range(files):
        path = os.path.join(chance.choice(folders), f"f{number}")
        size = chance.choice([0, 1, 100, 4096, 16384, 16385, 65536, 300_000])
        write(path, content(number, size))
        os.chmod(path, chance.choice([0o644, 0o600, 0o755, 0o444, 0o4755, 0o2711]))
        time = 10**18 + number * 1_000_000_007
        os.utime(path, ns=(time, time - time % granularity))
        regular.append(path)
        if number % 9 == 0:
            os.symlink(chance.choice(["f1", "../x", "/nowhere", "a" * 300]), path + ".link")
        if number % 13 == 0:
            os.link(chance.choice(regular), path + ".hard")
    for folder in folders[1:]:
        os.chmod(folder, chance.choice([0o755, 0o700, 0o1777]))


def manifest(top):
    """Path -> everything that tar carries. Hard links are told by the paths that share an inode."""
    entries, inodes = {}, {}
    # By open folders: a path costs a mount that caches nothing a question for each of its parts.
    for folder, folders, files, opened in os.fwalk(top):
        for name in folders + files:
            short = os.path.relpath(os.path.join(folder, name), top)
            info = os.stat(name, dir_fd=opened, follow_symlinks=False)
            if stat.S_ISLNK(info.st_mode):
                entries[short] = ("link", os.readlink(name, dir_fd=opened))
            elif stat.S_ISDIR(info.st_mode):
                entries[short] = ("folder", stat.S_IMODE(info.st_mode))
            else:
                sum = digest(name, opener=lambda path, flags: os.open(path, flags, dir_fd=opened))
                entries[short] = ("file", stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid, info.st_size,
                                  info.st_mtime_ns, info.st_nlink, sum)
                inodes.setdefault((info.st_dev, info.st_ino), []).append(short)
    for paths in inodes.values():
        for path in paths:
            entries[path] += (tuple(sorted(paths)),)
    return entries


def compare(before, after, what):
    for path in sorted(before.keys() | after.keys()):
        expect(before.get(path) == after.get(path), what, path, before.get(path), after.get(path))
