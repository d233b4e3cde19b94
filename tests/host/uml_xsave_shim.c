// Preloaded into Debian 12's user-mode Linux 6.1: it hands PTRACE_SETREGSET an XSAVE buffer that is too small on hosts
// whose processors have AMX, and the host's kernel answers EFAULT. This pads the buffer with what is set already.
#define _GNU_SOURCE
#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static char padded[65536];

static long call(long request, long pid, void *address, void *data) {
  return syscall(SYS_ptrace, request, pid, address, data);
}

long ptrace(enum __ptrace_request request, ...) {
  va_list arguments;
  va_start(arguments, request);
  long pid = va_arg(arguments, int);
  void *address = va_arg(arguments, void *);
  void *data = va_arg(arguments, void *);
  va_end(arguments);
  if (request == PTRACE_SETREGSET && (long)address == NT_X86_XSTATE) {
    struct iovec *given = data;
    struct iovec whole = {padded, sizeof padded};
    if (call(PTRACE_GETREGSET, pid, (void *)NT_X86_XSTATE, &whole) == 0 && whole.iov_len > given->iov_len) {
      memcpy(padded, given->iov_base, given->iov_len);
      return call(request, pid, address, &whole);
    }
  }
  if (request >= PTRACE_PEEKTEXT && request <= PTRACE_PEEKUSER) {
    // libc's ptrace returns the word; the system call stores it.
    long word;
    long result = call(request, pid, address, &word);
    return result < 0 ? result : word;
  }
  return call(request, pid, address, data);
}
