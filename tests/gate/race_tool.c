/* Races between what is checked and what runs. Usage: race_tool WAY MARKER ROUNDS, in a directory of its own.

   Every way has two states, one that a policy allows and one in which /usr/bin/touch would make the marker. Somebody
   flips between them all the time while program after program is executed. Prints how many ran, were refused with an
   errno, were killed, and ended otherwise. Harmless: the program is touch, the other one true. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;
static const char *TOUCH = "/usr/bin/touch", *TRUE = "/usr/bin/true";
static char marker[200], harmless[200], interpreter_line[2][400];

/* What another process can rewrite as well. */
struct shared {
    char word[200];
    char path[200];
    char *words[3];
    int started;
};
static struct shared *shared;
static int target_fd = -1, true_fd = -1, touch_fd = -1;

static void put(const char *path, const void *text, size_t size) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755);
    if (fd < 0) return; /* it is being executed (ETXTBSY) */
    ssize_t put_bytes = write(fd, text, size);
    (void)put_bytes;
    close(fd);
}

static void *bytes_of(const char *path, size_t *size) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat status;
    if (fd < 0 || fstat(fd, &status)) exit(70);
    *size = status.st_size;
    void *found = mmap(NULL, *size, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    return found;
}

static void *program[2];
static size_t program_size[2];

static void copy(const char *to, int bad) { put(to, program[bad], program_size[bad]); }

static void swap_link(const char *name, const char *target) {
    unlink("new"); if (symlink(target, "new") == 0) rename("new", name);
}

static void flip_word(int bad) { memcpy(shared->word, bad ? marker : harmless, strlen(marker) + 1); }
static void flip_pointer(int bad) { __atomic_store_n(&shared->words[1], bad ? marker : harmless, __ATOMIC_SEQ_CST); }
static void flip_path(int bad) { strcpy(shared->path, bad ? TOUCH : TRUE); }
static void flip_link(int bad) { swap_link("run", bad ? TOUCH : TRUE); }
static void flip_interpreter(int bad) { swap_link("interpreter", bad ? TOUCH : TRUE); }
/* A file that is open for writing is not executed (ETXTBSY): what writes lets go of it for a while. */
static void flip_content(int bad) { copy("run", bad); usleep(1500); }
static void flip_first_line(int bad) { put("run", interpreter_line[bad], strlen(interpreter_line[bad])); usleep(1500); }
static void flip_fd(int bad) { dup2(bad ? touch_fd : true_fd, target_fd); }
static void flip_directory(int bad) { if (chdir(bad ? "../bad" : "../good")) _exit(70); }
static void flip_hard_link(int bad) {
    unlink("new"); if (link(bad ? "copy-of-touch" : "copy-of-true", "new") == 0) rename("new", "run");
}
static void flip_memory_file(int bad) {
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", target_fd);
    put(path, program[bad], program_size[bad]);
    usleep(1500);
}
static char *mapped;
static void flip_mapped(int bad) { memcpy(mapped, program[bad], program_size[bad]); }

static void exec_path(void) { execv(shared->path, shared->words); }
static void exec_run(void) { execv("./run", shared->words); }
static void exec_fd(void) { syscall(SYS_execveat, target_fd, "", shared->words, environ, AT_EMPTY_PATH); }

enum agent { THREAD, PROCESS, LEADER, VFORK };
static const struct way {
    const char *name;
    enum agent agent;
    void (*flip)(int);
    void (*start)(void);
} WAYS[] = {
    {"words-thread", THREAD, flip_word, exec_path},
    {"words-process", PROCESS, flip_word, exec_path},
    {"words-leader", LEADER, flip_word, exec_path},
    {"words-vfork", VFORK, flip_word, exec_path},
    {"pointer-thread", THREAD, flip_pointer, exec_path},
    {"pointer-vfork", VFORK, flip_pointer, exec_path},
    {"path-thread", THREAD, flip_path, exec_path},
    {"path-process", PROCESS, flip_path, exec_path},
    {"path-vfork", VFORK, flip_path, exec_path},
    {"link", PROCESS, flip_link, exec_run},
    {"hard-link", PROCESS, flip_hard_link, exec_run},
    {"content", PROCESS, flip_content, exec_run},
    {"mapped", PROCESS, flip_mapped, exec_run},
    {"memory-file", PROCESS, flip_memory_file, exec_fd},
    {"descriptor", THREAD, flip_fd, exec_fd},
    {"directory", THREAD, flip_directory, exec_run},
    {"interpreter", PROCESS, flip_interpreter, exec_run},
    {"first-line", PROCESS, flip_first_line, exec_run},
};

static const struct way *way;
static void *flip_for_ever(void *unused) {
    (void)unused;
    for (;;) { way->flip(1); way->flip(0); }
    return NULL;
}
static void *start_in_thread(void *unused) {
    (void)unused;
    way->start();
    _exit(99);
}

static void linger(int round) {
    for (int spin = (round * 37) % 60; spin > 0; spin--) sched_yield();
}

static void set_up(void) {
    program[0] = bytes_of(TRUE, &program_size[0]);
    program[1] = bytes_of(TOUCH, &program_size[1]);
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (!strncmp(way->name, "pointer", 7)) shared->words[1] = harmless;
    else shared->words[1] = shared->word;
    shared->words[0] = "touch";
    strcpy(shared->word, marker);
    strcpy(shared->path, TOUCH);
    copy("copy-of-true", 0);
    copy("copy-of-touch", 1);
    char here[128];
    if (!getcwd(here, sizeof here)) exit(70);
    snprintf(interpreter_line[0], 400, "#!%s\n", TRUE);
    snprintf(interpreter_line[1], 400, "#!%s\n", TOUCH);
    true_fd = open(TRUE, O_RDONLY | O_CLOEXEC);
    touch_fd = open(TOUCH, O_RDONLY | O_CLOEXEC);
    target_fd = dup(true_fd);
    if (!strcmp(way->name, "interpreter")) {
        char line[400];
        snprintf(line, sizeof line, "#!%s/interpreter\n", here);
        put("run", line, strlen(line));
        flip_interpreter(0);
    } else if (!strcmp(way->name, "directory")) {
        if (mkdir("good", 0755) || mkdir("bad", 0755)) exit(70);
        copy("good/run", 0);
        copy("bad/run", 1);
        if (chdir("good")) exit(70);
    } else if (!strcmp(way->name, "memory-file")) {
        int writable = memfd_create("both", 0);
        char path[64];
        snprintf(path, sizeof path, "/proc/self/fd/%d", writable);
        dup2(open(path, O_RDONLY), target_fd);
        close(writable);
        flip_memory_file(0);
    } else if (!strcmp(way->name, "mapped")) {
        size_t size = program_size[0] > program_size[1] ? program_size[0] : program_size[1];
        copy("run", 0);
        int fd = open("run", O_RDWR | O_CLOEXEC);
        if (ftruncate(fd, size)) exit(70);
        mapped = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        close(fd);
    } else {
        way->flip(0);
    }
}

static pid_t start_child(int round) {
    pthread_t thread;
    if (way->agent == VFORK) {
        linger(round);
        pid_t pid = vfork();
        if (pid == 0) { way->start(); _exit(99); }
        return pid;
    }
    pid_t pid = fork();
    if (pid) return pid;
    if (way->agent != PROCESS) way->flip(round & 1);
    if (way->agent == THREAD) pthread_create(&thread, NULL, flip_for_ever, NULL);
    linger(round);
    if (way->agent == LEADER) {
        pthread_create(&thread, NULL, start_in_thread, NULL);
        flip_for_ever(NULL);
    }
    way->start();
    _exit(99);
}

int main(int count, char **words) {
    if (count != 4) return 64;
    for (size_t at = 0; at < sizeof WAYS / sizeof *WAYS; at++)
        if (!strcmp(WAYS[at].name, words[1])) way = &WAYS[at];
    if (!way) return 64;
    snprintf(marker, sizeof marker, "%s", words[2]);
    memset(harmless, 'h', strlen(marker));
    set_up();
    pid_t agent = 0;
    pthread_t thread;
    if (way->agent == PROCESS && (agent = fork()) == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        flip_for_ever(NULL);
    }
    if (way->agent == VFORK) pthread_create(&thread, NULL, flip_for_ever, NULL);
    int ran = 0, refused = 0, killed = 0, other = 0;
    for (int round = 0; round < atoi(words[3]); round++) {
        int status;
        pid_t pid = start_child(round);
        if (pid < 0 || waitpid(pid, &status, 0) != pid) { other++; continue; }
        if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) killed++;
        else if (WIFEXITED(status) && WEXITSTATUS(status) == 0) ran++;
        else if (WIFEXITED(status) && WEXITSTATUS(status) == 99) refused++;
        else other++;
    }
    if (agent > 0) { kill(agent, SIGKILL); waitpid(agent, NULL, 0); }
    printf("%d %d %d %d\n", ran, refused, killed, other);
    fflush(stdout);
    _exit(0);
}
