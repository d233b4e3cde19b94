"""Every builtin of bash 5.2 and what it does to a decision: reviewed data.

A builtin never reaches gate two, so whatever it can do beyond printing must be known here. The effect is the name of
the judgement in ``effects.py``; ``plain`` means that no argument of it runs, sets, loads or writes anything. Pure
data. Source: bash(1), "Shell Builtin Commands"; ``compgen -b`` (a test compares the names).
"""

from typing import Final

__all__ = ["BUILTINS", "DECLARATIONS"]

DECLARATIONS: Final = frozenset({"declare", "typeset", "local", "export", "readonly"})

BUILTINS: Final[dict[str, tuple[str, str]]] = {
    ":": ("plain", "does nothing"),
    "true": ("plain", "does nothing"),
    "false": ("plain", "does nothing"),
    "echo": ("plain", "prints its arguments"),
    "pwd": ("plain", "prints the working directory"),
    "cd": ("plain", "changes the working directory; the wall bounds where files are"),
    "pushd": ("plain", "changes the working directory"),
    "popd": ("plain", "changes the working directory"),
    "dirs": ("plain", "prints directories"),
    "exit": ("plain", "ends the shell"),
    "return": ("plain", "ends a function"),
    "break": ("plain", "ends a loop"),
    "continue": ("plain", "goes on with a loop"),
    "shift": ("plain", "drops positional parameters"),
    "times": ("plain", "prints times"),
    "caller": ("plain", "prints the call stack"),
    "logout": ("plain", "ends a login shell"),
    "suspend": ("plain", "stops the shell"),
    "help": ("plain", "prints help"),
    "type": ("plain", "prints what a name means"),
    "umask": ("plain", "sets the mode of files made later"),
    "ulimit": ("plain", "lowers limits; the wall holds the hard ones"),
    "kill": ("plain", "signals processes; judged by the rules as a command, held by the wall"),
    "bg": ("plain", "resumes a job"),
    "fg": ("plain", "resumes a job"),
    "disown": ("plain", "forgets a job"),
    "unalias": ("plain", "removes aliases"),
    "test": ("test", "-v evaluates the subscript of a name"),
    "[": ("test", "-v evaluates the subscript of a name"),
    "printf": ("printf", "-v assigns, and evaluates the subscript of a name"),
    "read": ("read", "assigns; a name's subscript is evaluated"),
    "mapfile": ("mapfile", "assigns; -C runs a command"),
    "readarray": ("mapfile", "assigns; -C runs a command"),
    "getopts": ("getopts", "assigns"),
    "wait": ("wait", "-p assigns, and evaluates the subscript of a name"),
    "declare": ("declare", "assigns, evaluates array lists and subscripts, changes attributes"),
    "typeset": ("declare", "assigns, evaluates array lists and subscripts, changes attributes"),
    "local": ("declare", "assigns, evaluates array lists and subscripts, changes attributes"),
    "export": ("declare", "assigns, and gives variables to programs"),
    "readonly": ("declare", "assigns, evaluates array lists and subscripts"),
    "unset": ("unset", "evaluates the subscript of a name; removes functions"),
    "let": ("let", "evaluates its arguments as arithmetic"),
    "eval": ("eval", "runs its arguments as text"),
    "trap": ("trap", "runs its first argument as text, later"),
    "source": ("never", "runs the text of a file"),
    ".": ("never", "runs the text of a file"),
    "exec": ("wrapper", "replaces the shell by the program that its arguments name"),
    "command": ("wrapper", "runs the builtin or program that its arguments name"),
    "builtin": ("wrapper", "runs the builtin that its arguments name"),
    "jobs": ("jobs", "-x runs its arguments"),
    "set": ("set", "switches options, some of which change how text is read"),
    "shopt": ("shopt", "switches options, some of which change how text is read"),
    "alias": ("arguments", "changes what later words mean where aliases are on"),
    "enable": ("arguments", "loads a builtin from a file, or hides one"),
    "hash": ("hash", "-p chooses which file a command name means"),
    "complete": ("arguments", "stores commands to run"),
    "compgen": ("arguments", "runs commands and expands text"),
    "compopt": ("arguments", "changes completion"),
    "bind": ("arguments", "-x stores commands to run"),
    "fc": ("never", "runs an editor and commands of the history"),
    "history": ("arguments", "reads and writes files, expands history"),
}
