# SPDX-License-Identifier: LGPL-2.1-or-later
"""Debian's nginx in front of a registry, as operators run it."""

import os
import re
import socket

from .process import LabError, Service


class Nginx(Service):
    """One server block: listens on `listen` (an address, or "unix:/path"), passes everything on to `backend`."""

    def __init__(self, lab, name, listen, backend, server="", location="", http="", request_buffering="off"):
        super().__init__(name, f"{lab.dir}/logs/nginx-{name}.log")
        self.listen = listen
        self.folder = f"{lab.dir}/nginx-{name}"
        os.makedirs(self.folder, exist_ok=True)
        self.config = f"""
daemon off;
master_process off;
user root;
worker_processes 1;
pid {self.folder}/pid;
error_log stderr warn;
events {{ worker_connections 256; }}
http {{
    log_format seen '$request_method $uri $status $server_protocol $request_length';
    access_log {self.folder}/access seen;
    client_body_temp_path {self.folder}/body;
    proxy_temp_path {self.folder}/proxy;
    fastcgi_temp_path {self.folder}/fastcgi;
    uwsgi_temp_path {self.folder}/uwsgi;
    scgi_temp_path {self.folder}/scgi;
    client_max_body_size 0;
    {http}
    server {{
        listen {listen};
        {server}
        location / {{
            proxy_pass {backend};
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_request_buffering {request_buffering};
            {location}
        }}
    }}
}}
"""

    def start(self):
        path = f"{self.folder}/conf"
        with open(path, "w", encoding="utf-8") as f:
            f.write(self.config)
        self.spawn(["/usr/sbin/nginx", "-c", path], probe=self._accepts)
        return self

    def _accepts(self):
        where = self.listen.split()[0]
        try:
            if where.startswith("unix:"):
                with socket.socket(socket.AF_UNIX) as s:
                    s.connect(where[5:])
            else:
                host, _, port = where.rpartition(":")
                socket.create_connection((host.strip("[]"), int(port)), 1).close()
            return True
        except OSError:
            return False

    def prepare_shutdown(self):
        pass

    def seen(self):
        """[(method, path, status, protocol)] of every answered request so far."""
        try:
            with open(f"{self.folder}/access", encoding="utf-8") as f:
                return [(m[0], m[1], int(m[2]), m[3]) for m in re.findall(r"^(\S+) (\S+) (\d+) (\S+) ", f.read(), re.M)]
        except FileNotFoundError as e:
            raise LabError(f"nginx {self.name} has no access log") from e
