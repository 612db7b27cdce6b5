#!/bin/bash
# Stages of training `mini` on a lent GPU, in the order given: keep, unpack, vae, teacher, student, asd, distill.
# docs/training.md has the calls. What was trained comes back in pieces in $OUT, also when a later stage fails.
#
# PLACE (/tmp/visavis) outlasts a call; LIMIT (450) seconds end a training with a checkpoint, whatever its plan says.
# For trying it without a GPU: PLANS (configs/train), OPTIONS (of each training).
set -euo pipefail
place=${PLACE:-/tmp/visavis}
tree=$place/tree
results=${OUT:-out/gpu/results}
python=${PYTHON:-python3}
plans=$(realpath "${PLANS:-configs/train}")
read -ra options <<<"${OPTIONS:-}"
export OMP_WAIT_POLICY=PASSIVE GOMP_SPINCOUNT=0 PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
export PYTHONPATH=$place/site:$tree
mkdir -p "$place/pieces" "$tree" "$results"
results=$(realpath "$results")
made=()

# A parcel that was carried along, or weights that came back from a machine that is gone.
keep() {
    for piece in out/gpu/parcel-*/piece-*; do
        if [ -e "$piece" ]; then cp "$piece" "$place/pieces/"; fi
    done
    if [ -d out/gpu/back/weights ]; then cp -r out/gpu/back/weights "$tree/"; fi
    ls -l "$place/pieces"
    df -h "$place" | tail -1
}

unpack() {
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || true
    local pieces=("$place"/pieces/piece-*)
    if [ ! -e "${pieces[0]}" ]; then
        echo "no parcels were kept: this machine is another one" >&2
        return 1
    fi
    local count=${pieces[0]##*-}
    for number in $(seq "$count"); do
        cat "$place/pieces/piece-$number-of-$count"
    done | tar -x -C "$place"
    rm "$place"/pieces/piece-*
    "$python" -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-index --no-deps --no-compile --upgrade --target "$place/site" "$place"/wheels/*.whl
    # Not over weights that came back from a machine that is gone.
    tar -c weights | tar -x --skip-old-files -C "$tree"
    (cd "$tree" && "$python" -c 'import av, diffusers, soxr, torch; print("torch", torch.__version__, torch.cuda.is_available())')
}

# train PART WEIGHTS_FOLDER PARTS_OF_WEIGHTS [OPTION...]: trains until the plan or LIMIT ends it, and exports.
train() {
    local part=$1 out=$2 parts=$3 status=0
    shift 3
    (
        cd "$tree"
        timeout --signal=TERM "${LIMIT:-450}" "$python" -m visavis.cli train "$part" --config "$plans/$part-mini-gpu.toml" \
            --data "$place/data" --out "runs/$part" "${options[@]}" "$@"
    ) || status=$?
    if [ "$status" != 0 ] && [ "$status" != 124 ]; then return "$status"; fi
    (cd "$tree" && "$python" -m visavis.cli train export "runs/$part" "$out" --data "$place/data")
    made+=("runs/$part/log.jsonl" "runs/$part/plan.json")
    for name in $parts; do made+=("weights/mini/$name"); done
    # The last sheet and the last film.
    for kind in png mp4; do
        made+=($(cd "$tree" && find "runs/$part/samples" -name "*.$kind" | sort | tail -1))
    done
}

# At most 8 files of 16 MiB come back.
send() {
    if [ ${#made[@]} = 0 ]; then return; fi
    printf '%s\n' "${made[@]}" | sort -u | tar -cz -C "$tree" -T - | split -b 15m - "$results/made.tar.gz."
    du -h "$results"/made.tar.gz.*
}

trap send EXIT
for stage in "$@"; do
    echo "== $stage, at second $SECONDS of this call"
    cp -r visavis configs "$tree/"
    case $stage in
    keep | unpack) "$stage" ;;
    vae) train vae weights/mini/vae vae ;;
    teacher) train teacher weights/mini "teacher teacher_speech_ae" ;;
    student) train student weights/mini "transformer speech_ae" --weights weights/mini/teacher ;;
    asd) train asd weights/mini "transformer speech_ae" --weights weights/mini/transformer --teacher weights/mini/teacher ;;
    distill) train distill weights/mini/fast fast --weights weights/mini/transformer ;;
    *)
        echo "unknown stage: $stage" >&2
        exit 2
        ;;
    esac
done
echo "== done, at second $SECONDS of this call"
