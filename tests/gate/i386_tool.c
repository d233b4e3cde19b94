/* A program of 32 bits that needs no libc: what a program does to itself and others, by calls of the i386 table alone.

   gcc -m32 -nostdlib -static -ffreestanding -fno-pie -no-pie -fno-stack-protector -O1 -o i386_tool i386_tool.c

   i386_tool work                 fork, pipes, signals by both kinds of handlers, threads, vfork; says what went wrong
   i386_tool exec PATH [WORD …]   execve; WORD … is argv, argv[0] included
   i386_tool vfork PATH [WORD …]  the same in a child by vfork; ends as the child did
   i386_tool thread PATH [WORD …] the same, called by a thread that is not the first
   i386_tool open PATH [WORD …]   execveat of an open file, with an empty path
   i386_tool race FIRST OTHER …   vfork children that exec a path which a thread flips between two all the time
   i386_tool call NR [ARG …]      one call; says what came of it */

typedef unsigned int word;

static int call(int number, word a, word b, word c, word d, word e) {
  int result;
  __asm__ volatile("int $0x80"
                   : "=a"(result)
                   : "0"(number), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e)
                   : "memory");
  return result;
}

enum {
  EXIT = 1, FORK = 2, READ = 3, WRITE = 4, OPEN = 5, CLOSE = 6, WAITPID = 7, EXECVE = 11, GETPID = 20, KILL = 37,
  PIPE = 42, SIGACTION = 67, CLONE = 120, RT_SIGACTION = 174, VFORK = 190, MMAP2 = 192, GETTID = 224, FUTEX = 240,
  EXIT_GROUP = 252, EXECVEAT = 358
};

static int length(const char *text) {
  int count = 0;
  while (text[count]) count++;
  return count;
}

static void say(const char *text) { call(WRITE, 1, (word)text, length(text), 0, 0); }

static void say_number(int value) {
  char text[12];
  int at = sizeof text;
  word left = value < 0 ? -(word)value : (word)value;
  text[--at] = 0;
  do text[--at] = '0' + left % 10; while (left /= 10);
  if (value < 0) text[--at] = '-';
  say(text + at);
}

static word number_of(const char *text) {
  word value = 0;
  if (text[0] == '0' && text[1] == 'x') {
    for (text += 2; *text; text++) value = value * 16 + (*text <= '9' ? *text - '0' : *text - 'a' + 10);
    return value;
  }
  for (; *text; text++) value = value * 10 + (*text - '0');
  return value;
}

static void fail(const char *what, int result) {
  say(what);
  say(": ");
  say_number(result);
  say("\n");
  call(EXIT_GROUP, 1, 0, 0, 0, 0);
}

static volatile int handled;

static void on_signal(int number) { handled += number; }

/* Where a handler returns to: sigreturn for one of the old kind, rt_sigreturn for the new. */
__asm__(".globl back\nback: popl %eax\nmovl $119,%eax\nint $0x80\n"
        ".globl rt_back\nrt_back: movl $173,%eax\nint $0x80\n");
extern void back(void), rt_back(void);

static void signals(void) {
  struct { void (*handler)(int); word mask, flags; void (*restorer)(void); } old = {on_signal, 0, 0x04000000, back};
  struct { void (*handler)(int); word flags; void (*restorer)(void); word mask[2]; } new = {
      on_signal, 0x04000004, rt_back, {0, 0}};
  int self = call(GETPID, 0, 0, 0, 0, 0), result;
  if ((result = call(SIGACTION, 10, (word)&old, 0, 0, 0))) fail("sigaction", result);
  if ((result = call(RT_SIGACTION, 12, (word)&new, 0, 8, 0))) fail("rt_sigaction", result);
  call(KILL, self, 10, 0, 0, 0);
  call(KILL, self, 12, 0, 0, 0);
  if (handled != 22) fail("signals", handled);
}

static void children(void) {
  int ends[2], status = 0, result;
  char text[3];
  if ((result = call(PIPE, (word)ends, 0, 0, 0, 0))) fail("pipe", result);
  int child = call(FORK, 0, 0, 0, 0, 0);
  if (child == 0) {
    call(WRITE, ends[1], (word) "abc", 3, 0, 0);
    call(EXIT_GROUP, 7, 0, 0, 0, 0);
  }
  result = call(READ, ends[0], (word)text, 3, 0, 0);
  if (result != 3 || text[2] != 'c') fail("read", result);
  result = call(WAITPID, child, (word)&status, 0, 0, 0);
  if (result != child || status != 7 << 8) fail("waitpid", status);
}

/* clone(2) of a thread whose stack begins at ``top``, where its function is; CLONE_VM|FS|FILES|SIGHAND|THREAD|SYSVSEM
   and CLONE_CHILD_CLEARTID, so that who waits on ``ended`` is woken. */
static int thread(void (*function)(void), word *ended) {
  word *top = (word *)(call(MMAP2, 0, 65536, 3, 0x22, -1) + 65536);
  int result;
  *--top = (word)function;
  __asm__ volatile("movl $120,%%eax\nint $0x80\ntestl %%eax,%%eax\njnz 1f\npopl %%eax\ncall *%%eax\n"
                   "movl $1,%%eax\nxorl %%ebx,%%ebx\nint $0x80\n1:"
                   : "=&a"(result)
                   : "b"(0x250f00), "c"(top), "d"(0), "S"(0), "D"(ended)
                   : "memory");
  return result;
}

static volatile word counted, alive[4];

static void count(void) {
  for (int i = 0; i < 1000; i++) __sync_fetch_and_add(&counted, 1);
}

static void threads(void) {
  for (int i = 0; i < 4; i++) {
    alive[i] = 1;
    int result = thread(count, (word *)&alive[i]);
    if (result < 0) fail("clone", result);
  }
  for (int i = 0; i < 4; i++)
    while (alive[i]) call(FUTEX, (word)&alive[i], 0, 1, 0, 0);
  if (counted != 4000) fail("threads", counted);
}

static char **given, **environment;
static volatile word never;

static void exec_given(void) {
  int result = call(EXECVE, (word)given[0], (word)(given + 1), (word)environment, 0, 0);
  fail("execve", result);
}

static int run(char **words) {
  int status = 0;
  int child = call(VFORK, 0, 0, 0, 0, 0);
  if (child == 0) {
    call(EXECVE, (word)words[0], (word)(words + 1), (word)environment, 0, 0);
    call(EXIT, 126, 0, 0, 0, 0);
  }
  if (child < 0) fail("vfork", child);
  call(WAITPID, child, (word)&status, 0, 0, 0);
  return status & 127 ? 128 + (status & 127) : status >> 8 & 255;
}

static char flipped[256];
static char *first_path, *other_path;

static void copy(const char *from) {
  int i = 0;
  do flipped[i] = from[i]; while (from[i++]);
}

static void flip(void) {
  for (;;) copy(other_path), copy(first_path);
}

static void race(char **words) {
  char *argv[] = {flipped, words[1] /* argv[0] */, words[2], 0};
  int ran = 0, refused = 0, killed = 0;
  first_path = words[0], other_path = words[1];
  copy(first_path);
  never = 1;
  int result = thread(flip, (word *)&never);
  if (result < 0) fail("clone", result);
  for (int i = 0; i < 40; i++) {
    int status = run(argv);
    if (status == 126) refused++;
    else if (status >= 128) killed++;
    else ran++;
  }
  say_number(ran), say(" "), say_number(refused), say(" "), say_number(killed), say("\n");
}

static int is(const char *one, const char *other) {
  while (*one && *one == *other) one++, other++;
  return *one == *other;
}

__attribute__((used)) void begin(word *stack) {
  int count_of_words = stack[0];
  char **words = (char **)(stack + 1);
  environment = words + count_of_words + 1;
  given = words + 2;
  int result = 0;
  if (count_of_words < 2) fail("words", count_of_words);
  if (is(words[1], "work")) {
    signals(), children(), threads();
    say("all right\n");
  } else if (is(words[1], "exec")) {
    exec_given();
  } else if (is(words[1], "vfork")) {
    result = run(given);
  } else if (is(words[1], "thread")) {
    never = 1;
    result = thread(exec_given, (word *)&never);
    if (result < 0) fail("clone", result);
    while (never) call(FUTEX, (word)&never, 0, 1, 0, 0);
  } else if (is(words[1], "open")) {
    int file = call(OPEN, (word)given[0], 0, 0, 0, 0);
    if (file < 0) fail("open", file);
    result = call(EXECVEAT, file, (word) "", (word)(given + 1), (word)environment, 0x1000);
    fail("execveat", result);
  } else if (is(words[1], "race")) {
    race(given);
  } else if (is(words[1], "call")) {
    word values[6] = {0};
    for (int i = 2; i < count_of_words && i < 8; i++) values[i - 2] = number_of(words[i]);
    say_number(call(values[0], values[1], values[2], values[3], values[4], values[5]));
    say("\n");
    result = 0;
  }
  call(EXIT_GROUP, result, 0, 0, 0, 0);
}

__asm__(".globl _start\n_start: movl %esp,%eax\npushl %eax\ncall begin\nhlt\n");
