"""Answers HTTP/1.1 requests with JSON of what it was asked. Usage: echo_backend.py PORT NAME

Parameters of the query: delay=SECONDS, status=NUMBER, fails=N (the first N requests of one key=TEXT get 503). /log says what was asked so
far."""

import http.server
import json
import sys
import time
import urllib.parse

port, name = int(sys.argv[1]), sys.argv[2]
asked, tries = [], {}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        said = {"name": name, "method": self.command, "path": self.path, "body": body, "headers": [list(field) for field in self.headers.items()]}
        if url.path == "/log":
            said = asked
        else:
            asked.append(said)
        key = query.get("key", "")
        tries[key] = tries.get(key, 0) + 1
        said_status = 503 if tries[key] <= int(query.get("fails", 0)) else int(query.get("status", 200))
        time.sleep(float(query.get("delay", 0)))
        text = json.dumps(said).encode()
        self.send_response(said_status)
        self.send_header("X-Backend", name)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    do_GET = do_POST = do_PUT = do_OPTIONS = do_HEAD = answer

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("0.0.0.0", port), Handler)
print("listening", flush=True)
server.serve_forever()
