/* A preloaded library in which one system call that writes fails, once: for tests of a run's write side.
 *
 *   FAULT_FOLDER  calls that concern files below it are counted, by rank, from 0
 *   FAULT_RANK    whose call fails (OMPI_COMM_WORLD_RANK; 0 without a launcher)
 *   FAULT_AT      which of them; -1: none
 *   FAULT_KIND    EIO, ENOSPC, EINTR, or SHORT: a write writes half (other calls go through)
 *   FAULT_LOG     a file to which a line "RANK NUMBER CALL PATH" is appended for every call
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static atomic_long calls;

static int rank_of_this(void) {
    const char* rank = getenv("OMPI_COMM_WORLD_RANK");
    return rank == NULL ? 0 : atoi(rank);
}

static void note(long number, const char* call, const char* path) {
    const char* log = getenv("FAULT_LOG");
    if (log == NULL) return;
    char line[PATH_MAX + 64];
    int length = snprintf(line, sizeof line, "%d %ld %s %s\n", rank_of_this(), number, call, path);
    int file = (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
    if (file < 0) return;
    if (syscall(SYS_write, file, line, length) < 0) abort();
    syscall(SYS_close, file);
}

enum fate { normal, failing, shortened };

/* What becomes of a call that concerns `path`; errno is set when it fails. */
static enum fate fate_of(const char* call, const char* path) {
    const char *folder = getenv("FAULT_FOLDER"), *at = getenv("FAULT_AT"), *kind = getenv("FAULT_KIND");
    if (folder == NULL || path == NULL) return normal;
    char absolute[PATH_MAX];
    if (path[0] != '/') {
        if (getcwd(absolute, sizeof absolute) == NULL) return normal;
        size_t used = strlen(absolute);
        snprintf(absolute + used, sizeof absolute - used, "/%s", path);
        path = absolute;
    }
    if (strncmp(path, folder, strlen(folder)) != 0) return normal;
    long number = atomic_fetch_add(&calls, 1);
    int saved = errno;
    note(number, call, path);
    errno = saved;
    const char* rank = getenv("FAULT_RANK");
    if (at == NULL || kind == NULL || atol(at) != number || (rank != NULL && atoi(rank) != rank_of_this())) return normal;
    if (strcmp(kind, "SHORT") == 0) return shortened;
    errno = strcmp(kind, "EIO") == 0 ? EIO : strcmp(kind, "EINTR") == 0 ? EINTR : ENOSPC;
    return failing;
}

static enum fate fate_of_open_file(const char* call, int file) {
    char link[64], path[PATH_MAX];
    int saved = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    errno = saved;
    if (length <= 0 || path[0] != '/') return normal; /* a pipe or a socket */
    path[length] = '\0';
    return fate_of(call, path);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

#define WRITE(name, parameters, arguments, halved)                       \
    ssize_t name parameters {                                            \
        switch (fate_of_open_file(#name, file)) {                        \
            case failing: return -1;                                     \
            case shortened: return REAL(name) halved;                    \
            default: return REAL(name) arguments;                        \
        }                                                                \
    }

static size_t half(size_t n) { return n > 1 ? n / 2 : n; }

WRITE(write, (int file, const void* data, size_t n), (file, data, n), (file, data, half(n)))
WRITE(pwrite, (int file, const void* data, size_t n, off_t at), (file, data, n, at), (file, data, half(n), at))
WRITE(pwrite64, (int file, const void* data, size_t n, off64_t at), (file, data, n, at), (file, data, half(n), at))
WRITE(writev, (int file, const struct iovec* parts, int n), (file, parts, n), (file, parts, n > 1 ? n / 2 : n))
WRITE(pwritev, (int file, const struct iovec* parts, int n, off_t at), (file, parts, n, at),
      (file, parts, n > 1 ? n / 2 : n, at))

#define OF_FILE(name, parameters, arguments)                                                  \
    int name parameters { return fate_of_open_file(#name, file) == failing ? -1 : REAL(name) arguments; }

OF_FILE(fsync, (int file), (file))
OF_FILE(fdatasync, (int file), (file))
OF_FILE(ftruncate, (int file, off_t n), (file, n))
OF_FILE(ftruncate64, (int file, off64_t n), (file, n))
OF_FILE(fallocate, (int file, int mode, off_t at, off_t n), (file, mode, at, n))
OF_FILE(fallocate64, (int file, int mode, off64_t at, off64_t n), (file, mode, at, n))

/* A close that fails has closed the file all the same. */
int close(int file) {
    int flags = fcntl(file, F_GETFL);
    int fails = flags >= 0 && (flags & O_ACCMODE) != O_RDONLY && fate_of_open_file("close", file) == failing;
    int reason = errno, result = REAL(close)(file);
    if (!fails) return result;
    errno = reason;
    return -1;
}

#define OF_PATH(name, parameters, arguments, path) \
    int name parameters { return fate_of(#name, path) == failing ? -1 : REAL(name) arguments; }

OF_PATH(rename, (const char* from, const char* to), (from, to), to)
OF_PATH(renameat2, (int a, const char* from, int b, const char* to, unsigned flags), (a, from, b, to, flags), to)
OF_PATH(link, (const char* from, const char* to), (from, to), to)
OF_PATH(unlink, (const char* path), (path), path)
OF_PATH(rmdir, (const char* path), (path), path)
OF_PATH(mkdir, (const char* path, mode_t mode), (path, mode), path)

#define OPEN(name)                                                                             \
    int name(const char* path, int flags, ...) {                                               \
        va_list rest;                                                                          \
        va_start(rest, flags);                                                                 \
        mode_t mode = (flags & O_CREAT) != 0 ? va_arg(rest, mode_t) : 0;                       \
        va_end(rest);                                                                          \
        int writes = (flags & O_ACCMODE) != O_RDONLY;                                          \
        return writes && fate_of(#name, path) == failing ? -1 : REAL(name)(path, flags, mode); \
    }

OPEN(open)
OPEN(open64)
