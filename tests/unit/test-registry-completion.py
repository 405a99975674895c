#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The shell completions of tbnode-registry: bash's is asked for each command and compared with --help; zsh's must name the
same words, and zsh must be able to read it."""

import os
import re
import shutil
import subprocess
import tempfile
import unittest

SOURCE, BUILD = os.environ["TBNODE_SOURCE_DIR"], os.environ["TBNODE_BUILD_DIR"]
BASH = f"{SOURCE}/data/completions/tbnode-registry.bash"
ZSH = f"{SOURCE}/data/completions/_tbnode-registry"
SANDBOX_ENV = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}


def help_of(*args):
    return subprocess.run([f"{BUILD}/registry-client/tbnode-registry", *args, "--help"], check=True, text=True,
                          stdout=subprocess.PIPE, timeout=30).stdout


def commands():
    return re.findall(r"^  ([a-z]+) ", help_of().split("Commands:")[1].split("Options:")[0], re.M)


def options(*args):
    return set(re.findall(r"^  (?:-\w, )?(--[a-z-]+)", help_of(*args), re.M))


def complete(*words, env=None):
    """What bash would offer for the last of these words."""
    script = ('source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _tbnode_registry; '
              'printf "%s\\n" "${COMPREPLY[@]}"')
    out = subprocess.run(["bash", "-c", script, "bash", BASH, "tbnode-registry", *words], text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=30, env={**SANDBOX_ENV, **(env or {})})
    if out.stderr:
        raise AssertionError(out.stderr)
    return set(out.stdout.split())


class Bash(unittest.TestCase):
    def test_commands(self):
        self.assertEqual(complete(""), set(commands()))
        self.assertEqual(complete("lo"), {"login", "logout"})
        self.assertEqual(complete("--json", "re"), {"referrers"})
        self.assertEqual(complete("--docker-config", "x", "re"), {"referrers"})
        self.assertEqual(complete("--tls-ca", "h", "=", "f", "re"), {"referrers"})

    def test_options_of_each_command(self):
        for command in commands():
            with self.subTest(command):
                self.assertEqual(complete(command, "--"), options(command))
                self.assertEqual(complete("--json", command, "something", "--"), options(command))

    def test_values(self):
        with tempfile.TemporaryDirectory() as d:
            os.mkdir(f"{d}/folder")
            with open(f"{d}/file", "w", encoding="utf-8"):
                pass
            self.assertEqual(complete("manifest", "-o", f"{d}/f"), {f"{d}/file", f"{d}/folder"})
            self.assertEqual(complete("copy", "--resume-dir", f"{d}/f"), {f"{d}/folder"})
            self.assertEqual(complete("ping", "--tls-ca", "host", "=", f"{d}/fi"), {f"{d}/file"})
            self.assertEqual(complete("copy", "docker-archive", ":", f"{d}/fi"), {f"{d}/file"})
            self.assertEqual(complete("copy", "oci", ":", f"{d}/f"), {f"{d}/folder"})
        self.assertIn("linux/arm64", complete("inspect", "--platform", "linux/a"))
        self.assertEqual(complete("copy", "o"), {"oci:"})

    def test_hosts_come_from_dockers_configuration(self):
        with tempfile.TemporaryDirectory() as d:
            with open(f"{d}/config.json", "w", encoding="utf-8") as f:
                f.write('{\n\t"auths": {\n\t\t"https://index.docker.io/v1/": {},\n\t\t"registry.example:5000": {\n'
                        '\t\t\t"auth": "eDp5"\n\t\t}\n\t}\n}\n')
            self.assertEqual(complete("logout", "", env={"DOCKER_CONFIG": d}), {"docker.io", "registry.example:5000"})


class Zsh(unittest.TestCase):
    def test_names_the_same_words(self):
        with open(ZSH, encoding="utf-8") as f:
            text = f.read()
        self.assertEqual(re.findall(r"^        '([a-z]+):", text, re.M), commands())
        everything = set().union(*(options(c) for c in commands()))
        self.assertEqual({o for o in everything if not re.search(rf"{o}\b(?!-)", text)}, set())
        self.assertEqual(set(re.findall(r"--[a-z][a-z-]+", text)) - everything, set())

    @unittest.skipUnless(shutil.which("zsh"), "zsh is not installed")
    def test_zsh_reads_it(self):
        subprocess.run(["zsh", "-n", ZSH], check=True, timeout=30)


if __name__ == "__main__":
    unittest.main(verbosity=2)
