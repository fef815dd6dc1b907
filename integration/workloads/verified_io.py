"""fio writes blocks with checksums, in several patterns, and verifies them."""
from tools import expect, sh


def run(work, scratch, options):
    size = "16m" if options.quick else "64m"
    for pattern in ["write", "randwrite", "randrw"]:
        text = sh("fio", "--name=" + pattern, "--directory=" + work, "--size=" + size, "--bs=4k,4k", "--verify_state_save=0", "--rw=" + pattern,
                  "--bsrange=1k-128k", "--verify=crc32c", "--verify_fatal=1", "--do_verify=1", "--fsync=200",
                  "--ioengine=psync", "--numjobs=2", "--group_reporting", "--randseed=7", "--fallocate=none")
        expect("err= 0" in text, pattern, text[-800:])
