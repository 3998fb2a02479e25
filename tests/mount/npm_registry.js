// A registry of the Node packages that this machine has installed: what `npm install` asks a registry for, on the loopback.
//
// usage: node npm_registry.js PORT-FILE PROJECT-FILE   serves until it is killed; writes its port, and a package.json
// that depends on all that npm itself depends on.
//
// Where no installed version is in the range that a package asks for (a distribution ships one version of each), the
// range becomes the version that is there; a dependency that is not installed at all is left out.
"use strict";
const { execFileSync } = require("child_process");
const crypto = require("crypto");
const fs = require("fs");
const http = require("http");
const path = require("path");

const npm = path.dirname(path.dirname(fs.realpathSync(execFileSync("sh", ["-c", "command -v npm"]).toString().trim())));
const semver = require(require.resolve("semver", { paths: [npm] }));

const packages = new Map(); // name -> version -> { folder, manifest }

function collect(root) {
  if (!fs.existsSync(root)) return;
  for (const entry of fs.readdirSync(root, { withFileTypes: true })) {
    const folder = path.join(root, entry.name);
    if (entry.name.startsWith("@")) collect(folder);
    if (!fs.existsSync(path.join(folder, "package.json"))) continue;
    const manifest = JSON.parse(fs.readFileSync(path.join(folder, "package.json"), "utf8"));
    if (manifest.name && semver.valid(manifest.version)) {
      if (!packages.has(manifest.name)) packages.set(manifest.name, new Map());
      packages.get(manifest.name).set(manifest.version, { folder: fs.realpathSync(folder), manifest });
    }
    collect(path.join(folder, "node_modules"));
  }
}
for (const root of ["/usr/share/nodejs", "/usr/lib/nodejs", "/usr/lib/node_modules", path.dirname(npm)]) collect(root);

function available(dependencies) {
  const result = {};
  for (const [name, range] of Object.entries(dependencies || {})) {
    if (!packages.has(name)) continue;
    const versions = [...packages.get(name).keys()];
    result[name] = semver.maxSatisfying(versions, range) ? range : versions[0];
  }
  return result;
}

const archives = new Map();
function archive(name, version) {
  const key = name + "@" + version;
  if (!archives.has(key)) {
    const folder = packages.get(name).get(version).folder;
    archives.set(key, execFileSync("tar", ["-C", folder, "--exclude=./node_modules", "--dereference", "--sort=name", "--mtime=@0",
      "--owner=0", "--group=0", "--transform=s,^\\.,package,", "-czf", "-", "."], { maxBuffer: 1 << 28 }));
  }
  return archives.get(key);
}

const server = http.createServer((request, response) => {
  const words = decodeURIComponent(request.url).slice(1).split("/-/");
  const versions = packages.get(words[0]);
  if (!versions) {
    response.writeHead(404, { "content-type": "application/json" });
    return response.end("{}");
  }
  if (words[1]) return response.end(archive(words[0], words[1].replace(/\.tgz$/, "")));
  const document = { name: words[0], "dist-tags": { latest: semver.maxSatisfying([...versions.keys()], "*", { includePrerelease: true }) }, versions: {} };
  for (const [version, { manifest }] of versions) {
    document.versions[version] = {
      name: words[0], version, bin: manifest.bin, engines: undefined,
      dependencies: available(manifest.dependencies),
      dist: {
        tarball: `http://127.0.0.1:${server.address().port}/${words[0]}/-/${version}.tgz`,
        integrity: "sha512-" + crypto.createHash("sha512").update(archive(words[0], version)).digest("base64"),
      },
    };
  }
  response.setHeader("content-type", "application/json");
  response.end(JSON.stringify(document));
});
server.listen(0, "127.0.0.1", () => {
  const own = JSON.parse(fs.readFileSync(path.join(npm, "package.json"), "utf8"));
  fs.writeFileSync(process.argv[3], JSON.stringify({ name: "tree", version: "1.0.0", private: true, dependencies: available(own.dependencies) }, null, 2));
  fs.writeFileSync(process.argv[2], String(server.address().port));
});
