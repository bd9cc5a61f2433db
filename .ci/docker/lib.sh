# For the scripts beside it. What they say goes to standard error: standard output is for names of images.
say() { echo "docker: $*" >&2; }

have_or_pull() { # IMAGE: whether it is here, or a registry gave it
  docker image inspect "$1" >/dev/null 2>&1 || timeout "${PULL_S:-300}" docker pull -q "$1" >/dev/null 2>&1
}

need_root() {
  if ((EUID != 0)); then
    say "$1 cannot be pulled, and only root can make it: sudo .ci/docker/images"
    exit 1
  fi
}

install_packages() {
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq -o DPkg::Lock::Timeout=600 >&2
  apt-get install -y -qq -o DPkg::Lock::Timeout=600 -o Dpkg::Use-Pty=0 --no-install-recommends "$@" >/dev/null
}

build() { # IMAGE DOCKERFILE CONTEXT ARGUMENTS...: docker build, quiet unless it fails; no network unless BUILD_NETWORK
  local image=$1 file=$2 context=$3 log
  shift 3
  log=$(mktemp)
  if ! DOCKER_BUILDKIT=${DOCKER_BUILDKIT:-$(buildkit)} docker build --force-rm --network "${BUILD_NETWORK:-none}" \
    --file "$file" --tag "$image" "$@" "$context" >"$log" 2>&1; then
    tail -n 40 "$log" >&2
    rm -f "$log"
    return 1
  fi
  rm -f "$log"
}

buildkit() { # a client newer than 20.10 has BuildKit in the plugin buildx only
  if docker buildx version >/dev/null 2>&1; then echo 1; else echo 0; fi
}
