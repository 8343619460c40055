#!/usr/bin/env bash
# Rank-1/5/10, mAP and mINP of a trained model, with and without ITM re-ranking:
#   bash eval.bash [demo|cuhk|icfg|rstp|FILE.yaml] [pspd|tsn|cada] [--checkpoint FILE] [--set KEY=VALUE ...]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
if [ "${1:-}" = --help ] || [ "${1:-}" = -h ]; then sed -n '2,3s/^# //p' eval.bash; exit 0; fi
source scripts/environment.bash
source scripts/launch.bash

read_target "$@"
set_up_environment requirements.txt
launch test.py --config "${CONFIGS[@]}" "${REST[@]}"
