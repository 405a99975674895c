# SPDX-License-Identifier: LGPL-2.1-or-later
"""augment-driver from Python: libtbaugment as the agent uses it, without the agent; and what images are compared by."""

import json
import os
import subprocess


class Driver:
    def __init__(self, lab):
        lab.install()
        self.process = subprocess.Popen([f"{lab.build}/tests/engine/augment-driver"], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True, env=dict(os.environ, **lab.program_env()))

    def __call__(self, cmd, image, level="basic", registry="http://127.0.0.1:5000", builder=None, fresh=False,
                 directory=None, **request):
        """cmd: lookup, augment, docker, context. Returns {"ms", "hit", "result"} or {"ms", "error"}."""
        request = {"version": 1, "op": "augment", "image": image, "level": level, "registry": registry,
                   "builder": builder or ("docker" if cmd == "docker" else "native"), **request}
        line = {"cmd": cmd, "request": request, "fresh": fresh}
        if directory:
            line["dir"] = directory
        self.process.stdin.write(json.dumps(line) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise AssertionError(f"augment-driver ended with {self.process.wait()} at {line}")
        return json.loads(answer)

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        return self.process.wait(timeout=30)


def essence(config):
    """The configuration without times, history and what builders write about themselves."""
    c = {k: v for k, v in (config.get("config") or {}).items() if k not in ("Hostname", "Image")}
    cmd = c.pop("Cmd", None)
    return {"os": config["os"], "architecture": config["architecture"], "cmd": cmd,
            "layers": len(config["rootfs"]["diff_ids"]),
            "filled": len([h for h in config["history"] if not h.get("empty_layer")]),
            "config": {k: v for k, v in c.items() if v not in (None, "", [], {}, False)}}
