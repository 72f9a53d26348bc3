"""NocoDB from npm, with its tables in our Postgres."""
from __future__ import annotations

import json
import os
import re
import shutil
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from .core import Failure, apt_install, built, cache_root, output, own_folder, run_long, say, spawn, state_root
from .service import Service

VERSION = "0.301.3"
DATABASE = "nocodb"
# The first user, of a server that only this machine reaches.
EMAIL = "dev@slackwater.example"
PASSWORD = "Slack-Water-1"
NODE_OLDEST = 20  # it declares 22, and runs with 20

PACKAGE = {
    "name": "slackwater-nocodb", "version": "1.0.0", "private": True,
    "dependencies": {"nocodb": VERSION, "express": "4"},
    "overrides": {"xlsx": "0.18.5"},  # it names an archive that is not in the registry
}

SERVER = """\
// Written at every start by dev/services.
const { Noco } = require('nocodb');
const server = require('express')();
server.enable('trust proxy');
(async () => {
  const http = server.listen(Number(process.env.PORT), '127.0.0.1');
  http.on('error', (e) => { console.error(e); process.exit(1); });
  server.use(await Noco.init({}, http, server));
  console.log('ready');
})().catch((e) => { console.error(e); process.exit(1); });
for (const s of ['SIGTERM', 'SIGINT']) process.on(s, () => setTimeout(() => process.exit(0), 500));
"""


class NocoDB(Service):
    name = "nocodb"
    variable = "SLACKWATER_NOCODB_URL"
    ports = {"port": ("SLACKWATER_NOCODB_PORT", 18080)}
    default_port_of_protocol = 80
    takes = "about 10 seconds"
    start_bound = 240.0

    @property
    def tree(self) -> Path:
        return cache_root() / f"nocodb-{VERSION}"

    @property
    def postgres(self):
        return Service.all["postgres"]

    def leans_on(self, other: Service) -> bool:
        return other is self.postgres and not other.external() and self.running(self.load())

    def up(self, bare: bool = False) -> None:
        p = self.postgres
        if not self.external() and not p.external() and not p.running(p.load()):
            say(self.name, "keeps its tables in Postgres: that first")
            p.up(bare)
        super().up(bare)

    def docker_fits(self) -> bool:  # a container reaches the Postgres of the same compose file only
        return not self.postgres.external() and self.postgres.load().get("how") == "docker"

    # --- the program -----------------------------------------------------------------------------

    def node(self) -> str | None:
        """A Node that is new enough: the machine's, else the one that was installed beside it."""
        for node in (shutil.which("node"), str(cache_root() / "node-24" / "node_modules" / "node" / "bin" / "node")):
            code, text = output([node, "--version"]) if node else (127, "")
            number = re.match(r"v(\d+)", text)
            if code == 0 and number and int(number.group(1)) >= NODE_OLDEST:
                return os.path.realpath(node)
        return None

    def npm(self) -> list[str] | None:
        """An npm that knows what to do with our override: 10 or later."""
        own = cache_root() / "npm-10" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        if (own.parents[3] / ".complete").exists() and self.node():
            return [self.node(), str(own)]
        code, text = output(["npm", "--version"])
        number = re.search(r"^(\d+)\.\d+\.\d+$", text, re.M)
        return ["npm"] if code == 0 and number and int(number.group(1)) >= 10 else None

    def bring(self, package: str, folder: Path, why: str, log: Path) -> None:
        """Has the machine's npm install one package, with its scripts, in a folder of its own."""
        with built(folder) as part:
            if part is None:
                return
            if not shutil.which("npm"):
                apt_install(self.name, ["nodejs", "npm"], "Node and npm are not there")
            (part / "package.json").write_text('{"name": "slackwater-tool", "private": true}\n')
            run_long(self.name, why, ["npm", "install", "--no-audit", "--no-fund", package], log, cwd=part)

    def prepare(self) -> None:
        log = state_root() / "logs" / "nocodb-install.log"
        if not shutil.which("node") and not self.node():
            apt_install(self.name, ["nodejs", "npm"], "Node and npm are not there")
        if not self.node():
            self.bring("node@24", cache_root() / "node-24",
                       f"downloading Node 24, as the machine's is older than {NODE_OLDEST} (50 MB)", log)
            if not self.node():
                raise Failure("the Node that npm brought does not run", f"install Node {NODE_OLDEST} or later")
        with built(self.tree) as folder:
            if folder:
                if not self.npm():
                    self.bring("npm@10", cache_root() / "npm-10", "downloading npm 10 (3 MB)", log)
                self.install(folder, self.npm() or ["npm"], log)

    def install(self, folder: Path, npm: list[str], log: Path) -> None:
        compilers = [p for p in ("g++", "make", "python3") if not shutil.which(p)]
        if compilers:
            apt_install(self.name, ["g++", "make", "python3"], f"to compile sqlite3, {' '.join(compilers)} is missing")
        node = self.node()
        env = {**os.environ, "PATH": f"{Path(node).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
        nice = ["nice", "-n", "10"] if shutil.which("nice") else []
        (folder / "package.json").write_text(json.dumps(PACKAGE, indent=1) + "\n")
        run_long(self.name, f"installing NocoDB {VERSION} from npm (1 400 packages, 1.4 GB, about 2 minutes)",
                 [*nice, *npm, "install", "--ignore-scripts", "--no-audit", "--no-fund"], log, cwd=folder, env=env,
                 hint="needs 3 GB of room and npm's registry in reach; what is half done is taken away again")
        headers = next((p for p in [Path(node).parents[1], Path("/usr"), *cache_root().glob("node-24/**/node-*")]
                        if (p / "include" / "node" / "node_api.h").exists()), None)
        run_long(self.name, "compiling its sqlite3 (about a minute and a half)",
                 [*nice, *npm, "exec", "--yes", "--", "node-gyp@11", "rebuild", "--jobs", "2",
                  *([f"--nodedir={headers}"] if headers else [])],
                 log, cwd=folder / "node_modules" / "sqlite3", env=env, hint="needs g++, make and Python")

    def tools(self) -> dict[str, str]:
        node, server = self.node(), self.tree / "server.js"
        return {"SLACKWATER_NODE": node, "SLACKWATER_NOCODB_SERVER": str(server)} if node and server.exists() else {}

    # --- the server ------------------------------------------------------------------------------

    def database(self) -> str:
        """Makes the database in Postgres if it is not there; returns it in NocoDB's own form."""
        given = self.postgres.external()
        if not given:
            port = self.postgres.load()["port"]
            self.postgres.create_database(port, DATABASE)
            return f"pg://127.0.0.1:{port}?u=slackwater&p=none&d={DATABASE}"
        url = urlsplit(given)
        if url.scheme not in ("postgres", "postgresql") or not url.hostname:
            raise Failure(f"NocoDB needs {self.postgres.variable} as a postgres:// URL",
                          f"unset {self.postgres.variable}")
        pg = self.postgres.binaries()
        psql = str(pg / "psql") if pg else shutil.which("psql")
        if not psql:
            raise Failure(f"psql is not there, to make the database {DATABASE}", "install postgresql-client")
        code, text = output([psql, "-X", "-q", "-A", "-t", given, "-c", f"create database {DATABASE}"], 30)
        if code != 0 and "already exists" not in text:
            raise Failure(f"cannot make the database {DATABASE}: {text}")
        user = dict(parse_qsl(url.query)).get("user") or unquote(url.username or "postgres")
        return (f"pg://{url.hostname}:{url.port or 5432}?u={quote(user, safe='')}"
                f"&p={quote(unquote(url.password or 'none'), safe='')}&d={DATABASE}")

    def launch(self, state: dict):
        own_folder(self.folder)
        data = self.folder / "data"
        data.mkdir(exist_ok=True)
        (self.tree / "server.js").write_text(SERVER)
        env = {**os.environ, "PORT": str(state["port"]), "NC_DB": self.database(), "NC_TOOL_DIR": f"{data}/",
               "NC_DISABLE_TELE": "true", "NC_ALLOW_LOCAL_HOOKS": "true", "NODE_ENV": "production", "NO_COLOR": "1",
               "NC_PUBLIC_URL": f"http://127.0.0.1:{state['port']}"}
        return spawn([self.node(), str(self.tree / "server.js")], self.log, data, env=env)

    def probe(self, state: dict) -> str | None:
        try:
            return None if request(state, "GET", "/api/v1/health")[0] == 200 else "not healthy yet"
        except OSError as e:
            return f"no answer yet ({e})"

    def settle(self, state: dict) -> None:
        """The first user and an API token; both outlive the server, in its tables."""
        if state.get("token") and request(state, "GET", "/api/v2/meta/bases", {"xc-token": state["token"]})[0] == 200:
            return
        again = "dev/services down --wipe nocodb, then dev/services up nocodb"
        who = {"email": EMAIL, "password": PASSWORD}
        code, said = request(state, "POST", "/api/v1/auth/user/signup", {}, who)
        if code != 200:
            code, said = request(state, "POST", "/api/v1/auth/user/signin", {}, who)
        if code != 200 or "token" not in said:
            raise Failure(f"NocoDB lets no user in: {code} {said}", again, self.log)
        code, said = request(state, "POST", "/api/v1/tokens", {"xc-auth": said["token"]}, {"description": "slackwater"})
        if code != 200 or "token" not in said:
            raise Failure(f"NocoDB gives no token: {code} {said}", again, self.log)
        state["token"] = said["token"]
        say(self.name, f"made an API token for {EMAIL}")

    def wipe(self) -> None:
        p = self.postgres
        if not p.external() and p.load().get("how") == "bare" and p.running(p.load()):
            p.psql(p.load()["port"], f"drop database if exists {DATABASE} with (force)")
        super().wipe()

    def exports(self, state: dict) -> dict[str, str]:
        values = {self.variable: f"http://127.0.0.1:{state['port']}"}
        return {**values, "SLACKWATER_NOCODB_TOKEN": state["token"]} if state.get("token") else values

    def environment(self) -> dict[str, str] | None:
        values = super().environment()
        token = os.environ.get("SLACKWATER_NOCODB_TOKEN")
        return {**values, "SLACKWATER_NOCODB_TOKEN": token} if values and token and self.external() else values


def request(state: dict, method: str, path: str, headers: dict | None = None, body: dict | None = None):
    """One request of its API: the status, and the answer if it is JSON."""
    ask = urllib.request.Request(f"http://127.0.0.1:{state['port']}{path}", method=method,
                                 data=json.dumps(body).encode() if body is not None else None,
                                 headers={"content-type": "application/json", **(headers or {})})
    straight = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with straight.open(ask, timeout=30) as answer:
            code, raw = answer.status, answer.read()
    except urllib.error.HTTPError as e:
        code, raw = e.code, e.read()
    try:
        return code, json.loads(raw)
    except ValueError:
        return code, {"text": raw[:200].decode("utf-8", "replace")}
