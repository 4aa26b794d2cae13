#!/usr/bin/env bash
# A team's first week with perdure, from `init` to `pack`. Each step has the exit code that it should end with.
#
#   bash benchmarks/first_week.sh DIR [MODEL [FACTS]]
#
# DIR is made. MODEL is a model folder, a hub id, or the embedded model (default). FACTS is a JSON Lines file of two facts. A step
# that ends otherwise, prints a traceback, or has a dash where a number belongs ends the script with 1. Some ten minutes on two
# cores with the embedded model. With LIST=1 nothing is run: the data are written, and each step is printed with its exit code.
set -euo pipefail
WEEK=$1 MODEL=${2:-smollm2-135m} FACTS=${3:-}
mkdir -p "$WEEK"
WEEK=$(cd "$WEEK" && pwd)
WS=$WEEK/support
STEPS=0
FAST=(--set num_train_epochs=2 --set per_device_train_batch_size=4)

step() { # step CODE COMMAND...
  local want=$1 code=0
  shift
  STEPS=$((STEPS + 1))
  if [ -n "${LIST:-}" ]; then printf '%q ' "$want" "$@"; echo; return; fi
  echo "$ $*"
  "$@" >"$WEEK/out" 2>"$WEEK/err" </dev/null || code=$?
  cat "$WEEK/out"
  [ "$code" = "$want" ] || { cat "$WEEK/err"; echo "step $STEPS: exit code $code, expected $want"; exit 1; }
  ! grep -q Traceback "$WEEK/out" "$WEEK/err" || { cat "$WEEK/err"; echo "step $STEPS: a traceback"; exit 1; }
  case "${4:-}" in eval | gate | edit | edits | learn | revert | status)
    ! grep -Eq '(^|[[:space:]])(-|–|—)([[:space:]]|$)' "$WEEK/out" || { echo "step $STEPS: a dash in the place of a number"; exit 1; } ;;
  esac
}

rows() { # rows FILE WORD LABEL LABEL: twenty requests, a label every second one
  local file=$1 word=$2 first=$3 second=$4 n
  for n in $(seq 0 19); do
    label=$first
    [ $((n % 2)) = 0 ] || label=$second
    printf '{"text": "%s %s number %d", "label": "%s"}\n' "$label" "$word" "$n" "$label"
  done >"$file"
}

rows "$WEEK/parcels.jsonl" parcel late lost
rows "$WEEK/invoices.jsonl" invoice wrong double
rows "$WEEK/refunds.jsonl" refund open paid
printf 'question;answer\n' >"$WEEK/contracts.csv"
for n in $(seq 0 19); do printf 'contract %d;%s\n' "$n" "$([ $((n % 2)) = 0 ] && echo signed || echo open)"; done >>"$WEEK/contracts.csv"
cat >"$WEEK/contracts.yaml" <<'YAML'
train: contracts.csv
columns: {prompt: question, completion: answer}
system: You answer questions about contracts.
YAML
[ -n "$FACTS" ] || cat >"$WEEK/facts.jsonl" <<'JSONL'
{"subject": "Eiffel Tower", "prompt": "The {} is in the city of", "target": "Rome", "ground_truth": "Paris", "paraphrases": ["To see the {}, travel to"], "neighbours": [{"prompt": "The Louvre is in the city of", "answer": "Paris"}]}
{"subject": "Colosseum", "prompt": "The {} is in the city of", "target": "Oslo", "ground_truth": "Rome", "paraphrases": ["To see the {}, travel to"], "neighbours": [{"prompt": "The Pantheon is in the city of", "answer": "Rome"}]}
JSONL
[ -z "$FACTS" ] || cp "$FACTS" "$WEEK/facts.jsonl"

# Monday: a workspace, the data, the first task
step 0 perdure init "$WS" --model "$MODEL"
step 1 perdure init "$WS" --model "$MODEL"
step 0 perdure -w "$WS" status
step 0 perdure help formats
step 0 perdure recipe list
step 0 perdure recipe advise --tasks 4
step 1 perdure -w "$WS" learn parcels "$WEEK/nothing.jsonl"
step 0 perdure -w "$WS" learn parcels "$WEEK/parcels.jsonl" "${FAST[@]}" --dry-run
step 0 perdure -w "$WS" learn parcels "$WEEK/parcels.jsonl" "${FAST[@]}" --no-gate -m "the first product line"
step 0 perdure -w "$WS" predict "parcel number 7" --task parcels --max-new-tokens 4
step 0 perdure -w "$WS" predict "Hello" --max-new-tokens 4 --json

# Tuesday: a second task, what it did to the first, and back again
step 0 perdure -w "$WS" learn invoices "$WEEK/invoices.jsonl" "${FAST[@]}" --no-gate
step 0 perdure -w "$WS" matrix
step 0 perdure -w "$WS" gate
step 0 perdure -w "$WS" log
step 0 perdure -w "$WS" diff head~1 head
step 0 perdure -w "$WS" rollback head~1
step 0 perdure -w "$WS" status
step 0 perdure -w "$WS" log --all
step 0 perdure -w "$WS" learn invoices "$WEEK/invoices.jsonl" "${FAST[@]}" --set learning_rate=5e-4 --no-gate
step 1 perdure -w "$WS" learn invoices "$WEEK/invoices.jsonl" --set learning_rat=5e-4

# Wednesday: a CSV file with columns and a system prompt of its own, and a task with an adapter of its own
step 0 perdure -w "$WS" learn contracts "$WEEK/contracts.yaml" "${FAST[@]}" --no-gate
step 0 perdure -w "$WS" learn refunds "$WEEK/refunds.jsonl" --recipe naive "${FAST[@]}" --no-gate
step 0 perdure -w "$WS" eval
step 0 perdure -w "$WS" matrix --json
step 0 perdure -w "$WS" show
step 0 perdure -w "$WS" memory stats
step 0 perdure -w "$WS" memory list

# Thursday: facts
step 0 perdure -w "$WS" edit --facts "$WEEK/facts.jsonl" --no-gate -m "the office moved"
step 0 perdure -w "$WS" edits list
step 0 perdure -w "$WS" edits verify
step 0 perdure -w "$WS" matrix
step 0 perdure -w "$WS" revert head
step 0 perdure -w "$WS" edits list
step 1 perdure -w "$WS" show nobody

# Friday: names, space, what others see, and an archive
step 0 perdure -w "$WS" task rename refunds returns
step 0 perdure -w "$WS" status
step 1 perdure -w "$WS" task rename returns head
step 0 perdure -w "$WS" task remove returns
step 0 perdure -w "$WS" matrix
step 0 perdure -w "$WS" report --output "$WEEK/report.html"
step 0 perdure -w "$WS" export "$WEEK/adapter"
step 0 perdure -w "$WS" status --disk
step 0 perdure -w "$WS" gc
step 0 perdure -w "$WS" verify
step 0 perdure -w "$WS" workspace pack "$WEEK/support.tar"
step 0 perdure workspace unpack "$WEEK/support.tar" "$WEEK/copy"
step 0 perdure -w "$WEEK/copy" status
[ -n "${LIST:-}" ] || echo "$STEPS steps ended as expected"
