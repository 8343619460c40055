#!/usr/bin/env bash
# Every benchmark, one after the other; each rewrites its table in benchmarks/results (docs/benchmarks.md):
#   bash benchmarks/run.bash            # all but the studies, which take hours, and the GPU's
#   bash benchmarks/run.bash blip_step  # only those named
#   bash benchmarks/run.bash rungs      # a study: ablation, adaptation, fidelity, rungs, cross_sets, synthetic_training; finished runs are skipped
#   bash benchmarks/run.bash gpu        # what is worth measuring on a machine with a GPU, in about ten minutes
#   BENCHMARK_DEVICE=cuda bash benchmarks/run.bash itm_reranking feature_extraction caption_generation
# They compare two versions in one run, so ratios mean something; run nothing else meanwhile.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/environment.bash
ALL=(palette_accuracy blip_step clip_step training_step itm_reranking feature_extraction image_pipeline evaluation_memory caption_generation
    divided_work pseudo_labels source_term cluster_metric search_index search_stores explaining onnx_speed)
STUDIES=(ablation adaptation fidelity rungs cross_sets synthetic_training)

# On a CPU with two threads, which sleep while they wait; BENCHMARK_DEVICE=cuda measures on a GPU.
two_threads() { OMP_NUM_THREADS=2 OMP_WAIT_POLICY=passive "$PYTHON" "benchmarks/$1.py" --device "${BENCHMARK_DEVICE:-cpu}"; }

palette_accuracy() {
    "$PYTHON" -m synthesis.demo --root output/benchmarks/demo --seed 0
    "$PYTHON" -m benchmarks.palette_accuracy --root output/benchmarks/demo/CUHK-PEDES
    # The target world as configs/demo-pretrained.yaml draws it, in the light of each picture and of each camera.
    local target=output/benchmarks/target/CUHK-PEDES results=benchmarks/results/palette_accuracy-target
    "$PYTHON" -m synthesis.demo --root output/benchmarks/target --world target --train 600 --val 40 --test 100 --images 4 --seed 0
    "$PYTHON" -m benchmarks.palette_accuracy --root "$target" --output "$results-cpu.csv"
    "$PYTHON" -m benchmarks.palette_accuracy --root "$target" --output "$results-cameras-cpu.csv" --cameras
}
blip_step() { OMP_NUM_THREADS=2 OMP_WAIT_POLICY=passive "$PYTHON" benchmarks/blip_step.py; }
clip_step() { OMP_NUM_THREADS=2 OMP_WAIT_POLICY=passive "$PYTHON" benchmarks/clip_step.py; }
training_step() { OMP_NUM_THREADS=2 OMP_WAIT_POLICY=passive "$PYTHON" benchmarks/training_step.py; }
itm_reranking() { two_threads itm_reranking; }
feature_extraction() { two_threads feature_extraction; }
image_pipeline() { OMP_NUM_THREADS=1 "$PYTHON" benchmarks/image_pipeline.py; }
evaluation_memory() { "$PYTHON" benchmarks/evaluation_memory.py; } # needs about 6 GB in TMPDIR
divided_work() { OMP_WAIT_POLICY=passive "$PYTHON" benchmarks/divided_work.py; } # sets the threads itself
caption_generation() { two_threads caption_generation; }
search_index() { OMP_NUM_THREADS=2 "$PYTHON" benchmarks/search_index.py --queries 100; }
search_stores() { OMP_NUM_THREADS=1 "$PYTHON" benchmarks/search_stores.py --queries 30; }
explaining() { OMP_NUM_THREADS=1 "$PYTHON" benchmarks/explaining.py; }
onnx_speed() { OMP_NUM_THREADS=1 "$PYTHON" benchmarks/onnx_speed.py; }
pseudo_labels() {
    "$PYTHON" -m benchmarks.pseudo_labels compare
    "$PYTHON" -m benchmarks.pseudo_labels scale
}
source_term() { "$PYTHON" -m benchmarks.source_term; } # noise and clusters, nothing timed
cluster_metric() { "$PYTHON" -m benchmarks.cluster_metric; } # the same
ablation() { # the demo over three seeds, and the tables of docs/model_zoo.md
    "$PYTHON" -m benchmarks.ablation --jobs "$(nproc)" --threads 1
    "$PYTHON" -m benchmarks.model_zoo
}

# Studies whose tables stand on docs/pretraining.md, docs/rungs.md, docs/fidelity.md and docs/synthesis.md; a run that several share is made once.
study() { # a name, and what its command takes beside the usual
    "$PYTHON" -m "benchmarks.$1" --jobs "$(nproc)" --threads 1 "${@:2}"
    "$PYTHON" -m benchmarks.pages
    "$PYTHON" -m benchmarks.model_zoo # what choosing epochs on test would have reported
}
adaptation() {
    study adaptation
    "$PYTHON" -m benchmarks.demo_steps --picture docs/images/demo_steps.png
}
fidelity() {
    "$PYTHON" -m benchmarks.fidelity from-scratch --jobs "$(nproc)" --threads 1
    study fidelity
}
rungs() { study rungs; }
cross_sets() { study cross_sets --picture docs/images/demo_matrix.png; }
synthetic_training() {
    "$PYTHON" gen_images.py --config configs/syn.yaml
    study synthetic_training
}

gpu() { "$PYTHON" -m benchmarks.gpu; } # goes on where it was stopped; says so where there is no GPU

CHOSEN=("$@")
[ $# -gt 0 ] || CHOSEN=("${ALL[@]}")
for name in "${CHOSEN[@]}"; do
    [[ " ${ALL[*]} ${STUDIES[*]} gpu " == *" $name "* ]] || { echo "There is no benchmark '$name': give some of ${ALL[*]} ${STUDIES[*]} gpu." >&2; exit 2; }
done
set_up_environment requirements-dev.txt
for name in "${CHOSEN[@]}"; do
    echo "== $name" >&2
    "$name"
done
