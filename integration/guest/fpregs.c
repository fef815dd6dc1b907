/*
 * Preloaded into User Mode Linux kernels before 6.13 on CPUs with AMX.
 *
 * Those kernels keep a process's floating point state in 2,696 bytes. A host
 * CPU with AMX has some 11 KB of it: PTRACE_GETREGSET answers cut short, and
 * PTRACE_SETREGSET refuses what does not fit (EFAULT), which kills the guest's
 * init. Here a short state is laid over the beginning of the whole one, where
 * x87, SSE, AVX and AVX-512 live; only AMX tiles, which a guest program cannot
 * ask for, are left as they are. On other CPUs it changes nothing.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define XSTATE 0x202 /* NT_X86_XSTATE */

static long exchange_state(enum __ptrace_request request, pid_t pid, struct iovec *part)
{
	static unsigned char state[65536] __attribute__((aligned(64)));
	struct iovec whole = { state, sizeof state };
	long result = syscall(SYS_ptrace, PTRACE_GETREGSET, pid, (void *)XSTATE, &whole);

	if (result < 0)
		return result;
	size_t length = part->iov_len < whole.iov_len ? part->iov_len : whole.iov_len;
	if (request == PTRACE_GETREGSET) {
		memcpy(part->iov_base, state, length);
		part->iov_len = length;
		return 0;
	}
	memcpy(state, part->iov_base, length);
	return syscall(SYS_ptrace, PTRACE_SETREGSET, pid, (void *)XSTATE, &whole);
}

long ptrace(enum __ptrace_request request, ...)
{
	va_list rest;
	va_start(rest, request);
	pid_t pid = va_arg(rest, int);
	void *address = va_arg(rest, void *), *data = va_arg(rest, void *);
	va_end(rest);

	if ((request == PTRACE_GETREGSET || request == PTRACE_SETREGSET) && (long)address == XSTATE)
		return exchange_state(request, pid, data);
	if (request == PTRACE_PEEKTEXT || request == PTRACE_PEEKDATA || request == PTRACE_PEEKUSER) {
		/* the bare system call stores the word; the library function returns it */
		long word = 0;
		long result = syscall(SYS_ptrace, request, pid, address, &word);
		if (result < 0)
			return result;
		errno = 0;
		return word;
	}
	return syscall(SYS_ptrace, request, pid, address, data);
}
