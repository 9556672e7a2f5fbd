//! What the status page makes of the answers: the worker's script runs in node.

use std::process::Command;

/// Gives the worker answers and hears what it tells the page.
const WORKER: &str = r#"
const assert = require("node:assert");
const told = [];
globalThis.onmessage = null;
globalThis.postMessage = (message) => told.push(message);
globalThis.setTimeout = () => {};
let answer = { items: [] };
globalThis.fetch = async () => ({ ok: true, json: async () => answer });
require("node:vm").runInThisContext(SCRIPT);
const rule = (set, index, state, reason) => ({ set, index, state, reason });
const made = (name, state, ...descriptors) => ({ namespace: "shop", name, state, limit: "10/1s per pod", reason: `why ${name}`, descriptors });
answer.items = [
  made("idle", "Idle", rule("_base", 0, "Idle", "no")),
  made("b-held", "Held", rule("_base", 0, "Held", "old")),
  made("hides-a-refused-one", "Limiting", rule("_base", 0, "Limiting", "yes"), rule("v2", 0, "Refused", "no subset v2")),
  made("a-limiting", "Limiting", rule("_base", 0, "Limiting", "yes")),
  made("fallback", "Fallback", rule("_base", 0, "Fallback", "gone")),
  made("of-the-future", "Melting", rule("_base", 0, "Melting", "hot")),
];
(async () => {
  onmessage({ data: { words: [], url: "x", kind: "limiter", detail: false, maxRows: 5 } });
  await new Promise((done) => setImmediate(() => setImmediate(done)));
  const [{ rows, found, total, states, error }] = told;
  assert.equal(error, null);
  assert.deepEqual(rows.map((row) => row.name), ["hides-a-refused-one", "fallback", "of-the-future", "b-held", "a-limiting"], "trouble first");
  assert.deepEqual([found, total], [6, 6]);
  assert.deepEqual(states[0], ["Refused", 1]);
  const worst = rows[0];
  assert.equal(worst.state, "Refused");
  assert.equal(worst.reason, "v2[0]: no subset v2");
  assert.deepEqual(worst.badges, ["1 Refused", "1 Limiting"]);
  assert.equal(worst.href, "/limiters/shop/hides-a-refused-one");
  onmessage({ data: { words: ["refused"] } });
  assert.deepEqual(told[1].rows.map((row) => row.name), ["hides-a-refused-one"], "a filter by state finds it");
})().catch((error) => { console.error(error); process.exit(1); });
"#;

#[test]
fn fault_o25_trouble_is_first_and_no_refused_rule_is_hidden() {
    let page = include_str!("../../src/status.html");
    let (_, worker) = page.split_once("id=\"worker\">").unwrap();
    let (worker, _) = worker.split_once("</script>").unwrap();
    let script = WORKER.replace("SCRIPT", &serde_json::to_string(worker).unwrap());
    let output = Command::new("node")
        .args(["--eval", &script])
        .output()
        .unwrap_or_else(|e| panic!("node: {e}; the tests of Dubbo need it too: run `make deps`"));
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
