"""Variables that make a program do something else while it still looks like itself: reviewed data.

The exec gate sees which program starts and its arguments, not what its loader then reads nor which proxy it goes
through, so a text that sets one of these runs, as far as any policy can tell, a program that no rule names. Pure.
"""

from typing import Final

__all__ = ["why_gates_miss"]

# Sources: ld.so(8), bash(1), perlrun(1), python(1), node(1), ruby(1), java(1), lua(1), openssl config(5).
_LOADERS: Final = {
    "LD_PRELOAD": "the dynamic loader loads it into every program",
    "LD_AUDIT": "the dynamic loader loads it into every program",
    "LD_LIBRARY_PATH": "the dynamic loader takes libraries from there",
    "GCONV_PATH": "libc loads character converters from there",
    "LOCPATH": "libc reads locale files from there",
    "NLSPATH": "libc reads message files from there",
    "BASH_ENV": "bash runs that file when it starts",
    "PERL5OPT": "perl takes options, -M among them, from it",
    "PERL5LIB": "perl loads modules from there",
    "PERL5DB": "perl runs it under -d",
    "PERLLIB": "perl loads modules from there",
    "PYTHONPATH": "python loads modules, sitecustomize among them, from there",
    "PYTHONHOME": "python loads its library from there",
    "PYTHONSTARTUP": "python runs that file",
    "PYTHONUSERBASE": "python loads modules from there",
    "PYTHONBREAKPOINT": "python calls what it names",
    "RUBYOPT": "ruby takes options, -r among them, from it",
    "RUBYLIB": "ruby loads files from there",
    "GEM_PATH": "ruby loads files from there",
    "NODE_OPTIONS": "node takes options, --require among them, from it",
    "NODE_PATH": "node loads modules from there",
    "LUA_INIT": "lua runs it",
    "LUA_PATH": "lua loads modules from there",
    "LUA_CPATH": "lua loads modules from there",
    "JAVA_TOOL_OPTIONS": "java takes options, -javaagent among them, from it",
    "_JAVA_OPTIONS": "java takes options, -javaagent among them, from it",
    "JDK_JAVA_OPTIONS": "java takes options, -javaagent among them, from it",
    "CLASSPATH": "java loads classes from there",
    "OPENSSL_CONF": "libcrypto loads the modules it names",
    "OPENSSL_ENGINES": "libcrypto loads engines from there",
    "OPENSSL_MODULES": "libcrypto loads providers from there",
    "GIT_EXEC_PATH": "git takes its own subcommands from there",
    "PHPRC": "php reads settings from there",
    "PHP_INI_SCAN_DIR": "php reads settings from there",
    "GTK_MODULES": "gtk loads it",
    "QT_PLUGIN_PATH": "qt loads plug-ins from there",
    "AWKPATH": "gawk takes program files from there",
    "AWKLIBPATH": "gawk loads extensions from there",
    "TERMINFO": "curses reads terminal descriptions from there",
}

# A rule that names a URL would let any host be asked. Sources: curl(1) and wget(1), "ENVIRONMENT".
_ROUTES: Final = {
    **{
        name: "curl, wget and others connect to that proxy"
        for scheme in ("http", "https", "ftp", "all")
        for name in (f"{scheme}_proxy", f"{scheme}_proxy".upper())
    },
    "CURL_HOME": "curl reads settings, destinations among them, from there",
    "WGETRC": "wget reads settings, proxies among them, from there",
}


def why_gates_miss(name: str) -> str | None:
    """Return why neither gate sees what setting the variable makes the programs that follow do, or None."""
    reason = _LOADERS.get(name) or _ROUTES.get(name)
    if reason is None and name.startswith(("LD_", "DYLD_")):
        reason = "the dynamic loader reads it"
    if reason is None and name.startswith("BASH_FUNC_"):
        reason = "bash takes a function from it"
    return f"{name}: {reason}" if reason else None
