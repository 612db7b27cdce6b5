#!/bin/sh
# One part of the GPU measurements, each within 10 minutes on an H200; results go to $OUT (default: out/gpu).
# benchmarks/gpu.md says how to run it on a machine without a network.
set -eu
part=${1:?checks, eager, graphed, compiled or profile}
results=${OUT:-out/gpu}
python=${PYTHON:-python3}
mkdir -p "$results"
export OMP_WAIT_POLICY=PASSIVE GOMP_SPINCOUNT=0 PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 PYTHONPATH="${PYTHONPATH:+$PYTHONPATH:}."
nvidia-smi --query-gpu=name,driver_version,clocks.sm,memory.total --format=csv

bench() {
    "$python" -m visavis.cli bench generator --device cuda --results "$results" "$@"
}

case $part in
checks)
    # The tests that need a GPU, and every way of execution at the smallest size.
    "$python" -m pytest --config-file=/dev/null --rootdir=. --import-mode=importlib -q -rs \
        tests/models/test_step_runner.py -k "graph or waits or buffers or past"
    for execution in eager graphed compiled compiled-graphed; do
        bench --preset tiny --sessions 1,4 --compare 1 --decode --seconds 0.2 --execution "$execution"
    done
    ;;
eager)
    bench --compare 1 --decode --seconds 1
    ;;
graphed)
    bench --compare 1 --decode --seconds 1 --execution graphed
    ;;
compiled)
    bench --preset base --compare 0 --decode --seconds 1 --execution compiled-graphed
    ;;
profile)
    "$python" -m visavis.bench.profile_stages --preset base --json "$results/profile-base.json" | tee "$results/profile-base.md"
    "$python" -m visavis.bench.profile_stages --preset base --sessions 4 \
        --json "$results/profile-base-4.json" | tee "$results/profile-base-4.md"
    ;;
*)
    echo "unknown part: $part" >&2
    exit 2
    ;;
esac
