#!/usr/bin/env bash
# Every stage of a training, then the evaluation:
#   bash train.bash [demo-pretrained|demo|syn|cuhk|icfg|rstp|folder|FILE.yaml] [pspd|tsn|cada|ssan|irra|rde|tbps_clip|syntbpr] [--seeds N ...] [--set KEY=VALUE ...] [--from STAGE] [--force] [--dry-run]
# Without arguments: the demo with PSPD, from its pre-trained start (demo: the one from scratch). A finished stage is skipped, an interrupted one goes on where it stopped.
# released/pspd (tsn, cada, ssan) in the place of the method: as its released code does it (docs/fidelity.md).
# --seeds 0 1 2 does all of it once per seed, and then says mean and spread of the results.
# --from STAGE does STAGE and all after it again; --force does everything again.
# --dry-run says which stages are left and starts none.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
if [ "${1:-}" = --help ] || [ "${1:-}" = -h ]; then sed -n '2,9s/^# //p' train.bash; exit 0; fi
source scripts/environment.bash
source scripts/launch.bash
STAGES=(gen_images gen_pre_train_text pre_train gen_text train test)

read_target "$@"
take_seeds
set -- "${REST[@]}"
FROM= DRY_RUN= OPTIONS=()
while [ $# -gt 0 ]; do
    case $1 in
        --from)
            FROM=${2:-}
            [[ " ${STAGES[*]} " == *" $FROM "* ]] || usage_error "--from needs one of: ${STAGES[*]}."
            shift 2 ;;
        --force) FROM=${STAGES[0]}; shift ;;
        --dry-run) DRY_RUN=1; shift ;;
        --set) OPTIONS+=(--set); shift; while [ $# -gt 0 ] && [[ $1 != --* ]]; do OPTIONS+=("$1"); shift; done ;;
        *) usage_error "Unknown argument '$1': see bash train.bash --help." ;;
    esac
done

set_up_environment requirements.txt

run_stages() { # stage from which on everything is done again, or nothing; further settings
    local from=$1 plan stage force code settings
    shift
    settings=(--config "${CONFIGS[@]}" "${OPTIONS[@]}" "$@")
    plan=$(outstanding "$from" "${settings[@]}") || exit $?
    if [ -n "$DRY_RUN" ]; then
        [ -z "$plan" ] || sed 's/^/To be done: /' <<<"$plan"
        return
    fi
    while read -r stage force <&4; do
        [ -n "$stage" ] || continue # every stage is finished
        launch "$stage.py" "${settings[@]}" ${force:+"$force"} || {
            code=$?
            # A mistake has been told in a sentence by now; who was killed could not say anything.
            [ "$code" -le 128 ] || echo "Stage $stage was killed by signal $((code - 128)) (9: often for want of memory); what is done is kept, and the same command goes on from there." >&2
            exit "$code"
        }
    done 4<<<"$plan"
    [ -n "$plan" ] || "$PYTHON" -m engine.results "${settings[@]}"
}

# The stages that are still to be done, one per line, with --force where they are done again. Several machines have to start
# the same ones, and each may see the files that they share at another time: there all are started, and say what is finished.
outstanding() { # stage from which on everything is done again, or nothing; options of a stage
    local from=$1 stage force=
    shift
    if [ "${NNODES:-1}" -eq 1 ] || [ -n "$DRY_RUN" ]; then
        "$PYTHON" -m engine.outstanding "$@" ${from:+--from "$from"}
        return
    fi
    for stage in "${STAGES[@]}"; do
        [ "$stage" = "$from" ] && force=--force
        echo "$stage $force"
    done
}

if [ "${#SEEDS[@]}" -eq 0 ]; then
    run_stages "$FROM"
    exit
fi
PLAN=$("$PYTHON" -m engine.several_seeds plan --config "${CONFIGS[@]}" "${OPTIONS[@]}" --seeds "${SEEDS[@]}" ${FROM:+--from "$FROM"})
while read -r seed from <&3; do
    [ -n "$seed" ] || continue # every seed is finished
    echo "Seed $seed of ${SEEDS[*]}" >&2
    run_stages "$from" --set "seed=$seed"
done 3<<<"$PLAN"
[ -n "$DRY_RUN" ] || summarise_seeds "${OPTIONS[@]}"
