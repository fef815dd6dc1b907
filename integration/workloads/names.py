"""Names of every byte that a name may have, long ones, and ones that are no UTF-8."""
import os

from tools import expect, read, write


def run(work, scratch, options):
    folder = os.fsencode(work)
    wanted = [bytes([byte]) for byte in range(1, 256) if byte not in b"/."]
    wanted += [b"in " + bytes([byte]) + b" side" for byte in range(1, 256) if byte != ord("/")]
    wanted += [b"..." , b".hidden", b" ", b"  leading", b"trailing ", b"a\nb\n", b"\xff\xfe\xc0\x80", b"%s%n", b"*?[", b"-rf"]
    wanted += [b"n" * 255, b"\xe2\x82\xac" * 85, bytes([0x80] * 255)]
    wanted = sorted(set(wanted))
    for name in wanted:
        write(os.path.join(folder, name), b"content of " + name)
    check(folder, wanted)

    too_long = os.path.join(folder, b"n" * 256)
    try:
        write(too_long, b"")
        raise AssertionError("a name of 256 bytes was taken")
    except OSError as error:
        expect(error.strerror == "File name too long", error)

    renamed = []
    for number, name in enumerate(wanted):
        new = name[:200] + b".%d" % number
        os.rename(os.path.join(folder, name), os.path.join(folder, new))
        renamed.append((new, name))
    check(folder, [new for new, _ in renamed])
    for new, name in renamed:
        expect(read(os.path.join(folder, new)) == b"content of " + name, "other content in", new)
        os.symlink(name, os.path.join(folder, b"link"))
        expect(os.readlink(os.path.join(folder, b"link")) == name, "other link target", name)
        os.unlink(os.path.join(folder, b"link"))
    for new, _ in renamed[::2]:
        os.unlink(os.path.join(folder, new))
    check(folder, [new for new, _ in renamed[1::2]])


def check(folder, wanted):
    found = sorted(os.listdir(folder))
    expect(found == sorted(wanted), "missing", [n for n in wanted if n not in found][:5],
           "too many", [n for n in found if n not in wanted][:5])
