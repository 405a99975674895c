# SPDX-License-Identifier: LGPL-2.1-or-later
"""The programs of the payload, each built by itself and kept under a digest of everything it was built from."""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile

from kit.common import Failed, environment, jobs, run, say, sha256_file
from kit.sources import unpack
from kit.toolchain import LD_FLAGS

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# Programs without which a node can't run; a newer busybox may rename an option, and this must not go unnoticed.
NEEDED_APPLETS = {"sh", "runsv", "sv", "svlogd", "chpst", "syslogd", "ls", "cat", "ps", "ip", "vi", "tar"}
WARNINGS = """-Wall -Wextra -Wno-unused-parameter -Wno-missing-field-initializers -Wmissing-prototypes
    -Wmissing-declarations -Werror=implicit-function-declaration -Werror=int-conversion
    -Werror=incompatible-pointer-types -Werror=return-type -Wformat=2 -Wshadow -Wundef -Wstrict-prototypes
    -Wold-style-definition -Wpointer-arith -Wswitch-enum -Wvla -Wwrite-strings""".split()


def component(cache, name, inputs, build):
    """Returns the directory of a built component; builds it when no build of exactly these inputs is there."""
    digest = hashlib.sha256(name.encode())
    for text in inputs:
        part = sha256_file(text) if os.path.isabs(text) else hashlib.sha256(text.encode()).hexdigest()
        digest.update(part.encode())
    final = f"{cache}/built/{name}-{digest.hexdigest()[:32]}"
    if os.path.isdir(final):
        return final
    say(f"building {name}")
    os.makedirs(f"{cache}/built", exist_ok=True)
    output = tempfile.mkdtemp(prefix="new-", dir=f"{cache}/built")
    try:
        build(output)
        os.chmod(output, 0o755)
        os.rename(output, final)
    except BaseException:
        shutil.rmtree(output, ignore_errors=True)
        raise
    return final


def configure_busybox(tree, fragment, log):
    """.config = the fragment, and everything else that a Config.in knows switched off. (allnoconfig isn't enough: an
    option that only becomes visible through the fragment would get its default, which mostly is y.)"""
    run(["make", "allnoconfig"], cwd=tree, env=environment(), log=log)
    known = set()
    for directory, _, names in os.walk(tree):
        for name in names:
            if name == "Config.in":
                with open(f"{directory}/{name}", errors="replace", encoding="utf-8") as f:
                    known.update(re.findall(r"^\s*config\s+([A-Z0-9_]+)", f.read(), re.M))
    with open(fragment, encoding="utf-8") as f:
        wanted = dict(re.findall(r"^CONFIG_([A-Z0-9_]+)=(.*)$", f.read(), re.M))
    with open(f"{tree}/.config", "w", encoding="utf-8") as f:
        for name in sorted(known | set(wanted)):
            value = wanted.get(name, "n")
            f.write(f"# CONFIG_{name} is not set\n" if value == "n" else f"CONFIG_{name}={value}\n")
    done = subprocess.run(["make", "oldconfig"], cwd=tree, env=environment(), input=b"\n" * 2000,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    with open(f"{tree}/.config", encoding="utf-8") as f:
        got = dict(re.findall(r"^CONFIG_([A-Z0-9_]+)=(.*)$", f.read(), re.M))
    if done.returncode != 0:
        raise Failed(f"busybox: make oldconfig failed:\n{done.stdout.decode(errors='replace')[-2000:]}")
    lost = sorted(name for name, value in wanted.items() if value != "n" and got.get(name) != value)
    if lost:
        say(f"note: this busybox doesn't know, or can't have: {' '.join(lost)}")


def build_busybox(tools, sources, work, output):
    tree = unpack(sources, "busybox", work)
    log = f"{work}/busybox.log"
    configure_busybox(tree, f"{HERE}/busybox.config", log)
    run(["make", jobs(), f"CROSS_COMPILE={tools.prefix}", f"CC={tools.cc}", "HOSTCC=gcc",
         f"EXTRA_CFLAGS={tools.flags(tree)}", f"EXTRA_LDFLAGS={LD_FLAGS}", "SKIP_STRIP=y", "busybox", "busybox.links"],
        cwd=tree, env=environment(), log=log)
    tools.strip(f"{tree}/busybox", f"{output}/busybox")
    with open(f"{tree}/busybox.links", encoding="utf-8") as f:
        links = sorted({os.path.basename(line.strip()) for line in f if line.strip()})
    missing = NEEDED_APPLETS - set(links)
    if missing:
        raise Failed(f"busybox was built without {', '.join(sorted(missing))}; see busybox.config")
    with open(f"{output}/busybox.links", "w", encoding="utf-8") as f:
        f.write("\n".join(links) + "\n")
    shutil.copy(f"{tree}/LICENSE", f"{output}/busybox.license")


DROPBEAR_FILES = ("keys.c", "localoptions.h", "passwd.c", "pipes.c", "tbnode-passwd.h", "tbnode.patch")


def build_dropbear(tools, sources, work, output):
    tree = unpack(sources, "dropbear", work)
    log = f"{work}/dropbear.log"
    own = f"{HERE}/dropbear"
    run(["patch", "-p1", "--no-backup-if-mismatch", "-i", f"{own}/tbnode.patch"], cwd=tree, log=log)
    for name in ("localoptions.h", "tbnode-passwd.h"):
        shutil.copy(f"{own}/{name}", tree)
    names = ("keys", "passwd", "pipes")
    for name in names:
        shutil.copy(f"{own}/{name}.c", f"{tree}/tbnode-{name}.c")
    env = tools.environment(tree)
    run(["sh", "./configure", f"--host={tools.host}", "--enable-bundled-libtom", "--disable-zlib", "--disable-pam",
         "--disable-shadow", "--disable-lastlog", "--disable-utmp", "--disable-utmpx", "--disable-wtmp", "--disable-wtmpx",
         "--disable-pututline", "--disable-pututxline", "--disable-loginfunc", "--disable-harden", "--enable-static"],
        cwd=tree, env=env, log=log)
    run([*tools.cc.split(), *tools.flags(tree).split(), "-D_GNU_SOURCE", "-Wall", "-Wextra", "-I.", "-c",
         *(f"tbnode-{name}.c" for name in names)], cwd=tree, env=env, log=log)
    run(["make", jobs(), "MULTI=1", "PROGRAMS=dropbear dropbearkey scp",
         f"LDFLAGS={LD_FLAGS} -Wl,--wrap=getpwnam,--wrap=common_session_init,--wrap=get_socket_address "
         f"{' '.join(f'tbnode-{name}.o' for name in names)} {' '.join(tools.integers)}"], cwd=tree, env=env, log=log)
    tools.strip(f"{tree}/dropbearmulti", f"{output}/dropbearmulti")
    shutil.copy(f"{tree}/LICENSE", f"{output}/dropbear.license")


def build_sftp_server(tools, sources, work, output):
    """OpenSSH's sftp-server and nothing else of OpenSSH."""
    tree = unpack(sources, "openssh", work)
    log = f"{work}/openssh.log"
    # Debian's patches touch configure.ac, but bring no configure: the released one, which lacks only what sshd gained.
    for name in ("configure", "config.h.in"):
        os.utime(f"{tree}/{name}")
    env = tools.environment(tree)
    run(["sh", "./configure", f"--host={tools.host}", "--without-openssl", "--without-zlib", "--without-pam",
         "--without-hardening", "--without-stackprotect", "--disable-lastlog", "--disable-utmp", "--disable-utmpx",
         "--disable-wtmp", "--disable-wtmpx", "--disable-libutil", "--disable-security-key", "--disable-pkcs11"],
        cwd=tree, env=env, log=log)
    run([*tools.cc.split(), *tools.flags(tree).split(), "-D_GNU_SOURCE", "-Wall", "-Wextra", "-c",
         f"{HERE}/openssh/passwd.c", "-o", "tbnode-passwd.o"], cwd=tree, env=env, log=log)
    run(["make", jobs(), "sftp-server", f"LDFLAGS=-L. -Lopenbsd-compat/ {LD_FLAGS} -Wl,--wrap=getpwuid tbnode-passwd.o {' '.join(tools.integers)}"],
        cwd=tree, env=env, log=log)
    tools.strip(f"{tree}/sftp-server", f"{output}/sftp-server")
    shutil.copy(f"{tree}/LICENCE", f"{output}/openssh.license")


# What configure would find; Debian's tree brings none.
JANSSON_CONFIG = {"json_inline": "inline", "json_have_long_long": "1", "json_have_localeconv": "1",
                  "json_have_atomic_builtins": "1", "json_have_sync_builtins": "1"}
JANSSON_HAVE = ("CLOSE ENDIAN_H FCNTL_H GETPID GETTIMEOFDAY LOCALECONV OPEN READ SCHED_H SCHED_YIELD STDINT_H SYS_PARAM_H "
                "SYS_STAT_H SYS_TIME_H SYS_TYPES_H UNISTD_H ATOMIC_BUILTINS SYNC_BUILTINS")


def build_jansson(tools, sources, work, output):
    """The JSON library, for tbnode-client."""
    tree = unpack(sources, "jansson", work)
    log = f"{work}/jansson.log"
    with open(f"{tree}/src/jansson_config.h.in", encoding="utf-8") as f:
        config = re.sub(r"@([a-z_]+)@", lambda m: JANSSON_CONFIG.get(m.group(1), m.group(0)), f.read())
    with open(f"{output}/jansson_config.h", "w", encoding="utf-8") as f:
        f.write(config)
    names = sorted(n[:-2] for n in os.listdir(f"{tree}/src") if n.endswith(".c"))
    with open(f"{tree}/src/jansson_private_config.h", "w", encoding="utf-8") as f:
        f.writelines(f"#define {name} 1\n" for name in [*(f"HAVE_{n}" for n in JANSSON_HAVE.split()), "USE_URANDOM"])
        f.write("#define INITIAL_HASHTABLE_ORDER 3\n")
    run([*tools.cc.split(), *tools.flags(tree).split(), "-DHAVE_CONFIG_H", "-I.", f"-I{output}", "-c",
         *(f"{n}.c" for n in names)], cwd=f"{tree}/src", env=environment(), log=log)
    run([f"{tools.prefix}ar", "rcsD", f"{output}/libjansson.a", *(f"{n}.o" for n in names)], cwd=f"{tree}/src",
        env=environment(), log=log)
    shutil.copy(f"{tree}/src/jansson.h", output)
    shutil.copy(f"{tree}/LICENSE", f"{output}/jansson.license")


def build_own(tools, name, sources, version, jansson, work, output):
    """A program of ours: all its sources at once."""
    root = os.path.dirname(os.path.dirname(HERE))
    run([*tools.cc.split(), *tools.flag_list(root), *WARNINGS, "-std=gnu17", "-D_GNU_SOURCE", "-fno-strict-aliasing",
         "-fno-common", "-fstack-protector-strong", f'-DTBNODE_VERSION="{version}"', f"-I{root}", "-isystem", jansson, "-o",
         f"{work}/{name}", *sources, *(tools.integers if name == "init" else []), f"{jansson}/libjansson.a", *LD_FLAGS.split()], env=environment())
    tools.strip(f"{work}/{name}", f"{output}/{name}")
