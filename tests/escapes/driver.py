"""Runs many attack bodies, each in a child of its own, and prints one JSON object: name -> the child's one line.

Put behind `attacker.py`; reads a JSON list of [name, body, private] from standard input. Runs inside the sandbox and,
for twins, outside.
"""
# ruff: noqa: F821 - attacker.py stands before this text

import json
import signal


def run_body(name, body, private):
    space = dict(globals())
    text = "def attack():\n    " + body
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        os.dup2(writing, 1)
        os.closerange(3, 64)
        if private:
            private_mounts()
        exec(compile(text, name, "exec"), space)
        report(space["attack"])
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read().decode("utf-8", "replace").strip()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status == -signal.SIGSYS:
        return "SIGSYS"
    if status < 0:
        return f"SIGNAL {-status}"
    return said.splitlines()[-1] if said else f"EXIT {status}"


if __name__ == "__main__":
    wanted = json.load(sys.stdin)
    if len(wanted) == 1:
        # Alone: no pipe, no second process; the descriptors are those that the sandbox gave.
        space = dict(globals())
        exec(compile("def attack():\n    " + wanted[0][1], wanted[0][0], "exec"), space)
        report(space["attack"])
    else:
        print(json.dumps({name: run_body(name, body, private) for name, body, private in wanted}))
