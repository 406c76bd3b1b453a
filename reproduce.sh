#!/usr/bin/env bash
# Sets up a pinned environment and runs the benchmarks or the tests in it.
set -euo pipefail

usage() {
  cat <<'EOF'
Usage: ./reproduce.sh [COMMAND] [OPTIONS]

  quick        the embedded digits, minutes on a CPU (the default); SEEDS=3 repeats it with three seeds
  cifar10, cifar100, imagenet100, imagenet
               the full benchmarks; each says which data it expects where
  claims       tries claims of the papers over 8 seeds, an hour or two on a CPU; `claims NAME...` some of them
  evidence     trains the main claims to the end, 8 to 20 hours on two cores, and writes what is known into README.md and docs/;
               it resumes from docs/data/evidence.jsonl, and --recorded only writes
  sprites      pretrains on drawn images of known dimension and compares the LID with it, minutes on a CPU
  toy          three toy experiments: why dimensions collapse and how they are learned, seconds on a CPU
  bench        what losses, regularizers and the monitor cost, as ratios, minutes on a CPU
  gpu          checks, times and short trainings on a GPU in one table, at most 8 minutes; `gpu --cpu` what a CPU can
               run. PYTHON=python3 takes a Python with torch as it is, and WHEELS=<folder> adds what it lacks
  docs         builds the documentation, the API reference included, in results/docs; a broken link fails
  setup        only make the environment (.venv); the other commands do this as needed
  test         lints, types and every behaviour once, in 6 to 10 minutes on two cores; `test --all` adds the matrices
               and the long tests, within half an hour
  help         this text

OPTIONS are handed on to `solo-dimreg benchmark`, `claims`, `sprites`, `toy` or `bench`, or to pytest. Results go to results/COMMAND.

With SOLO_LEARN=<clone of solo-learn> everything runs on that clone, in .venv-current; otherwise on the
published solo-learn. With LATEST=1 everything runs in .venv-latest (.venv-latest-current), with the newest
versions of our dependencies that the package index has instead of those of requirements/: what will break next.
Needs Python 3.11 on Linux (x86-64).
EOF
}

die() {
  echo "reproduce.sh: $1" >&2
  exit "${2:-1}"
}

if [ -n "${SOLO_LEARN:-}" ]; then
  [ -d "$SOLO_LEARN/solo/data" ] || die "SOLO_LEARN=$SOLO_LEARN is not a clone of the current solo-learn (no solo/data)."
  SOLO_LEARN=$(cd "$SOLO_LEARN" && pwd)
  export SOLO_LEARN PYTHONPATH="$SOLO_LEARN${PYTHONPATH:+:$PYTHONPATH}"
  venv=.venv-current pins=requirements/current.txt
else
  venv=.venv pins=requirements/published.txt
fi
packages=$pins
if [ -n "${LATEST:-}" ]; then
  venv=${venv/.venv/.venv-latest} packages="the newest packages"
fi
cd "$(dirname "$0")"

find_python() {
  local candidate
  for candidate in python3.11 python3; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  die "Python 3.11 was not found (looked for python3.11 and python3)."
}

# What the environment depends on.
fingerprint() {
  { pwd && cat "$pins" pyproject.toml; } | cksum
}

install() { "$venv/bin/uv" pip install --python "$venv/bin/python" "$@"; }

install_pinned() {
  # Compiled once here, instead of at every start where Python may not write: that halves the time of an import.
  install --no-deps --compile-bytecode --build-constraints "$pins" --requirements "$pins"
  install --no-deps --no-build-isolation --editable .
}

# Ours as a resolver finds them; the published solo-learn and its Lightning, which none can, beside them.
install_latest() {
  if [ -n "${SOLO_LEARN:-}" ]; then
    install --upgrade --compile-bytecode --editable '.[data,docs,sweeps,test,umap]' einops wandb lightning
  else
    install --upgrade --compile-bytecode --editable '.[data,docs,sweeps,test,umap]' einops wandb \
      lightning-utilities pydeprecate 'setuptools<81' tensorboard
    install --no-deps solo-learn==1.0.2 pytorch-lightning==1.6.5 lightning-bolts==0.7.0 torchmetrics==0.9.3
  fi
}

setup() {
  local stamp="$venv/.solo-dimreg" python index
  if [ -z "${LATEST:-}" ] && [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$(fingerprint)" ]; then
    return
  fi
  echo "Setting up $venv from $packages ..." >&2
  python=$(find_python)
  "$python" -m venv "$venv"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$(grep '^uv==' "$pins")"
  # uv does not read pip's configuration: hand its index on, unless uv has one of its own.
  index=${PIP_INDEX_URL:-$("$venv/bin/python" -m pip config get global.index-url 2>/dev/null || true)}
  if [ -n "$index" ] && [ -z "${UV_INDEX_URL:-}" ]; then
    export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-$index}"
  fi
  export UV_HTTP_TIMEOUT="${UV_HTTP_TIMEOUT:-300}"
  if [ -n "${LATEST:-}" ]; then
    install_latest
  else
    install_pinned
  fi
  fingerprint >"$stamp"
}

run_tests() {
  local cores each arguments=() selection=(-m "not slow")
  for each in "$@"; do
    if [ "$each" = --all ]; then selection=(); else arguments+=("$each"); fi
  done
  cores=$(getconf _NPROCESSORS_ONLN)
  unset HYDRA_FULL_ERROR
  # A worker on each core, with one thread: threads of small networks wait for each other.
  export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" WANDB_MODE=offline MPLBACKEND=Agg
  "$venv/bin/ruff" check .
  "$venv/bin/ruff" format --check .
  "$venv/bin/lint-imports" --no-cache
  "$venv/bin/mypy"
  "$venv/bin/python" -m pytest -n "$((cores < 8 ? cores : 8))" --dist loadgroup \
    "${selection[@]}" "${arguments[@]}"
}

command=${1:-quick}
[ $# -eq 0 ] || shift
case "$command" in
  help | -h | --help) usage ;;
  setup) setup ;;
  quick | cifar10 | cifar100 | imagenet100 | imagenet)
    setup
    "$venv/bin/python" -m solo_dimreg benchmark "$command" --out "results/$command" --seeds "${SEEDS:-1}" "$@"
    ;;
  claims | sprites | toy)
    setup
    "$venv/bin/python" -m solo_dimreg "$command" --out "results/$command" "$@"
    ;;
  evidence)
    setup
    if [ "${1:-}" != --recorded ]; then
      "$venv/bin/python" -m solo_dimreg claims --study evidence --record docs/data/evidence.jsonl "$@"
    fi
    "$venv/bin/python" docs/hooks/claims.py
    ;;
  bench)
    setup
    OMP_NUM_THREADS="${OMP_NUM_THREADS:-2}" "$venv/bin/python" -m solo_dimreg bench "$@"
    ;;
  gpu)
    [ -z "${WHEELS:-}" ] || [ -d "$WHEELS" ] || die "WHEELS=$WHEELS is not a folder." 2
    if [ -z "${PYTHON:-}" ]; then
      setup
      PYTHON="$venv/bin/python"
    fi
    PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" "$PYTHON" -m solo_dimreg.studies.gpu.study \
      --wheels "${WHEELS:-wheels}" "$@"
    ;;
  docs)
    setup
    NO_MKDOCS_2_WARNING=1 "$venv/bin/python" -m mkdocs build "$@"
    echo "results/docs/index.html"
    ;;
  test)
    setup
    run_tests "$@"
    ;;
  *)
    usage >&2
    die "unknown command '$command'." 2
    ;;
esac
