#!/usr/bin/env bash
# Keeps a container engine for the tests while its standard input is open, and then removes what the tests made with it.
# The tests hold the other end, so this also runs if they are killed.
#
#   keeper.sh <label> [<container-engine>]   the label marks what the tests made: `name=value`
#
# Without the second argument the machine's own engine is used. Prints one line: the engine's address and the base image.
set -euo pipefail
label=$1 tool=${2:-}
export AAM_ENGINE_HOME=${AAM_ENGINE_HOME:-/var/tmp/aam-test-engine} DOCKER_CONFIG=${DOCKER_CONFIG:-$HOME/.docker}
if [ -n "$tool" ]; then
    mkdir -p "$AAM_ENGINE_HOME"
    exec 9>"$AAM_ENGINE_HOME/lock"
    flock --nonblock 9 || { echo "Another run uses $AAM_ENGINE_HOME." >&2; exit 3; }
    bridge=$([ -e /sys/class/net/docker0 ] && echo there || true)
    variables=$(bash "$tool" up) # a process substitution would hide a failure
    eval "$variables"
fi

remove() {
    local kind
    docker ps --all --quiet --filter "label=$label" | xargs --no-run-if-empty docker rm --force --volumes
    for kind in network volume; do
        docker "$kind" ls --quiet --filter "label=$label" | xargs --no-run-if-empty docker "$kind" rm
    done
}

finish() {
    remove >/dev/null
    [ -n "$tool" ] || return 0
    local daemon
    daemon=$(cat "$AAM_ENGINE_HOME/dockerd.pid")
    bash "$tool" down
    while kill -0 "$daemon" 2>/dev/null; do sleep 0.1; done
    if [ -z "$bridge" ] && [ -e /sys/class/net/docker0 ]; then ip link delete docker0; fi
}
trap finish EXIT
trap '' INT TERM HUP
remove >/dev/null
echo "${DOCKER_HOST:-} ${AAM_BASE_IMAGE:-}"
cat >/dev/null
