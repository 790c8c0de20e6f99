#!/bin/sh
# system-packages.sh build|test|fuzz: sees to what pip cannot install. As root, where there is apt-get, it installs what is
# missing; otherwise it says what is missing, and fails if nothing can be built without it.
set -eu
python=${PYTHON:-python3}

has() { command -v "$1" >/dev/null 2>&1; }

missing_for_build() {
    has "$python" || echo python3
    "$python" -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
    "$python" -c 'import os, sysconfig as s, sys; sys.exit(not os.path.exists(s.get_path("include") + "/Python.h"))' \
        2>/dev/null || echo python3-dev
    has cc || has gcc || echo gcc libc6-dev
}

missing_for_test() { # another architecture's libraries and emulator; ip, for namespaces with a network; Fortran; Slurm
    has aarch64-linux-gnu-gcc || echo gcc-aarch64-linux-gnu
    [ -e /usr/aarch64-linux-gnu/include/stdio.h ] || echo libc6-dev-arm64-cross
    has qemu-aarch64 || echo qemu-user
    has ip || echo iproute2
    has gfortran || echo gfortran
    PATH="$PATH:/usr/sbin:/sbin"
    { has srun && has slurmctld && has slurmd && has munged; } || echo slurm-client slurmctld slurmd munge
}

missing_for_fuzz() { # clang with libFuzzer and the sanitizers
    has clang || echo clang libclang-rt-dev
}

missing=$("missing_for_$1" | tr '\n' ' ')
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ] && has apt-get; then
    echo "installing $missing"
    export DEBIAN_FRONTEND=noninteractive
    log=$(mktemp)
    # shellcheck disable=SC2086  # several packages
    if (apt-get update -qq && apt-get install -qy --no-install-recommends $missing) >"$log" 2>&1; then
        rm "$log"
        exit 0
    fi
    tail -n 5 "$log"
    rm "$log"
fi
if [ "$1" = build ]; then
    echo "pycomm cannot be built without: $missing(names of Debian's packages); please install them" >&2
    exit 1
fi
[ "$1" = fuzz ] || echo "some tests will be skipped for lack of: $missing(names of Debian's packages)"
