# Sourced by train.bash and eval.bash: reads their arguments and starts one stage, on one process or on many.

usage_error() {
    echo "$1" >&2
    exit 2
}

# Sets CONFIGS (files, later ones win) and METHOD from the words before the first option; the rest stays in REST.
read_target() {
    local target=demo-pretrained released=
    METHOD=pspd
    REST=()
    if [ $# -gt 0 ] && [[ $1 != --* ]]; then target=$1; shift; fi
    if [ $# -gt 0 ] && [[ $1 != --* ]]; then METHOD=$1; shift; fi
    REST=("$@")
    if [[ $METHOD == released/* ]]; then released=configs/$METHOD.yaml METHOD=${METHOD#released/}; fi
    [[ $target == *.yaml || $target == *.yml ]] || target=configs/$target.yaml
    [ -f "$target" ] || usage_error "There is no configuration $target: give demo-pretrained, demo, syn, cuhk, icfg, rstp, folder or a YAML file."
    [ -f "configs/methods/$METHOD.yaml" ] || usage_error "There is no method '$METHOD': give one of $(ls configs/methods | sed 's/\.yaml//' | xargs)."
    CONFIGS=("configs/methods/$METHOD.yaml" "$target")
    # What this method needs on this data set only: configs/demo/tsn.yaml.
    if [ -f "${target%.*}/$METHOD.yaml" ]; then CONFIGS+=("${target%.*}/$METHOD.yaml"); fi
    if [ -z "$released" ]; then return; fi
    # What the released code does otherwise (docs/fidelity.md), and what that needs on this data set: configs/demo/released.yaml.
    [ -f "$released" ] || usage_error "There is no $released: give one of $(ls configs/released | sed 's/\.yaml//; s|^|released/|' | xargs)."
    CONFIGS+=("$released")
    if [ -f "${target%.*}/released.yaml" ]; then CONFIGS+=("${target%.*}/released.yaml"); fi
}

# Moves "--seeds 0 1 2" out of REST into SEEDS.
take_seeds() {
    local kept=()
    SEEDS=()
    set -- "${REST[@]}"
    while [ $# -gt 0 ]; do
        if [ "$1" != --seeds ]; then kept+=("$1"); shift; continue; fi
        shift
        while [ $# -gt 0 ] && [[ $1 =~ ^[0-9]+$ ]]; do SEEDS+=("$1"); shift; done
        [ "${#SEEDS[@]}" -gt 0 ] || usage_error "--seeds needs numbers, such as --seeds 0 1 2."
    done
    REST=("${kept[@]}")
}

# Mean and spread of the seeds' results; one machine of several writes them.
summarise_seeds() {
    [ "${NODE_RANK:-0}" = 0 ] || return 0
    "$PYTHON" -m engine.several_seeds summary --config "${CONFIGS[@]}" "$@" --seeds "${SEEDS[@]}"
}

# One process per GPU through torchrun when there is more than one, plain python otherwise.
# Several machines: the same command on each, with NNODES, NODE_RANK and MASTER_ADDR set.
launch() {
    [ "$STOPPED" != TERM ] || { echo "Stopped; the same command goes on from here." >&2; exit 0; }
    local processes=${NPROC:-}
    if [ -z "$processes" ]; then
        processes=$(nvidia-smi -L 2>/dev/null | grep -c '^GPU' || true)
        [ "$processes" -ge 1 ] || processes=1
    fi
    local runner=("$PYTHON")
    if [ "$processes" -gt 1 ] || [ "${NNODES:-1}" -gt 1 ]; then
        runner=("$PYTHON" -m torch.distributed.run --nnodes "${NNODES:-1}" --node-rank "${NODE_RANK:-0}"
            --nproc-per-node "$processes" --master-addr "${MASTER_ADDR:-127.0.0.1}" --master-port "${MASTER_PORT:-29511}")
    fi
    # In the background, so that a signal reaches this shell at once and can be passed on.
    "${runner[@]}" "$@" &
    CHILD=$!
    while true; do
        wait "$CHILD" && CODE=0 || CODE=$?
        kill -0 "$CHILD" 2>/dev/null || break
    done
    # A stage that was told to stop has saved and ends with 143 or 130; asked by SIGTERM, that is no failure.
    # torchrun reports a stop of its processes as 1.
    if [ "$CODE" = 143 ] || { [ "$STOPPED" = TERM ] && { [ "$CODE" = 0 ] || [ "${runner[1]:-}" = -m ]; }; }; then
        echo "Stopped; the same command goes on from here." >&2
        exit 0
    fi
    [ -z "$STOPPED" ] || exit 130
    return "$CODE"
}

# SIGTERM (SLURM) and ctrl-C: the stage saves and ends; the stages after it are not started.
STOPPED=
trap 'STOPPED=TERM; [ -n "${CHILD:-}" ] && kill -TERM "$CHILD" 2>/dev/null' TERM
trap 'STOPPED=INT; [ -n "${CHILD:-}" ] && kill -INT "$CHILD" 2>/dev/null' INT
