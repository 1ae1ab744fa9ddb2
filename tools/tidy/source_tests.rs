//! What counts as code, and where functions end.

use super::*;

#[test]
fn comments_and_literals_are_not_code() {
    let source =
        Source::new("let a = \"unsafe\"; // unsafe\n/* unsafe /* nested */ */ r#\"un\"safe\"#;");
    assert_eq!(source.words("unsafe").count(), 0);
    assert!(source.code.starts_with("let a = "));
    assert_eq!(source.code.len(), source.classes.len());
}

#[test]
fn a_lifetime_is_code_and_a_quote_character_is_not() {
    let source = Source::new("fn f<'a>(x: &'a str) -> char { '\"' } // \"\nfn g() { '\\''; }");
    assert_eq!(source.functions().len(), 2);
}

#[test]
fn words_are_whole_words() {
    let source = Source::new("unsafe_code unsafe { } myunsafe");
    assert_eq!(source.words("unsafe").collect::<Vec<_>>(), [12]);
}

#[test]
fn a_function_is_measured_from_its_name_to_its_closing_brace() {
    let source =
        Source::new("/// {\nfn long(\n    a: [u8; 3],\n) {\n    if a { }\n}\n\nfn next();\n");
    let functions = source.functions();
    let [long] = functions.as_slice() else { panic!("one function has a body: {functions:?}") };
    assert_eq!((long.name.as_str(), long.line, long.lines), ("long", 2, 5));
}

#[test]
fn tests_are_found_by_their_attribute_and_know_their_module() {
    let text = "#[cfg(test)]\nmod tests {\n    #[test]\n    #[should_panic]\n    fn falls() { }\n    fn helps() { }\n}";
    let source = Source::new(text);
    let functions = source.functions();
    let [falls, helps] = functions.as_slice() else { panic!("two functions: {functions:?}") };
    assert!(falls.is_test && !helps.is_test);
    assert_eq!(falls.modules, ["tests"]);
    assert_eq!(source.tests_from_line(), 1);
}

#[test]
fn functions_inside_proptest_are_tests() {
    let source =
        Source::new("proptest! {\n    #[test]\n    fn holds(x in 0..3) { }\n}\nfn other() { }");
    let tests: Vec<bool> = source.functions().iter().map(|function| function.is_test).collect();
    assert_eq!(tests, [true, false]);
}

#[test]
fn tests_made_by_a_macro_are_named_by_its_rows() {
    let text = "macro_rules! pairs { ($($name:ident: $a:expr;)*) => {$(\n#[test]\nfn $name() { $a }\n)*}; }\n\
                pairs! {\n    one_works: 1;\n    two_works: 2;\n}\n";
    assert_eq!(Source::new(text).tests_made_by_macros(), ["one_works", "two_works"]);
    assert!(Source::new("fn f() {\n    a: 1;\n}").tests_made_by_macros().is_empty());
    let shared =
        "use a;\n\non_each_driver! {\n    one_works,\n    two_works,\n}\n\nfn one_works() {}\n";
    assert_eq!(Source::new(shared).tests_made_by_macros(), ["one_works", "two_works"]);
}

#[test]
fn a_file_that_ends_inside_a_literal_or_comment_is_no_panic() {
    for text in ["\"open", "r#\"open", "/* open", "'", "'\\", "r#", "fn", "mod x {", "é'é"] {
        let source = Source::new(text);
        assert_eq!(source.code.len(), text.len(), "{text}");
        let _ = source.functions();
    }
}
