//! The names of encodings: what is taken, what is refused, and what is said then.

#![allow(clippy::unwrap_used, reason = "tests")]

mod made;

use encoding::{Encoding, STAGES, SchemaError, SpecError};
use made::encoding;
use protocol::{DType, Schema, Slot};

#[test]
fn texts_are_canonical() {
    for text in [
        "delta",
        "f16",
        "bf16",
        "int8",
        "deflate",
        "delta+f16",
        "delta+topk:0.01",
        "delta+topk:0.001+bf16",
        "delta+topk:0.25+int8+deflate",
    ] {
        assert_eq!(encoding(text).to_string(), text);
        assert_eq!(encoding(text), encoding(&encoding(text).to_string()));
    }
    assert_eq!(encoding("delta+topk:0.0100").to_string(), "delta+topk:0.01");
    assert_eq!(encoding("delta+topk:.5").to_string(), "delta+topk:0.5");
}

#[test]
fn every_stage_in_the_list_can_be_asked_for() {
    for stage in STAGES {
        let own = stage.form.replace("<fraction>", "0.5");
        let text = stage.needs.map_or(own.clone(), |needs| format!("{needs}+{own}"));
        assert_eq!(encoding(&text).to_string(), text);
    }
    assert!(STAGES.is_sorted_by_key(|stage| stage.place), "in the order of work");
}

#[test]
fn refusals_name_the_stage_and_what_it_takes() {
    for (text, said) in [
        ("", "an encoding names at least one stage; leave it out to have none"),
        (
            "zstd",
            "there is no stage \"zstd\"; there are delta, topk:<fraction>, f16, bf16, int8, deflate",
        ),
        (
            "delta+",
            "there is no stage \"\"; there are delta, topk:<fraction>, f16, bf16, int8, deflate",
        ),
        (
            "Delta",
            "there is no stage \"Delta\"; there are delta, topk:<fraction>, f16, bf16, int8, deflate",
        ),
        ("delta:1", "stage delta takes no argument, not \"delta:1\""),
        ("int8:", "stage int8 takes no argument, not \"int8:\""),
        (
            "delta+topk",
            "stage topk takes a fraction above 0 and below 1, like topk:0.01, not \"topk\"",
        ),
        (
            "delta+topk:0",
            "stage topk takes a fraction above 0 and below 1, like topk:0.01, not \"topk:0\"",
        ),
        (
            "delta+topk:1.0",
            "stage topk takes a fraction above 0 and below 1, like topk:0.01, not \"topk:1.0\"",
        ),
        (
            "delta+topk:-0.1",
            "stage topk takes a fraction above 0 and below 1, like topk:0.01, not \"topk:-0.1\"",
        ),
        (
            "delta+topk:nan",
            "stage topk takes a fraction above 0 and below 1, like topk:0.01, not \"topk:nan\"",
        ),
        (
            "delta+topk:1e-2",
            "stage topk takes a fraction above 0 and below 1, like topk:0.01, not \"topk:1e-2\"",
        ),
        ("topk:0.01", "stage topk needs delta before it"),
        ("topk:0.01+delta", "stage topk needs delta before it"),
        ("int8+delta", "stage delta works before int8: write it before"),
        ("deflate+int8", "stage int8 works before deflate: write it before"),
        ("f16+int8", "stages f16 and int8 exclude one another"),
        ("delta+delta", "stage delta stands twice"),
    ] {
        assert_eq!(text.parse::<Encoding>().unwrap_err().to_string(), said, "{text}");
    }
    let long = "delta+".repeat(100);
    assert_eq!(long.parse::<Encoding>(), Err(SpecError::TooLong { len: 600 }));
}

#[test]
fn models_that_an_encoding_does_not_serve_are_named() {
    let schema = |tensors: &[(&str, DType)]| -> Schema {
        let slot = |dtype| Slot { dtype, shape: vec![2] };
        tensors.iter().map(|(name, dtype)| ((*name).to_owned(), slot(*dtype))).collect()
    };
    let check = |text: &str, tensors: &[(&str, DType)]| encoding(text).check(&schema(tensors));
    let (f32, i8) = (DType::F32, DType::I8);
    assert_eq!(check("int8", &[("w", f32), ("w.index", f32)]), Ok(()));
    let name = "w".to_owned();
    assert_eq!(check("deflate", &[("w", i8)]), Err(SchemaError::Quantised { name }));
    let name = ".scale".to_owned();
    assert_eq!(check("int8", &[(".scale", f32), ("w", f32)]), Err(SchemaError::Name { name }));
    let name = "w.index".to_owned();
    let both = [("w", f32), ("w.index", f32)];
    assert_eq!(check("delta+topk:0.5", &both), Err(SchemaError::Name { name }));
    let of = "x".repeat(251);
    let long = Err(SchemaError::LongName { len: 257, of: of.clone() });
    assert_eq!(check("delta+topk:0.5", &[(&of, f32)]), long);
    assert_eq!(check("delta", &[(&of, f32)]), Ok(()));
    let names: Vec<String> = (0..4096).map(|at| format!("t{at}")).collect();
    let most: Vec<(&str, DType)> = names.iter().map(|name| (name.as_str(), f32)).collect();
    assert_eq!(check("f16", &most), Ok(()));
    assert_eq!(check("int8", &most), Err(SchemaError::Tensors { found: 4097 }));
}
