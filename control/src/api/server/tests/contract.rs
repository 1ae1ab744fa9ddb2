//! Every operation of the document, asked by a program that only knows the document.

use super::*;
use crate::api::rate::Allowance;

#[test]
#[ignore = "takes a minute and a Python program: a stage of tools/test runs it"]
fn what_the_document_promises_holds_for_thousands_of_requests() {
    let much = Allowance { per_second: 1_000_000, burst: 1_000_000 };
    let allowances = Allowances { per_source: much, per_caller: much, ..Allowances::default() };
    let host = Host::with("contract", Bounds::default(), allowances);
    let document = format!("http://{}/api/v1/openapi.json", host.plain());
    let checks = [
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_schema_conformance",
        "negative_data_rejection",
        "unsupported_method",
        "ignored_auth",
    ];
    let output = Command::new("timeout")
        .args(["--kill-after=5", "240", "schemathesis", "run", &document])
        .args(["--header", "Authorization: Bearer token-root"])
        .args(["--checks", &checks.join(",")])
        .args(["--phases", "examples,coverage,fuzzing"])
        .args(["--max-examples", "60", "--seed", "1", "--generation-deterministic"])
        .args(["--request-timeout", "10", "--no-color"])
        // A stream does not end.
        .args(["--exclude-path", "/api/v1/events"])
        .current_dir(host.world.folder.path())
        .output()
        .expect("timeout is missing: run tools/setup test");
    let said = text(&output);
    let why = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success(),
        "run tools/setup test if there is no schemathesis\n{said}\n{why}"
    );
}
