#!/usr/bin/env bash
# Rank-1/5/10, mAP and mINP of a trained model, with and without ITM re-ranking:
#   bash eval.bash [demo-pretrained|demo|syn|cuhk|icfg|rstp|FILE.yaml] [pspd|tsn|cada|ssan|irra|rde|tbps_clip|syntbpr] [--checkpoint FILE] [--seeds N ...] [--set KEY=VALUE ...]
# --seeds 0 1 2 evaluates the model of each seed, and then says mean and spread of the results.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
if [ "${1:-}" = --help ] || [ "${1:-}" = -h ]; then sed -n '2,4s/^# //p' eval.bash; exit 0; fi
source scripts/environment.bash
source scripts/launch.bash

read_target "$@"
take_seeds
[ "${#SEEDS[@]}" -eq 0 ] || [[ " ${REST[*]} " != *" --checkpoint "* ]] || usage_error "--checkpoint is one model: leave out --seeds."
set_up_environment requirements.txt
if [ "${#SEEDS[@]}" -eq 0 ]; then
    launch test.py --config "${CONFIGS[@]}" "${REST[@]}"
    exit
fi
for seed in "${SEEDS[@]}"; do
    echo "Seed $seed of ${SEEDS[*]}" >&2
    launch test.py --config "${CONFIGS[@]}" "${REST[@]}" --set "seed=$seed"
done
summarise_seeds "${REST[@]}"
