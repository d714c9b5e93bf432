//! Inputs of a task: text for everybody, numbers for a `run` that takes them.

use proplet::executor::{ENV_INPUTS, Failure, Output, Program};

use crate::device::{Device, job, wat};

/// Runs the program with these inputs.
async fn given(program: &Program, inputs: Option<&str>) -> Result<Output, Failure> {
    let mut job = job(program, &[]);
    job.env.extend(inputs.map(|text| (ENV_INPUTS.to_owned(), text.to_owned())));
    Device::wasm().run(job).await.end
}

async fn refusal(program: &Program, inputs: Option<&str>) -> String {
    let failure = given(program, inputs).await.unwrap_err();
    assert_eq!(failure.code(), "inputs", "{inputs:?}: {failure}");
    failure.to_string()
}

/// Traps unless its parameters are as expected, bit by bit.
fn expecting([a, b, c, d]: [&str; 4]) -> Program {
    wat(&format!(
        r#"(module (func (export "run") (param i32 i64 f32 f64) (result i64)
            (if (i32.ne (local.get 0) (i32.const {a})) (then unreachable))
            (if (i64.ne (local.get 1) (i64.const {b})) (then unreachable))
            (if (f32.ne (local.get 2) (f32.const {c})) (then unreachable))
            (if (f64.ne (local.get 3) (f64.const {d})) (then unreachable))
            i64.const 0))"#
    ))
}

#[tokio::test]
async fn a_run_that_takes_numbers_gets_them_in_order() {
    let program = expecting(["-7", "9007199254740993", "0.5", "1e300"]);
    given(&program, Some("[-7, 9007199254740993, 0.5, 1e300]")).await.unwrap();
    let program = expecting(["-1", "-1", "3", "4"]);
    given(&program, Some("[4294967295, 18446744073709551615, 3, 4]")).await.unwrap();

    let swapped = given(&program, Some("[3, 4, -1, -1]")).await.unwrap_err();
    assert_eq!(swapped.code(), "trap");
}

#[tokio::test]
async fn a_run_that_takes_numbers_is_initialized_first_and_start_still_comes_before_it() {
    let program = wat(r#"(module (global $ready (mut i32) i32.const 0)
            (func (export "_initialize") i32.const 1 global.set $ready)
            (func (export "run") (param i32)
                (if (i32.ne (local.get 0) (global.get $ready)) (then unreachable))))"#);
    given(&program, Some("[1]")).await.unwrap();
    let program =
        wat(r#"(module (func (export "run") (param i32) unreachable) (func (export "_start")))"#);
    given(&program, Some("[1]")).await.unwrap();
    given(&program, None).await.unwrap();
}

#[tokio::test]
async fn inputs_that_run_does_not_take_are_refused_with_what_it_takes() {
    let program = wat(r#"(module (func (export "run") (param i32 f64) unreachable))"#);
    for (inputs, count) in [(None, 0), (Some("[]"), 0), (Some("[1]"), 1), (Some("[1,2,3]"), 3)] {
        let why = format!("`run` takes 2 inputs (i32, f64), not {count}");
        assert_eq!(refusal(&program, inputs).await, why);
    }
    for wrong in [r#""1""#, "1.5", "null", "true", "[1]", "4294967296", "-2147483649", "1e9"] {
        let why = format!("input 0 of `run` is an i32, not {wrong}");
        let inputs = format!("[{wrong}, 2]");
        let shown = refusal(&program, Some(&inputs)).await;
        assert_eq!(shown.replace("1000000000.0", "1e9"), why);
    }
    let why = refusal(&program, Some(&format!("[1, \"{}\"]", "x".repeat(5000)))).await;
    assert!(why.starts_with("input 1 of `run` is an f64, not \"xxx") && why.len() < 120, "{why}");
    for text in ["", "7", "{}", "[1,", "[1] [2]"] {
        let why = refusal(&program, Some(text)).await;
        assert!(why.starts_with("INPUTS is not a JSON array"), "{why}");
    }
    let narrow = wat(r#"(module (func (export "run") (param f32)))"#);
    assert_eq!(refusal(&narrow, Some("[1e39]")).await, "input 0 of `run` is an f32, not 1e+39");
    given(&narrow, Some("[-3.4e38]")).await.unwrap();
}

#[tokio::test]
async fn a_program_that_takes_no_numbers_does_not_care_what_the_inputs_are() {
    for text in [r#"(module (func (export "run")))"#, r#"(module (func (export "_start")))"#] {
        for inputs in [None, Some("[1]"), Some("not JSON")] {
            given(&wat(text), inputs).await.unwrap();
        }
    }
}
