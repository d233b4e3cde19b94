/* Ways to start a program that no shell has a word for. Usage: attack_tool WAY MARKER. Harmless: the program is touch. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;
static const char *TOUCH = "/usr/bin/touch";
static char marker[256];
static char *arguments[] = {"touch", marker, NULL};
static char shown[256];
static volatile int stop_now;

static int copy_to(int to) {
    char buffer[65536];
    int from = open(TOUCH, O_RDONLY);
    ssize_t got;
    while ((got = read(from, buffer, sizeof buffer)) > 0)
        if (write(to, buffer, got) != got) return -1;
    close(from);
    return 0;
}

static int wait_for(pid_t pid) {
    int status;
    while (waitpid(pid, &status, __WALL) < 0 && errno == EINTR) {}
    return 0;
}

static void *exec_in_thread(void *unused) {
    (void)unused;
    execv(TOUCH, arguments);
    return NULL;
}

/* Another thread rewrites the words while execve copies them. */
static void *flip_words(void *unused) {
    (void)unused;
    size_t size = strlen(marker) + 1;
    static char good[256], bad[256];
    memcpy(bad, marker, size);
    memset(good, 'h', size - 1);
    while (!stop_now) { memcpy(shown, good, size); memcpy(shown, bad, size); }
    return NULL;
}

static char path_word[256];
static void *flip_path(void *unused) {
    (void)unused;
    while (!stop_now) { strcpy(path_word, "/usr/bin/true "); path_word[13] = 0; strcpy(path_word, "/usr/bin/touch"); }
    return NULL;
}

static int race(void *(*flip)(void *), char *path, char **words, int rounds) {
    pthread_t thread;
    for (int i = 0; i < rounds; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            pthread_create(&thread, NULL, flip, NULL);
            for (int spin = 0; spin < (i * 37) % 5000; spin++) sched_yield();
            for (int tries = 0; tries < 50; tries++) execv(path, words);
            _exit(1);
        }
        wait_for(pid);
    }
    return 0;
}

static int exec_child(void *unused) {
    (void)unused;
    execv(TOUCH, arguments);
    _exit(1);
}

static int by_clone(int flags) {
    char *stack = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    pid_t pid = clone(exec_child, stack + (1 << 20), flags, NULL);
    if (pid < 0) return 2;
    wait_for(pid);
    usleep(300000);
    return 0;
}

int main(int count, char **words) {
    if (count < 3) return 64;
    const char *way = words[1];
    snprintf(marker, sizeof marker, "%s", words[2]);
    if (!strcmp(way, "execveat")) {
        int fd = open(TOUCH, O_RDONLY);
        syscall(SYS_execveat, fd, "", arguments, environ, AT_EMPTY_PATH);
    } else if (!strcmp(way, "execveat-path-fd")) {
        int fd = open(TOUCH, O_PATH);
        syscall(SYS_execveat, fd, "", arguments, environ, AT_EMPTY_PATH);
    } else if (!strcmp(way, "execveat-dirfd")) {
        int fd = open("/usr/bin", O_PATH | O_DIRECTORY);
        syscall(SYS_execveat, fd, "touch", arguments, environ, 0);
    } else if (!strcmp(way, "fexecve")) {
        fexecve(open(TOUCH, O_RDONLY), arguments, environ);
    } else if (!strcmp(way, "proc-fd")) {
        char path[64];
        snprintf(path, sizeof path, "/proc/self/fd/%d", open(TOUCH, O_RDONLY));
        execv(path, arguments);
    } else if (!strcmp(way, "proc-fd-dir")) {
        char path[64];
        snprintf(path, sizeof path, "/proc/self/fd/%d/touch", open("/usr/bin", O_RDONLY | O_DIRECTORY));
        execv(path, arguments);
    } else if (!strcmp(way, "memfd") || !strcmp(way, "memfd-append")) {
        int fd = memfd_create("harmless", 0);
        if (copy_to(fd)) return 2;
        if (way[5] && write(fd, "padding", 7) != 7) return 2;
        char path[64];
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        execv(path, arguments);
    } else if (!strcmp(way, "memfd-cloexec")) {
        int fd = memfd_create("harmless", MFD_CLOEXEC);
        if (copy_to(fd)) return 2;
        syscall(SYS_execveat, fd, "", arguments, environ, AT_EMPTY_PATH);
    } else if (!strcmp(way, "deleted-copy")) {
        int fd = open("gone", O_RDWR | O_CREAT | O_TRUNC, 0755);
        if (copy_to(fd)) return 2;
        close(fd);
        fd = open("gone", O_RDONLY);
        unlink("gone");
        syscall(SYS_execveat, fd, "", arguments, environ, AT_EMPTY_PATH);
    } else if (!strcmp(way, "false-name")) {
        char *other[] = {"harmless", marker, NULL};
        execv(TOUCH, other);
    } else if (!strcmp(way, "no-name")) {
        char *other[] = {"", marker, NULL};
        execv(TOUCH, other);
    } else if (!strcmp(way, "path-as-name")) {
        char *other[] = {"/usr/bin/true", marker, NULL};
        execv(TOUCH, other);
    } else if (!strcmp(way, "script-like-words")) {
        /* As the kernel would hand a script called "touch's own path" to an interpreter. */
        char *other[] = {"sh", "/usr/bin/touch", marker, NULL};
        char *less[] = {"sh", marker, NULL};
        (void)other;
        execv(TOUCH, less);
    } else if (!strcmp(way, "vfork")) {
        pid_t pid = vfork();
        if (pid == 0) { execv(TOUCH, arguments); _exit(1); }
        wait_for(pid);
    } else if (!strcmp(way, "posix-spawn")) {
        pid_t pid;
        if (posix_spawn(&pid, TOUCH, NULL, NULL, arguments, environ) == 0) wait_for(pid);
    } else if (!strcmp(way, "thread")) {
        pthread_t thread;
        pthread_create(&thread, NULL, exec_in_thread, NULL);
        pthread_join(thread, NULL);
    } else if (!strcmp(way, "thread-leader-gone")) {
        pthread_t thread;
        pthread_create(&thread, NULL, exec_in_thread, NULL);
        pthread_exit(NULL);
    } else if (!strcmp(way, "thread-of-child")) {
        pid_t pid = fork();
        if (pid == 0) {
            pthread_t thread;
            pthread_create(&thread, NULL, exec_in_thread, NULL);
            pthread_join(thread, NULL);
            _exit(1);
        }
        wait_for(pid);
    } else if (!strcmp(way, "double-fork")) {
        if (fork() == 0) {
            setsid();
            if (fork() == 0) { execv(TOUCH, arguments); _exit(1); }
            _exit(0);
        }
        usleep(300000);
    } else if (!strcmp(way, "deep-tree")) {
        for (int depth = 0; depth < 60; depth++) {
            pid_t pid = fork();
            if (pid) { wait_for(pid); return 0; }
        }
        execv(TOUCH, arguments);
    } else if (!strcmp(way, "orphan-of-killed")) {
        pid_t pid = fork();
        if (pid == 0) {
            if (fork() == 0) { usleep(100000); execv(TOUCH, arguments); _exit(1); }
            kill(getpid(), SIGKILL);
        }
        wait_for(pid);
        usleep(400000);
    } else if (!strcmp(way, "clone-parent")) {
        return by_clone(CLONE_PARENT | SIGCHLD);
    } else if (!strcmp(way, "clone-vm")) {
        return by_clone(CLONE_VM | SIGCHLD);
    } else if (!strcmp(way, "clone-no-signal")) {
        return by_clone(0);
    } else if (!strcmp(way, "clone-files-fs")) {
        return by_clone(CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_VM | SIGCHLD);
    } else if (!strcmp(way, "clone-io-sysvsem")) {
        return by_clone(CLONE_IO | CLONE_SYSVSEM | SIGUSR1);
    } else if (!strcmp(way, "clone-untraced")) {
        return by_clone(CLONE_UNTRACED | SIGCHLD);
    } else if (!strcmp(way, "clone-new-user")) {
        return by_clone(CLONE_NEWUSER | SIGCHLD);
    } else if (!strcmp(way, "clone-new-pid")) {
        return by_clone(CLONE_NEWPID | SIGCHLD);
    } else if (!strcmp(way, "traceme")) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        execv(TOUCH, arguments);
    } else if (!strcmp(way, "seize-sibling")) {
        pid_t pid = fork();
        if (pid == 0) { usleep(100000); execv(TOUCH, arguments); _exit(1); }
        ptrace(PTRACE_SEIZE, pid, 0, 0);
        wait_for(pid);
    } else if (!strcmp(way, "race-words")) {
        char *racing[] = {"touch", shown, NULL};
        strcpy(shown, marker);
        return race(flip_words, (char *)TOUCH, racing, 15);
    } else if (!strcmp(way, "race-path")) {
        strcpy(path_word, "/usr/bin/touch");
        return race(flip_path, path_word, arguments, 15);
    } else if (!strcmp(way, "race-link")) {
        /* Another process swaps the link between harmless and touch. */
        pid_t swapper = fork();
        if (swapper == 0)
            for (;;) {
                unlink("a"); symlink("/usr/bin/true", "a"); rename("a", "link");
                unlink("b"); symlink(TOUCH, "b"); rename("b", "link");
            }
        for (int i = 0; i < 60; i++) {
            pid_t pid = fork();
            if (pid == 0) { execv("./link", arguments); _exit(1); }
            wait_for(pid);
        }
        kill(swapper, SIGKILL);
        wait_for(swapper);
    } else if (!strcmp(way, "race-script-link")) {
        /* The link leads to a script while it is looked at, and to touch while it is executed. */
        int fd = open("plain.sh", O_WRONLY | O_CREAT | O_TRUNC, 0755);
        if (write(fd, "#!/bin/sh\n", 10) != 10) return 2;
        close(fd);
        char *likely[] = {"sh", "./link", marker, NULL};
        pid_t swapper = fork();
        if (swapper == 0)
            for (;;) {
                unlink("a"); symlink("plain.sh", "a"); rename("a", "link");
                unlink("b"); symlink(TOUCH, "b"); rename("b", "link");
            }
        for (int i = 0; i < 60; i++) {
            pid_t pid = fork();
            if (pid == 0) { execv("./link", likely); _exit(1); }
            wait_for(pid);
        }
        kill(swapper, SIGKILL);
        wait_for(swapper);
    } else if (!strcmp(way, "race-file")) {
        /* Another process swaps the file itself. */
        int fd = open("copy", O_WRONLY | O_CREAT | O_TRUNC, 0755);
        if (copy_to(fd)) return 2;
        close(fd);
        pid_t swapper = fork();
        if (swapper == 0)
            for (;;) {
                unlink("a"); symlink("/usr/bin/true", "a"); rename("a", "run");
                unlink("b"); if (link("copy", "b")) _exit(1); rename("b", "run");
            }
        for (int i = 0; i < 60; i++) {
            pid_t pid = fork();
            if (pid == 0) { execv("./run", arguments); _exit(1); }
            wait_for(pid);
        }
        kill(swapper, SIGKILL);
        wait_for(swapper);
    } else if (!strcmp(way, "race-loader")) {
        pid_t swapper = fork();
        if (swapper == 0)
            for (;;) {
                unlink("a"); symlink("/usr/bin/true", "a"); rename("a", "link");
                unlink("b"); symlink(TOUCH, "b"); rename("b", "link");
            }
        char *loader[] = {"ld.so", "./link", marker, NULL};
        for (int i = 0; i < 60; i++) {
            pid_t pid = fork();
            if (pid == 0) { execv("/lib64/ld-linux-x86-64.so.2", loader); _exit(1); }
            wait_for(pid);
        }
        kill(swapper, SIGKILL);
        wait_for(swapper);
    } else if (!strcmp(way, "write-memory")) {
        /* Rewrite the words of a program that runs already. */
        pid_t pid = fork();
        if (pid == 0) { execl("/usr/bin/sleep", "sleep", "1", NULL); _exit(1); }
        usleep(200000);
        char path[64];
        snprintf(path, sizeof path, "/proc/%d/mem", pid);
        int fd = open(path, O_RDWR);
        struct iovec mine = {marker, 1}, theirs = {(void *)environ, 1};
        ssize_t put = process_vm_writev(pid, &mine, 1, &theirs, 1, 0);
        if (fd >= 0 || put >= 0) { execv(TOUCH, (char *[]){"touch", "MEMORY-WRITABLE", NULL}); }
        wait_for(pid);
#ifdef __x86_64__
    } else if (!strcmp(way, "int80")) {
        /* execve of the 32-bit table, with pointers below 4 GiB. */
        char *low = mmap((void *)0x10000000, 4096, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        strcpy(low, TOUCH);
        strcpy(low + 64, marker);
        unsigned *vector = (unsigned *)(low + 512);
        vector[0] = (unsigned)(unsigned long)low;
        vector[1] = (unsigned)(unsigned long)(low + 64);
        vector[2] = 0;
        long result;
        __asm__ volatile("int $0x80" : "=a"(result) : "a"(11), "b"(low), "c"(vector), "d"(0) : "memory");
    } else if (!strcmp(way, "x32")) {
        syscall(0x40000000 | 520, TOUCH, arguments, environ);
#endif
    } else {
        return 64;
    }
    return 1;
}
