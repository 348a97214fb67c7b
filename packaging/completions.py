#!/usr/bin/env python3
"""Completions of a program for bash, zsh or fish, made from what its --help says, so that they cannot say something else.

    completions.py bash|zsh|fish PROGRAM > FILE        run by the build (src/programs/meson.build)
"""
import os
import re
import subprocess
import sys

FILES = {"FILE", "PATH", "F", "JSON|@FILE"}
OPTION = re.compile(r"(--[a-z][a-z-]*)(?:[ =]([A-Z][A-Z0-9_.|@=-]*|[a-z0-9.]+(?:\|[a-z0-9.]+)+))?")  # an argument in brackets may be left out


def understand(help_text, program):
    """(commands: {name: what it does}, options: {command or "": {option: (argument or None, what it does)}})"""
    commands, options = {}, {"": {}}
    for line in help_text.split("\n"):
        usage = re.match(r"  %s (?:\[?([a-z]+)\]? )?(.*)" % re.escape(program), line)
        if usage:
            name = usage.group(1) or ""
            if name:
                commands.setdefault(name, "")
            for option, argument in OPTION.findall(usage.group(2)):
                options.setdefault(name, {}).setdefault(option, (argument or None, ""))
            if "[" + name + "]" in line:  # may be left out
                options[""].update(options[name])
            continue
        entry = re.match(r"( {2,4})((?:--[a-z]|[a-z]+ ?[A-Z\[,]|[a-z]+  ).*)", line)
        if not entry:
            continue
        left, _, text = re.match(r"(.*?)(\s{2,}|$)(.*)", entry.group(2)).groups()
        if left.startswith("--"):
            for option, argument in OPTION.findall(left):
                options[""].setdefault(option, (argument or None, text))
        elif " " in left or text:
            for name in re.findall(r"(?:^|, )([a-z]+)", left):
                commands.setdefault(name, text)
    return commands, options


def choices(argument):
    return argument.split("|") if argument and "|" in argument and argument.islower() else []


def bash(program, commands, options):
    function = "_" + program.replace("-", "_")
    lines = ["# bash completion of %s; made from its --help" % program, "%s()" % function, "{",
             '\tlocal cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} word command=""',
             '\tfor word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do', '\t\tcase $word in',
             '\t\t%s) command=$word; break ;;' % ("|".join(commands) or "''"), '\t\tesac', '\tdone', '\tcase $prev in']
    arguments = {o: a for per in options.values() for o, (a, _) in per.items() if a}
    for option, argument in sorted(arguments.items()):
        if argument in FILES:
            lines.append('\t%s) COMPREPLY=($(compgen -f -- "$cur")); return ;;' % option)
        elif choices(argument):
            lines.append('\t%s) COMPREPLY=($(compgen -W "%s" -- "$cur")); return ;;' % (option, " ".join(choices(argument))))
        else:
            lines.append('\t%s) COMPREPLY=(); return ;;' % option)
    lines += ['\tesac', '\tcase $command in']
    for name in [n for n in options if n]:
        lines.append('\t%s) COMPREPLY=($(compgen -W "%s" -- "$cur")) ;;' % (name, " ".join(sorted(options[name]))))
    words = sorted(options[""]) + list(commands)
    lines += ['\t"") COMPREPLY=($(compgen -W "%s" -- "$cur")) ;;' % " ".join(words),
              '\t*) COMPREPLY=($(compgen -W "%s" -- "$cur")) ;;' % " ".join(sorted(options[""])), '\tesac',
              '\t[ ${#COMPREPLY[@]} -gt 0 ] || COMPREPLY=($(compgen -f -- "$cur"))', "}",
              "complete -o filenames -F %s %s" % (function, program)]
    return lines


def quoted(text):
    return text.replace("'", "’").replace("[", "(").replace("]", ")").replace(":", " -")


def zsh(program, commands, options):
    lines = ["#compdef %s" % program, "# made from its --help", "local -a arguments", "arguments=("]
    every = {}
    for per in options.values():
        every.update(per)
    for option, (argument, text) in sorted(every.items()):
        action = ""
        if argument:
            kind = "_files" if argument in FILES else "(%s)" % " ".join(choices(argument)) if choices(argument) else " "
            action = ":%s:%s" % (quoted(argument), kind)
        lines.append("  '%s[%s]%s'" % (option, quoted(text) or option[2:], action))
    if commands:
        lines.append("  '1:command:((%s))'" % " ".join("%s\\:\"%s\"" % (name, quoted(text).replace('"', "”") or name)
                                                      for name, text in commands.items()))
    return lines + ["  '*:file:_files'", ")", "_arguments -S $arguments"]


def fish(program, commands, options):
    lines = ["# fish completion of %s; made from its --help" % program]
    names = " ".join(commands)
    for name, text in commands.items():
        lines.append("complete -c %s -n 'not __fish_seen_subcommand_from %s' -a %s -d '%s'" % (program, names, name, quoted(text)))
    for command, per in options.items():
        when = "-n '__fish_seen_subcommand_from %s' " % command if command else ""
        for option, (argument, text) in sorted(per.items()):
            how = ""
            if argument:
                how = " -r" + (" -F" if argument in FILES else " -f" + (" -a '%s'" % " ".join(choices(argument)) if choices(argument) else ""))
            lines.append("complete -c %s %s-l %s%s -d '%s'" % (program, when, option[2:], how, quoted(text)))
    return lines


def main():
    shell, path = sys.argv[1:]
    program = os.path.basename(path)
    text = subprocess.run([path, "--help"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True).stdout
    commands, options = understand(text, program)
    if not options[""]:
        sys.exit("%s --help names no option" % program)
    print("\n".join({"bash": bash, "zsh": zsh, "fish": fish}[shell](program, commands, options)))


if __name__ == "__main__":
    main()
