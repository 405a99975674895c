#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""libtbregistry as somebody gets it who installs it: headers, shared and static library, pkg-config file; the program of
docs/registry-client.md is built against them and run against a registry."""

import hashlib
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import unittest

SOURCE, BUILD = os.environ["TBNODE_SOURCE_DIR"], os.environ["TBNODE_BUILD_DIR"]
CC = os.environ["CC"].split()
SANITIZE = os.environ.get("SANITIZE", "none")
FLAGS = [] if SANITIZE == "none" else [f"-fsanitize={SANITIZE}"]
HEADERS = ("attribute.h", "digest.h", "error.h", "registry.h")
OCI = "application/vnd.oci.image.manifest.v1+json"


def run(*argv, **options):
    return subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True, timeout=60, **options).stdout


def sha(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


class MiniRegistry(http.server.BaseHTTPRequestHandler):
    """As much of a registry as a copy needs; everything in `content`."""
    protocol_version = "HTTP/1.1"
    content = {}

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def body(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            data = b""
            while size := int(self.rfile.readline(), 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return data
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_GET(self):
        if self.path not in self.content:
            return self.answer(404)
        data = self.content[self.path]
        return self.answer(200, data, Content_Type=OCI if "/manifests/" in self.path else "application/octet-stream",
                           Docker_Content_Digest=sha(data))

    do_HEAD = do_GET

    def do_POST(self):
        self.body()
        self.content["upload"] = b""
        self.answer(202, Location=re.sub(r"\?.*", "", self.path) + "session?x=1")

    def do_PATCH(self):
        self.content["upload"] += self.body()
        self.answer(202, Location=self.path, Range=f"0-{len(self.content['upload']) - 1}")

    def do_PUT(self):
        data = self.body()
        if "/manifests/" in self.path:
            self.content[self.path] = data
        else:
            data = self.content.pop("upload", b"") + data
            self.content[self.path.split("uploads/")[0] + sha(data)] = data
        self.answer(201, Docker_Content_Digest=sha(data), Location="/x")

    def log_message(self, *_args):
        pass


class Library(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dir = tempfile.mkdtemp(prefix="tbregistry-")
        cls.root = f"{cls.dir}/root"
        subprocess.run(["meson", "install", "-C", BUILD, "--no-rebuild", "--quiet", "--destdir", cls.root,
                        "--tags", "runtime,devel"], check=True, stdout=subprocess.DEVNULL, timeout=100)
        cls.pc = next(os.path.join(d, f) for d, _, files in os.walk(cls.root) for f in files
                      if f == "libtbregistry.pc")
        cls.libdir = os.path.dirname(os.path.dirname(cls.pc))
        cls.env = {**os.environ, "PKG_CONFIG_PATH": os.path.dirname(cls.pc), "PKG_CONFIG_SYSROOT_DIR": cls.root}

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.dir)

    def pkg_config(self, *args):
        return run("pkg-config", *args, "libtbregistry", env=self.env).split()

    def compile(self, text, *flags, name="program"):
        source, program = f"{self.dir}/{name}.c", f"{self.dir}/{name}"
        with open(source, "w", encoding="utf-8") as f:
            f.write(text)
        run(*CC, "-std=gnu11", "-Wall", "-Wextra", "-Werror", *FLAGS, "-o", program, source, *flags)
        return program

    def example(self):
        run(sys.executable, f"{SOURCE}/tests/unit/test-registry-example.py", f"{SOURCE}/docs/registry-client.md",
            f"{self.dir}/example.c")
        with open(f"{self.dir}/example.c", encoding="utf-8") as f:
            return f.read()

    def run_example(self, program):
        config = json.dumps({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["x"]}}).encode()
        layer = os.urandom(300_000)
        manifest = json.dumps({"schemaVersion": 2, "mediaType": OCI, "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json", "digest": sha(config), "size": len(config)},
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": sha(layer),
                        "size": len(layer)}]}).encode()
        MiniRegistry.content = {f"/v2/a/b/blobs/{sha(config)}": config, f"/v2/a/b/blobs/{sha(layer)}": layer,
                                "/v2/a/b/manifests/1": manifest}
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), MiniRegistry)
        server.daemon_threads = True
        server.handle_error = lambda *_args: None  # the client hangs up when it has finished
        threading.Thread(target=server.serve_forever, daemon=True).start()
        host = f"127.0.0.1:{server.server_port}"
        env = {**os.environ, "LD_LIBRARY_PATH": self.libdir, "HOME": self.dir}
        try:
            out = run(program, f"{host}/a/b:1", f"localhost:{server.server_port}/c/d:2", env=env)
            bad = subprocess.run([program, f"{host}/not/there", f"{host}/e"], env=env, stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE, text=True, timeout=60)
        finally:
            server.shutdown()
            server.server_close()
        digest, shown = out.split("\n", 1)
        self.assertEqual(digest, sha(manifest))
        self.assertEqual(json.loads(shown), json.loads(config))
        self.assertEqual(MiniRegistry.content[f"/v2/c/d/blobs/{sha(layer)}"], layer)
        self.assertEqual(MiniRegistry.content["/v2/c/d/manifests/2"], manifest)
        self.assertEqual((bad.returncode, bad.stdout), (1, ""))
        self.assertIn("not found", bad.stderr)

    def test_example_with_the_shared_library(self):
        text = self.example()
        self.assertLessEqual(text.count("\n"), 40)
        program = self.compile(text, *self.pkg_config("--cflags", "--libs"))
        needed = re.findall(r"NEEDED.*\[(.*)\]", run("readelf", "-d", program))
        self.assertIn("libtbregistry.so.0", needed)
        self.run_example(program)

    def test_example_with_the_static_library(self):
        flags = [f.replace("-ltbregistry", "-l:libtbregistry.a") for f in self.pkg_config("--cflags", "--libs")]
        # What the file says it needs; its own closure by --static is Debian's matter (libcurl's has no libraries here).
        requires = run("pkg-config", "--print-requires-private", "libtbregistry", env=self.env).split()
        private = run("pkg-config", "--libs", *requires).split()
        program = self.compile(self.example(), *flags, *private, name="static")
        self.assertNotIn("libtbregistry", run("readelf", "-d", program))
        self.run_example(program)

    def test_pkg_config(self):
        version = re.search(r"version: '([\d.]+)'", open(f"{SOURCE}/meson.build", encoding="utf-8").read()).group(1)
        self.assertEqual(self.pkg_config("--modversion"), [version])
        private = self.pkg_config("--static", "--libs")
        for name in ("-lcurl", "-ljansson", "-lcrypto", "-lsystemd", "-lz", "-lzstd"):
            self.assertIn(name, private)
        self.assertNotIn("-lcurl", self.pkg_config("--libs"))
        program = self.compile('#include <stdio.h>\n#include <tbregistry/registry.h>\n'
                               'int main(void) { return puts(registry_version()) < 0; }\n',
                               *self.pkg_config("--cflags", "--libs"), name="version")
        self.assertEqual(run(program, env={**os.environ, "LD_LIBRARY_PATH": self.libdir}).strip(), version)

    def test_each_header_alone(self):
        cflags = self.pkg_config("--cflags")
        for header in HEADERS:
            with self.subTest(header):
                text = f"#include <tbregistry/{header}>\nint nothing;\n"
                subprocess.run([*CC, "-std=c11", "-Wall", "-Wextra", "-pedantic", "-Werror", "-fsyntax-only", "-xc",
                                "-", *cflags], input=text, text=True, check=True, timeout=60)
                if shutil.which("g++"):
                    subprocess.run(["g++", "-std=c++11", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-xc++", "-",
                                    *cflags], input=text, text=True, check=True, timeout=60)
        installed = next(d for d, _, _ in os.walk(self.root) if d.endswith("include/tbregistry"))
        self.assertEqual(sorted(os.listdir(installed)), sorted(HEADERS))

    def declared(self):
        """The functions of the headers, by a way of its own: the compiler's."""
        text = "".join(f"#include <tbregistry/{h}>\n" for h in HEADERS)
        text = subprocess.run([*CC, "-E", "-P", "-xc", "-", *self.pkg_config("--cflags")], input=text, text=True,
                              check=True, stdout=subprocess.PIPE, timeout=60).stdout
        text = re.sub(r"__attribute__\s*\(\((?:[^()]|\([^()]*\))*\)\)", "", text)
        text = re.sub(r"static inline.*?\{.*?\n? *\}", "", text, flags=re.S)
        return set(re.findall(r"\b((?:registry|tb)_\w+)\s*\(", text))

    def test_exports_what_the_headers_declare(self):
        shared = set(re.findall(r" [TDBRVW] (\w+)(?:@@\w+)?$", run("nm", "-D", "--defined-only",
                                                           f"{self.libdir}/libtbregistry.so.0"), re.M))
        shared = {n for n in shared if n != "LIBTBREGISTRY_0" and not n.startswith(("__asan", "__odr", "__ubsan"))}
        self.assertEqual(shared, self.declared())
        static = set(re.findall(r" [TDBRVWC] (\w+)$", run("nm", "-g", "--defined-only",
                                                          f"{self.libdir}/libtbregistry.a"), re.M))
        self.assertEqual({n for n in static if not n.startswith(("__asan", "__odr", "__ubsan", "DW.ref"))},
                         self.declared())

    @unittest.skipIf(SANITIZE != "none", "sanitizers have state of their own")
    def test_no_global_state(self):
        """Writable data: the guard of curl_global_init(), and the error for "no memory", which nobody writes to."""
        sections, writable = {}, set()
        library = f"{self.libdir}/libtbregistry.so.0"
        for m in re.finditer(r"^ *\[ *(\d+)\] (\S+)", run("readelf", "-SW", library), re.M):
            sections[m.group(1)] = m.group(2)
        for m in re.finditer(r"OBJECT +\w+ +\w+ +(\d+) (\S+)", run("readelf", "-sW", library)):
            if sections.get(m.group(1)) in (".data", ".bss"):
                writable.add(re.sub(r"\.\d+$", "", m.group(2)))
        self.assertEqual(writable - {"completed", "__dso_handle", "__TMC_END__"}, {"once", "oom_error", "oom_message"})


if __name__ == "__main__":
    unittest.main(verbosity=2)
